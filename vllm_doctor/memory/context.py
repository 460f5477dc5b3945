"""The longest context that a model's config allows, as vLLM derives it."""

from typing import Any, NamedTuple

from vllm_doctor.memory.config_values import Config

# vLLM 0.32 transformers_utils/model_arch_config_convertor.py derive_max_model_len_and_key.
_KEYS = (
    "max_position_embeddings",
    "n_positions",
    "max_seq_len",
    "seq_length",
    "model_max_length",
    "max_target_positions",
    "max_sequence_length",
    "max_seq_length",
    "seq_len",
)
# Without any of the keys (the same release, config/model.py _get_and_verify_max_len).
_WITHOUT_KEY = 2048
# Types whose configs name the scaled length already; "yarn" from 0.30 on (config/model.py).
_UNSCALED = ("su", "longrope", "llama3", "yarn", "deepseek_yarn", "deepseek_llama_scaling", "default", "mrope")


class Length(NamedTuple):
    """`tokens` that vLLM derives, the key that says so, and the positions of the RoPE table.

    `longest` is the most that some release takes when it is asked for more; None where no key names a length.
    """

    tokens: int
    key: str | None
    positions: int
    longest: int | None


def derived_length(whole: Config, text: Config) -> Length:
    """The native max_model_len (vLLM 0.32; yarn models keep their config's length, as from 0.30 on)."""
    found = {k: v for k in _KEYS if (v := text.optional(k)) is not None and v > 0}
    key = min(found, key=lambda k: found[k]) if found else None
    length = found[key] if key is not None else _WITHOUT_KEY
    if "model_max_length" in found:
        key, length = "model_max_length", found["model_max_length"]
    rope = rope_parameters(text)
    kind = rope_type(rope)
    factor = rope.get("factor")
    scaled = length
    if (
        kind not in _UNSCALED
        and isinstance(factor, int | float)
        and 1 <= factor <= 2**16
        and "gemma3" not in whole.model_type
    ):
        scaled = int(length * factor)
    longest = _longest(scaled, rope, kind) if key is not None else None
    if kind in ("longrope", "su"):
        original = whole.optional("original_max_position_embeddings") or text.optional(
            "original_max_position_embeddings"
        )
        scaled = original or scaled
    return Length(scaled, key, length, longest)


def _longest(scaled: int, rope: dict[str, Any], kind: str) -> int:
    """What `--max-model-len` may ask for: to 0.29 YaRN's factor times the length before the stretch, too."""
    factor, original = rope.get("factor"), rope.get("original_max_position_embeddings")
    if kind not in ("yarn", "deepseek_yarn"):
        return scaled
    if isinstance(factor, int | float) and isinstance(original, int) and 1 <= factor <= 2**16 and 0 < original <= 2**31:
        return max(scaled, int(original * factor))
    return scaled


def rope_parameters(text: Config) -> dict[str, Any]:
    """The RoPE scaling, under either name; of parameters per layer type, the one of full attention."""
    for key in ("rope_parameters", "rope_scaling"):
        value = text.values.get(key)
        if isinstance(value, dict) and value:
            nested = value.get("full_attention")
            return nested if isinstance(nested, dict) else value
    return {}


def rope_type(rope: dict[str, Any]) -> str:
    """`rope_type`, or `type` as older configs have it."""
    return next((v for k in ("rope_type", "type") if isinstance(v := rope.get(k), str)), "default")
