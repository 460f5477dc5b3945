"""The tables of rotary embeddings, which are buffers that every rank holds whole."""

from vllm_doctor.memory.config_values import Config
from vllm_doctor.memory.context import rope_parameters, rope_type
from vllm_doctor.memory.facts import Architecture
from vllm_doctor.memory.families.windows import layer_types

# Types whose layers have no RoPE: other positions, or none (GLM-5.3-Flash: a head with RoPE has no elements).
_WITHOUT = frozenset(
    (
        "bloom",
        "cohere_asr",
        "falcon_mamba",
        "glm5_next_text",
        "gpt2",
        "gpt_bigcode",
        "inkling_model",
        "inkling_text",
        "jamba",
        "mamba",
        "mpt",
        "nemotron_h",
        "opt",
        "whisper",
    )
)


def rope_elements(text: Config, base: Architecture, positions: int) -> int:
    """Elements of the cos/sin tables (0.32 layers/rotary_embedding): rows x rotary size, one per distinct table.

    Linear and dynamic scaling make the table longer by their factor; yarn's has the scaled length. Readers of models
    with tables of their own kind have counted them.
    """
    if base.rope_elements:
        return base.rope_elements
    if not base.attention_heads:
        return 0
    if text.text("position_embedding_type") == "nope" or text.model_type in _WITHOUT:
        return 0
    size = text.optional("qk_rope_head_dim") or base.head_size
    if not text.optional("qk_rope_head_dim"):
        size = min(size, text.optional("rotary_dim") or int(size * _partial(text)))
    rope = rope_parameters(text)
    rows = _rows(rope, positions)
    return size * (rows + (positions if _has_local_table(text, base) else 0))


def _partial(text: Config) -> float:
    rope = rope_parameters(text)
    for value in (rope.get("partial_rotary_factor"), text.get("partial_rotary_factor"), text.get("rotary_pct")):
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= 1:
            return float(value)
    return 1.0


def _rows(rope: dict[str, object], positions: int) -> int:
    factor = rope.get("factor")
    if not isinstance(factor, int | float) or isinstance(factor, bool) or not 1 <= factor <= 2**16:
        return positions
    kind = rope_type(rope)
    original = rope.get("original_max_position_embeddings")
    if kind in ("yarn", "deepseek_yarn"):
        return int(original * factor) if isinstance(original, int) and 0 < original < 2**31 else positions
    return int(positions * factor) if kind in ("linear", "dynamic") else positions


def _has_local_table(text: Config, base: Architecture) -> bool:
    """Gemma 3 has a second table, which is not scaled, for its sliding layers (gemma3.py); so has dots3 note."""
    two = ("gemma3_text", "gemma3n_text", "dots3_note")
    return text.model_type in two and layer_types(text, len(base.layers)) is not None
