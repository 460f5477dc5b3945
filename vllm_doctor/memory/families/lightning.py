"""Hybrids of lightning (linear) attention: Ling and Ring 2.5."""

from vllm_doctor.memory.config_values import Config, ConfigError
from vllm_doctor.memory.facts import Architecture, Cache, CacheKind, Layer, Split, StateTensor
from vllm_doctor.memory.families import experts as moe
from vllm_doctor.memory.families.hybrid import built, depth
from vllm_doctor.memory.families.latent import latent_attention, latent_cache
from vllm_doctor.memory.families.parts import Tensors, linear, mlp, norm, norms, plain


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

    rank = config.positive("kv_lora_rank")
    copies = heads * (config.positive("qk_nope_head_dim") + config.positive("v_head_dim")) * rank
    return built(
        config,
        [layer(i) for i in range(layers)],
        hidden,
        heads=heads,
        kv_heads=1,
        head_size=rank + config.count("qk_rope_head_dim", default=0),
        found=found,
        intermediate=width,
        absorbed=copies,
        tied=False,
    )


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
