"""Checks on the numbers of the config: head counts that fit each other, and the longest context it allows."""

from collections.abc import Iterator, Mapping
from typing import Any, TypeGuard

from vllm_doctor.check import NotApplicable, NotKnown, check
from vllm_doctor.facts import Launch, ModelConfig
from vllm_doctor.facts.launch import integer
from vllm_doctor.finding import Finding, Fix, LaunchEdit, error
from vllm_doctor.snapshot import Snapshot
from vllm_doctor_checks.launching import planned_release
from vllm_doctor_checks.model_facts import (
    config_of,
    is_at_least,
    launch_of,
    model_of,
    setting,
    transformers_version,
)

FLAG = "--max-model-len"
OVERRIDE = "VLLM_ALLOW_LONG_MAX_MODEL_LEN"
# vLLM 0.32 model_arch_config_convertor.py `derive_max_model_len_and_key`, in its order.
LENGTH_KEYS = (
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
# Types whose factor does not lengthen what the config says (config/model.py `_get_and_verify_max_len`).
UNSCALED = frozenset(
    {"su", "longrope", "llama3", "yarn", "deepseek_yarn", "deepseek_llama_scaling", "mrope", "default"}
)
YARN = frozenset({"yarn", "deepseek_yarn"})
# Configs that transformers refuses where the heads do not divide the hidden size (`validate_architecture` of
# configuration_*.py in transformers 5.5.0 to 5.19.0).
VALIDATED = frozenset(
    {"llama", "gemma2", "gemma3_text", "deepseek_v2", "arcee", "cwm", "minicpm3", "jais2", "vaultgemma"}
)
VALIDATED_FROM = "5.5.0"
# Keys of config.json that every reader takes for whole numbers.
COUNTS = (
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "vocab_size",
    "intermediate_size",
    "max_position_embeddings",
)
# The only latent size that the CPU's MLA kernel has: 512 + 64 (v1/attention/backends/mla/cpu_mla.py, 0.28 to 0.33).
CPU_MLA_SIZE = 576
MLA_TYPES = frozenset({"deepseek_v2", "deepseek_v3", "deepseek_v32", "kimi_k2", "deepseek_mtp", "glm4_moe_lite"})


@check("config-shape", causes=("model-files-incomplete", "attention-backend"), needs=("model",))
def config_shape(snapshot: Snapshot) -> Iterator[Finding]:
    """config.json holds head counts or sizes that do not fit each other, or that no kernel of this build takes.

    Why: every KV head serves the same number of heads, and the hidden size is divided among the heads where no
    head_dim says otherwise. transformers refuses some of these configs ("is not a multiple of the number of attention
    heads"); others end in the load, or at the first request.
    Fix: take the config.json that belongs to the weights.
    """
    config = config_of(snapshot)
    heads, kv_heads, hidden = config.num_attention_heads, config.num_key_value_heads, config.hidden_size
    yield from _words_for_numbers(config)
    if not heads:
        raise NotApplicable("config.json names no attention heads")
    text = config.text()
    uses_mla = isinstance(text.get("kv_lora_rank"), int)
    if hidden and hidden % heads and _is_refused(config, snapshot):
        yield _do_not_fit(config, f"hidden_size {hidden} is not a multiple of num_attention_heads {heads}")
    elif kv_heads and heads % kv_heads and not uses_mla:
        yield _do_not_fit(config, f"num_attention_heads {heads} is not a multiple of num_key_value_heads {kv_heads}")
    if uses_mla and snapshot.platform == "cpu" and config.text_model_type in MLA_TYPES:
        yield from _no_kernel(text, snapshot)


def _words_for_numbers(config: ModelConfig) -> Iterator[Finding]:
    """`"hidden_size": "128"`: transformers 5 refuses it (huggingface_hub `StrictDataclassFieldValidationError`)."""
    text = config.text()
    quoted = [key for key in COUNTS if isinstance(value := text.get(key), str) and value.strip().isdecimal()]
    if quoted:
        yield error(
            "model-files-incomplete",
            f"config.json gives {quoted[0]} as a text, not as a number",
            evidence=tuple(f"{key}: {text[key]!r}" for key in quoted),
            fixes=(Fix(title="Write the numbers without quotes, or take the config.json of the original repository"),),
        )


def _is_refused(config: ModelConfig, snapshot: Snapshot) -> bool:
    """Whether a hidden size that the heads do not divide stops the start: no head_dim, or a strict transformers."""
    if config.head_dim is None:
        return True
    from packaging.version import InvalidVersion, Version

    installed = transformers_version(snapshot)
    try:
        strict = installed is not None and Version(installed) >= Version(VALIDATED_FROM)
    except InvalidVersion:
        return False
    return strict and config.text_model_type in VALIDATED


def _do_not_fit(config: ModelConfig, what: str) -> Finding:
    return error(
        "model-files-incomplete",
        f"config.json contradicts itself: {what}",
        evidence=(
            f"hidden_size {config.hidden_size}, num_attention_heads {config.num_attention_heads}, "
            f"num_key_value_heads {config.num_key_value_heads}, head_dim {config.head_dim}",
        ),
        fixes=(Fix(title="Take the config.json of the model that the weights are of"),),
    )


def _no_kernel(text: Mapping[str, Any], snapshot: Snapshot) -> Iterator[Finding]:
    rank, rope = text.get("kv_lora_rank"), text.get("qk_rope_head_dim")
    if not isinstance(rank, int) or not isinstance(rope, int) or rank + rope == CPU_MLA_SIZE:
        return
    if (setting(snapshot, "VLLM_MLA_DISABLE") or "0").strip() not in ("0", ""):
        return
    if not is_at_least(release := planned_release(snapshot), "0.28.0"):
        return
    yield error(
        "attention-backend",
        f"The CPU's MLA kernel takes a latent size of {CPU_MLA_SIZE} only; this model has {rank + rope}",
        evidence=(
            f"config.json: kv_lora_rank {rank} + qk_rope_head_dim {rope} = {rank + rope}",
            f"vLLM {release.version} for CPU: the server comes up and dies at the first request",
        ),
        fixes=(
            Fix(
                title="Compute attention without the latent cache",
                launch=LaunchEdit(env={"VLLM_MLA_DISABLE": "1"}),
                automatic=True,
            ),
            Fix(title="Or serve the model on a GPU"),
        ),
    )


@check("max-model-len", causes=("max-len-over-model",), needs=("launch", "model"))
def max_model_len(snapshot: Snapshot) -> Iterator[Finding]:
    """`--max-model-len` is over what the model's config allows.

    Why: vLLM derives the longest context from config.json (max_position_embeddings and its kin, times the factor of
    some RoPE scalings) and refuses more: positions that the model was not trained for give rubbish, or, with absolute
    positions, an out-of-bounds access.
    Fix: lower `--max-model-len`; for a model that was trained to be stretched, give its rope_parameters with
    `--hf-overrides`. VLLM_ALLOW_LONG_MAX_MODEL_LEN=1 only silences the check.
    """
    launch, model = launch_of(snapshot), model_of(snapshot)
    asked = integer(launch.value(FLAG) or "")
    if asked is None or asked <= 0:
        raise NotApplicable(f"{FLAG} is not given as a number")
    config = config_of(snapshot)
    derived, key = derived_length(config, launch)
    allowed = config.text().get("model_max_length")
    if asked <= derived or (_is_length(allowed) and asked <= allowed):
        return
    if (setting(snapshot, OVERRIDE) or "0").strip() not in ("0", ""):
        return
    yield error(
        "max-len-over-model",
        f"{FLAG} {asked} is over the {derived} that the model allows",
        evidence=(f"the launch: {FLAG} {launch.value(FLAG)}", f"config.json of {model.given}: {key}"),
        fixes=(
            Fix(title=f"Serve with {FLAG} {derived}", launch=LaunchEdit(set={FLAG: str(derived)}), automatic=True),
            Fix(title="Or, for a model made to be stretched, give its YaRN parameters by --hf-overrides"),
        ),
    )


def derived_length(config: ModelConfig, launch: Launch) -> tuple[int, str]:
    """The longest context that the config allows, and what says so; raises NotKnown where no key is in it.

    vLLM 0.32 config/model.py `_get_and_verify_max_len`. Releases before it multiplied YaRN's factor with
    original_max_position_embeddings; the longer of both is taken, so that no release is wronged.
    """
    text = config.text()
    lengths = {key: text[key] for key in LENGTH_KEYS if _is_length(text.get(key))}
    if not lengths:
        raise NotKnown("config.json names no longest context: the default of its class decides")
    key = min(lengths, key=lambda k: lengths[k])
    if "model_max_length" in lengths:
        key = "model_max_length"
    derived, words = float(lengths[key]), f"{key} {lengths[key]}"
    window = text.get("sliding_window")
    if launch.has("--disable-sliding-window") and _is_length(window) and text.get("use_sliding_window") is not False:
        return min(int(derived), window), f"{words}, sliding_window {window}"
    factor, stretched = _stretch(config, derived)
    return int(stretched), f"{words}, RoPE factor {factor:g}" if factor != 1 else words


def _stretch(config: ModelConfig, derived: float) -> tuple[float, float]:
    """The factor that lengthens the context, and the length with it."""
    if "gemma3" in (config.text_model_type or "") or config.rope_scaling is None:
        return 1.0, derived
    factor = config.rope_scaling.get("factor")
    if not isinstance(factor, int | float) or isinstance(factor, bool) or factor <= 0:
        return 1.0, derived
    original = config.rope_scaling.get("original_max_position_embeddings")
    if config.rope_type in YARN and isinstance(original, int | float) and original * factor > derived:
        return factor, original * factor
    if config.rope_type in UNSCALED:
        return 1.0, derived
    return factor, derived * factor


def _is_length(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**53
