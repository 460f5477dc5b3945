"""GLM-5.3-Flash: delta attention beside latent attention over chosen pools of keys, and hyper-connections."""

from msgspec.structs import replace

from vllm_doctor.memory.config_values import Config, ConfigError
from vllm_doctor.memory.facts import Architecture, Cache, CacheKind, Layer
from vllm_doctor.memory.families import experts as moe
from vllm_doctor.memory.families.hybrid import depth
from vllm_doctor.memory.families.kimi import low_rank_delta
from vllm_doctor.memory.families.latent import indexer, latent_attention, latent_cache, with_latents
from vllm_doctor.memory.families.linear_hybrid import kda_cache
from vllm_doctor.memory.families.parts import Tensors, mlp, norms, plain, unpacked

# The first layers are dense where no list says which (Transformers' Glm5NextTextConfig).
_DENSE = 3
# Every fourth layer has latent attention where no list says which (the same class).
_EVERY = 4
# The tail of keys that is not pooled yet, with its scores, in bfloat16 (0.32 models/glm5next/common/attention.py).
_TAIL_HEADS, _TAIL_BYTES = 2, 2


def read_glm_next(config: Config) -> Architecture:
    """GLM-5.3-Flash's language model (models/glm5next/common/model.py); its attention is packed in no checkpoint."""
    hidden, layers, width = config.positive("hidden_size"), depth(config), config.positive("intermediate_size")
    kinds = config.words("layer_types", layers) or tuple(
        "full_attention" if i % _EVERY == _EVERY - 1 else "linear_attention" for i in range(layers)
    )
    found, dense = _experts(config, layers), mlp(hidden, width)
    net, state = _delta(config, hidden)
    attending, caches = _latents(config, hidden)
    always = (*norms(2, hidden), *_channels(config, hidden))

    def layer(i: int) -> Layer:
        is_net = kinds[i] == "linear_attention"
        feed = found.tensors(hidden) if found is not None and i in found.layers else dense
        tensors = (*(net if is_net else attending), *feed, *always)
        return Layer(tensors=tensors, caches=(state,) if is_net else caches)

    base = with_latents(config, [layer(i) for i in range(layers)], hidden, found, width, tied=False)
    return replace(base, sparse_attention=len(caches) > 1)


def mtp_layer(config: Config) -> Layer:
    """An MTP layer: latent attention, one residual, and what the last layer has for an MLP (common/mtp.py)."""
    hidden, layers = config.positive("hidden_size"), depth(config)
    found = _experts(config, layers)
    is_sparse = found is not None and layers - 1 in found.layers
    feed = found.tensors(hidden) if found and is_sparse else mlp(hidden, config.positive("intermediate_size"))
    attending, caches = _latents(config, hidden)
    return Layer(tensors=(*attending, *feed, *norms(2, hidden)), caches=caches)


def _experts(config: Config, layers: int) -> moe.Experts | None:
    if not moe.count_of(config):
        return None
    found = moe.deepseek(config, layers)
    if found is None or config.words("mlp_layer_types", layers) is not None:
        return found
    return found._replace(layers=frozenset(range(_DENSE, layers)))


def _delta(config: Config, hidden: int) -> tuple[Tensors, Cache]:
    """Delta attention; a section of its own wins over the numbers beside it, as in Transformers' class."""
    section = config.section("linear_attn_config") or Config({})
    heads = section.optional("num_heads") or config.positive("linear_num_heads", default=64)
    size = section.optional("head_dim") or config.positive("linear_head_dim", default=128)
    kernel = section.optional("short_conv_kernel_size") or config.positive("linear_conv_kernel_dim", default=4)
    return unpacked(low_rank_delta(hidden, heads, size, kernel)), kda_cache(heads, size, kernel)


def _latents(config: Config, hidden: int) -> tuple[Tensors, tuple[Cache, ...]]:
    """Latent attention; with `index_topk` a scorer of pools of keys, whose open pool is kept for every sequence."""
    plainly = Config({**config.values, "attention_bias": False}, config.model_type, config.outer)
    attending = latent_attention(plainly, hidden, config.positive("num_attention_heads"))
    if config.optional("index_topk") is None:
        return unpacked(attending), (latent_cache(config),)
    scorer, scores = indexer(config, hidden)
    if not scores:
        raise ConfigError("index_head_dim or index_n_heads is missing, and the caches of the layers depend on them")
    size, pool = config.positive("index_head_dim"), config.positive("index_kpool", default=16)
    if pool == 1:
        raise ConfigError("index_kpool is 1, which vLLM refuses")
    tensors = (
        *attending,
        *scorer,
        plain("self_attn.indexer.index_kpool_compress_ape", pool, size, element_bytes=4),
        plain("self_attn.indexer.index_kpool_compress_gate", size, hidden),
    )
    tail = Cache(
        kind=CacheKind.RING,
        kv_heads=_TAIL_HEADS,
        head_size=size,
        own_element_bytes=_TAIL_BYTES,
        block=pool,
    )
    return unpacked(tensors), (latent_cache(config), replace(scores[0], tokens_per_state=pool), tail)


def _channels(config: Config, hidden: int) -> Tensors:
    """What joins and divides the channels of the residual, before attention and before the MLP, in fp32."""
    if not config.flag("mhc"):
        return ()
    channels = config.positive("hc_mult", default=4)
    mixes = (2 + channels) * channels
    return (
        plain("hc_fn", mixes, channels * hidden, element_bytes=4),
        plain("hc_base", mixes, element_bytes=4),
        plain("hc_scale", 3, element_bytes=4),
    ) * 2
