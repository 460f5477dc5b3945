"""openPangu with experts: Ultra MoE with latents, Pro MoE V2 with keys and values that every sequence starts from."""

from collections.abc import Callable

from msgspec.structs import replace

from vllm_doctor.memory.config_values import Config, ConfigError
from vllm_doctor.memory.facts import Architecture, Layer, Split
from vllm_doctor.memory.families import experts as moe
from vllm_doctor.memory.families.hybrid import attention_shape, built, depth
from vllm_doctor.memory.families.latent import read_latent
from vllm_doctor.memory.families.parts import attention, full, mlp, norm, norms, plain

# 0.32 model_executor/models/openpangu.py OpenPanguDecoderLayer: with all of these in the config attention has latents.
_LATENT_KEYS = ("qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim", "kv_lora_rank")
_Attending = Callable[[int], Layer]


def read_pangu(config: Config) -> Architecture:
    """Either of the two, which vLLM tells apart by the keys that the config has (openpangu.py OpenPanguMoEModel)."""
    sandwich = 2 if config.flag("sandwich_norm") else 0
    if all(config.has(key) for key in _LATENT_KEYS):
        base = read_latent(config, _experts)
        more = norms(sandwich, base.hidden_size)
        return replace(base, kinds=tuple(Layer(tensors=(*k.tensors, *more), caches=k.caches) for k in base.kinds))
    hidden, layers, width = config.positive("hidden_size"), depth(config), config.positive("intermediate_size")
    sinks = config.count("param_sink_number", default=0)
    attending = _sunk(config, hidden, sinks) if sinks else _plain(config, hidden)
    found = _experts(config, layers) if moe.count_of(config) else None
    dense = mlp(hidden, width, bias=config.flag("mlp_bias"))

    def layer(i: int) -> Layer:
        before = attending(i)
        feed = found.tensors(hidden) if found is not None and i in found.layers else dense
        return Layer(tensors=(*before.tensors, *feed, *norms(2 + sandwich, hidden)), caches=before.caches)

    kinds = [layer(i) for i in range(layers)]
    cache = kinds[0].caches[0]
    heads = config.positive("num_attention_heads")
    return built(
        config,
        kinds,
        hidden,
        heads=heads,
        kv_heads=cache.kv_heads,
        head_size=cache.head_size,
        found=found,
        intermediate=width,
    )


def _experts(config: Config, layers: int) -> moe.Experts | None:
    found = moe.deepseek(config, layers)
    return None if found is None else found._replace(corrected=config.flag("router_enable_expert_bias"))


def _biases(config: Config) -> tuple[bool, bool]:
    """Of queries, keys and values, and of the output."""
    both = config.flag("attention_bias") or config.flag("bias")
    return config.flag("qkv_bias", default=both), both


def _sunk(config: Config, hidden: int, sinks: int) -> _Attending:
    """Attention that also sees learned keys and values; windows do not shorten its cache (StaticSinkAttention)."""
    heads = config.positive("num_attention_heads")
    pairs = config.positive("num_key_value_heads", default=heads)
    size = config.positive("qk_nope_dim") + config.positive("qk_rope_dim")
    value = config.positive("v_channels")
    bias, out_bias = _biases(config)
    kept = size + (value if config.flag("param_sink_with_value") else 0)
    tensors = (
        *attention(hidden, heads, pairs, size, qkv_bias=bias, out_bias=out_bias, value_size=value),
        *norm("self_attn.k_layernorm", size),
        plain("self_attn.param_sink", pairs * sinks, kept, Split.HEADS, heads=pairs),
    )
    one = Layer(tensors=tensors, caches=(full(pairs, size, value),))
    return lambda _: one


def _plain(config: Config, hidden: int) -> _Attending:
    """Attention of heads, with a window where the config has a list of them (OpenPanguEmbeddedAttention)."""
    shape = attention_shape(config, hidden, "head_dim")
    bias, out_bias = _biases(config)
    tensors = attention(hidden, shape.heads, shape.kv_heads, shape.head_size, qkv_bias=bias, out_bias=out_bias)
    listed = config.get("interleaved_sliding_window")
    windows = config.counts("interleaved_sliding_window") if isinstance(listed, list) else ()
    every = config.optional("interleaved_sliding_window") if not isinstance(listed, list) else None
    if any(w == 0 for w in (*windows, every)):
        raise ConfigError("interleaved_sliding_window has a window of no tokens")

    def attending(i: int) -> Layer:
        window = windows[i % len(windows)] if windows else every
        return Layer(tensors=tensors, caches=(full(shape.kv_heads, shape.head_size, window=window),))

    return attending
