"""Which layers of a decoder look at a window only, and how wide it is."""

from collections.abc import Callable

from vllm_doctor.memory.config_values import Config

SLIDING = ("sliding_attention", "sliding", "local", "local_attention")
CHUNKED = ("chunked_attention",)
LINEAR = ("linear_attention", "mamba", "conv", "recurrent")

# Transformers' patterns where `layer_types` is not written out: every n-th layer is full (5.19, configuration_*.py).
_FULL_EVERY = {
    "gemma2": 2,
    "gemma3_text": 6,
    "gemma3n_text": 5,
    "gemma4_text": 6,
    "cohere2": 4,
    "cohere2_moe": 4,
    "exaone4": 4,
    "exaone_moe": 4,
    "olmo3": 4,
    "gpt_oss": 2,
    "afmoe": 4,
    "llama4_text": 4,
    "qwen3_next": 4,
    "qwen3_5_text": 4,
    "qwen3_5_moe_text": 4,
    "qwen4_exp_text": 4,
}
_PATTERN_KEYS = ("sliding_window_pattern", "full_attention_interval", "global_attn_every_n_layers", "full_attn_every_n")
# Models that name a window and may switch it off.
_SWITCHED = "use_sliding_window"


def window_of(config: Config) -> int | None:
    """The sliding window; None where there is none (0 and null mean none; Qwen's switch is off by default)."""
    size = config.optional("sliding_window", "sliding_window_size", "attention_window_size")
    if not size or config.get(_SWITCHED) is False:
        return None
    return size


def layer_types(config: Config, layers: int) -> tuple[str, ...] | None:
    """The type of every layer, written out or by the model type's pattern; None where all are alike."""
    written = config.words("layer_types", layers)
    if written is not None:
        return written
    every = next((n for k in _PATTERN_KEYS if isinstance(n := config.values.get(k), int) and n > 0), None)
    every = every or _FULL_EVERY.get(config.model_type)
    if every is None:
        return None
    other = "chunked_attention" if config.model_type == "llama4_text" else "sliding_attention"
    if config.model_type.startswith(("qwen3_next", "qwen3_5", "qwen4")):
        other = "linear_attention"
    return tuple("full_attention" if (i + 1) % every == 0 else other for i in range(layers))


def windows(config: Config, layers: int, *, per_layer: bool, widen: int = 0) -> tuple[int | None, ...]:
    """The window of every layer, None for full attention.

    vLLM 0.32 engine/arg_utils.py: where all layers are of one type the window holds for all; where they differ, only
    the architectures that look at `layer_types` have one (model_executor/models, per_layer_sliding_window).
    """
    size = window_of(config)
    if size is None:
        return (None,) * layers
    types = layer_types(config, layers)
    if types is None or len(set(types)) <= 1:
        uniform = types is None or types[0] != "full_attention" or not per_layer
        return (size + (widen if types is not None else 0) if uniform else None,) * layers
    if not per_layer:
        return (None,) * layers
    return tuple(size + widen if t in SLIDING else None for t in types)


Windows = Callable[[Config, int], tuple[int | None, ...]]
