"""Hybrids of lightning (linear) attention: Ling and Ring 2.5, MiniMax-01 and M1."""

from msgspec.structs import replace

from vllm_doctor.memory.config_values import LARGEST_EXPERTS, Config, ConfigError
from vllm_doctor.memory.facts import Architecture, Cache, CacheKind, Layer, Split, StateTensor
from vllm_doctor.memory.families import experts as moe
from vllm_doctor.memory.families.hybrid import built, depth
from vllm_doctor.memory.families.latent import latent_attention, latent_cache, with_latents
from vllm_doctor.memory.families.parts import Tensors, attention, full, linear, mlp, norm, norms, plain


def lightning_cache(heads: int, size: int) -> Cache:
    """One matrix per head (mamba_utils.py linear_attention_state_shape), in the dtype of --mamba-cache-dtype."""
    return Cache(kind=CacheKind.STATE, states=(StateTensor(heads, size * size),), state_name="linear_attention")


def read_ling_25(config: Config) -> Architecture:
    """Ling 2.5: every layer_group_size-th layer has latent attention, the others lightning (bailing_moe_linear.py)."""
    hidden, layers = config.positive("hidden_size"), depth(config)
    heads = config.positive("num_attention_heads")
    size = config.optional("head_dim") or hidden // heads
    every = config.count("layer_group_size", default=1)
    net, cache = _lightning(config, hidden, heads, size), lightning_cache(heads, size)
    attending = latent_attention(config, hidden, heads)
    found, width = _experts(config, layers), config.positive("intermediate_size")
    dense = mlp(hidden, width)

    def layer(i: int) -> Layer:
        is_net = every > 0 and (i + 1) % every != 0
        feed = found.tensors(hidden) if found is not None and i in found.layers else dense
        return Layer(
            tensors=(*(net if is_net else attending), *feed, *norms(2, hidden)),
            caches=(cache if is_net else latent_cache(config),),
        )

    return with_latents(config, [layer(i) for i in range(layers)], hidden, found, width, tied=False)


def read_minimax_01(config: Config) -> Architecture:
    """MiniMax-01 and M1: seven layers of lightning attention to one of softmax (minimax_text_01.py, to 0.22)."""
    hidden, layers = config.positive("hidden_size"), depth(config)
    heads, kv_heads = config.positive("num_attention_heads"), config.positive("num_key_value_heads")
    size, width = config.optional("head_dim") or hidden // heads, config.positive("intermediate_size")
    inner = heads * size
    net: Tensors = (
        *linear("self_attn.qkv_proj", 3 * inner, hidden, Split.ROWS),
        *linear("self_attn.output_gate", inner, hidden, Split.ROWS),
        *linear("self_attn.out_proj", hidden, inner, Split.COLUMNS),
        plain("self_attn.norm", inner, split=Split.ROWS),
    )
    attending, counts = attention(hidden, heads, kv_heads, size), _expert_counts(config, layers)
    is_net = _lightning_layers(config, layers)

    def layer(i: int) -> Layer:
        routed = moe.Experts(counts[i], moe.per_token_of(config), width, frozenset({i}), router_bytes=4)
        feed = routed.tensors(hidden) if counts[i] > 1 else mlp(hidden, width)
        return Layer(
            tensors=(*(net if is_net[i] else attending), *feed, *norms(2, hidden)),
            caches=(lightning_cache(heads, size) if is_net[i] else full(kv_heads, size),),
        )

    found = moe.Experts(max(counts), moe.per_token_of(config), width, frozenset(range(layers)))
    base = built(
        config,
        [layer(i) for i in range(layers)],
        hidden,
        heads=heads,
        kv_heads=kv_heads,
        head_size=size,
        found=found if max(counts) > 1 else None,
        intermediate=width,
        tied=False,
    )
    # The head is in fp32 whatever the model's dtype is.
    return replace(base, last=tuple(replace(t, element_bytes=4) if t.name == "lm_head" else t for t in base.last))


def _expert_counts(config: Config, layers: int) -> tuple[int, ...]:
    if isinstance(config.get("num_local_experts"), list):
        return config.counts("num_local_experts", layers)[:layers]
    return (config.count("num_local_experts", default=1, largest=LARGEST_EXPERTS),) * layers


def _lightning_layers(config: Config, layers: int) -> tuple[bool, ...]:
    """The layers without softmax: 0 in `attn_type_list`, or named in `layer_types`."""
    for key in ("attn_type_list", "decoder_attention_types"):
        if listed := config.counts(key):
            return tuple(kind == 0 for kind in config.counts(key, layers)[: len(listed)])
    types = config.words("layer_types", layers)
    return tuple(kind == "linear_attention" for kind in types) if types else (False,) * layers


def _lightning(config: Config, hidden: int, heads: int, size: int) -> Tensors:
    """Queries, keys and values of all heads, a gate, and a norm that is divided as the heads are."""
    inner, bias = heads * size, config.flag("use_bias")
    normed = (*norm("self_attn.query_layernorm", size), *norm("self_attn.key_layernorm", size))
    return (
        *linear("self_attn.query_key_value", 3 * inner, hidden, Split.ROWS, bias=bias or config.flag("use_qkv_bias")),
        *(normed if config.flag("use_qk_norm") else ()),
        *linear("self_attn.g_proj", inner, hidden, Split.ROWS),
        plain("self_attn.g_norm", inner, split=Split.ROWS),
        *linear("self_attn.dense", hidden, inner, Split.COLUMNS, bias=bias),
    )


def _experts(config: Config, layers: int) -> moe.Experts | None:
    """As Sarvam's, but the router is fp32 unless the config names another dtype."""
    count = moe.count_of(config)
    if count <= 1:
        return None
    width = config.positive("moe_intermediate_size")
    shared = config.optional("moe_shared_expert_intermediate_size") or width
    if config.text("router_dtype") not in (None, "fp32", "bf16"):
        raise ConfigError("router_dtype is neither fp32 nor bf16")
    return moe.Experts(
        count,
        moe.per_token_of(config),
        width,
        frozenset(range(config.count("first_k_dense_replace", default=0), layers)),
        shared=config.count("num_shared_experts", default=0) * shared,
        corrected=config.flag("moe_router_enable_expert_bias"),
        router_bytes=4 if config.text("router_dtype") in (None, "fp32") else None,
    )
