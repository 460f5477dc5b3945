"""Decoders whose residual has several channels (hyper-connections): HY V4."""

from msgspec.structs import replace

from vllm_doctor.memory.config_values import Config, ConfigError
from vllm_doctor.memory.facts import Architecture, Layer, Split
from vllm_doctor.memory.families import experts as moe
from vllm_doctor.memory.families.hybrid import depth
from vllm_doctor.memory.families.latent import indexer, latent_attention, latent_cache, with_latents
from vllm_doctor.memory.families.parts import Tensors, linear, mlp, norms, plain

# 0.32 models/hy_v4/nvidia/attention.py: layers of these types attend to what an indexer picks.
_SPARSE = frozenset(("sparse_attention", "sparse", "indexed_attention", "deepseek_sparse_attention"))


def read_hy_v4(config: Config) -> Architecture:
    """HY V4: latent attention with a gate and sinks, some layers with an indexer (models/hy_v4/nvidia/model.py)."""
    hidden, layers = config.positive("hidden_size"), depth(config)
    heads, width = config.positive("num_attention_heads"), config.positive("intermediate_size")
    found = _experts(config, layers)
    dense = mlp(hidden, width)
    always: Tensors = (
        *latent_attention(config, hidden, heads),
        *_gate(config, hidden, heads),
        *norms(2, hidden),
        *_channels(config, hidden),
    )
    scorer, scores = indexer(config, hidden)
    sparse = _sparse(config, layers)
    full = {i for i, kind in enumerate(_indexer_types(config, layers)) if kind == "full"} & sparse

    def layer(i: int) -> Layer:
        feed = found.tensors(hidden) if found is not None and i in found.layers else dense
        more, caches = (scorer, scores) if i in full else ((), ())
        return Layer(tensors=(*always, *more, *feed), caches=(latent_cache(config), *caches))

    base = with_latents(config, [layer(i) for i in range(layers)], hidden, found, width)
    return replace(base, sparse_attention=bool(sparse), last=(*base.last, *_joined(config, hidden)))


def mtp_layer(config: Config) -> Layer:
    """An MTP layer: as the last one of the model, with an indexer of its own and without channels (mtp.py)."""
    hidden, layers = config.positive("hidden_size"), depth(config)
    heads = config.positive("num_attention_heads")
    found = _experts(config, layers)
    is_last_sparse = found is not None and layers - 1 in found.layers
    feed = found.tensors(hidden) if found and is_last_sparse else mlp(hidden, config.positive("intermediate_size"))
    scorer, scores = indexer(config, hidden) if layers - 1 in _sparse(config, layers) else ((), ())
    tensors = (*latent_attention(config, hidden, heads), *_gate(config, hidden, heads), *norms(2, hidden))
    return Layer(tensors=(*tensors, *scorer, *feed), caches=(latent_cache(config), *scores))


def _experts(config: Config, layers: int) -> moe.Experts | None:
    found = moe.corrected(config, layers)
    if found is None:
        return None
    types = config.words("mlp_layer_types", layers)
    which = found.layers if types is not None else frozenset(range(1, layers))
    return found._replace(layers=which, router_bytes=4)


def _gate(config: Config, hidden: int, heads: int) -> Tensors:
    sinks = (plain("self_attn.learnable_sink_param", heads, split=Split.ROWS, element_bytes=4),)
    kept = sinks if config.flag("learnable_sink", default=True) else ()
    if not config.flag("gated_mla", default=True):
        return kept
    kind = config.text("gating_type") or "elementwise"
    if kind not in ("elementwise", "headwise"):
        raise ConfigError("gating_type is neither elementwise nor headwise")
    size = config.positive("v_head_dim") if kind == "elementwise" else 1
    return (*kept, *linear("self_attn.linear_gate", heads * size, hidden, Split.ROWS))


def _channels(config: Config, hidden: int) -> Tensors:
    """What joins and divides the channels, before attention and before the MLP, in fp32."""
    if not config.flag("enable_ihc", default=True):
        return ()
    channels = config.positive("hc_mult", default=4)
    return (
        plain("hc_layer.hc_pre.hc_scale", 2, element_bytes=4),
        plain("hc_layer.hc_pre.hc_base", 2 * channels, element_bytes=4),
        plain("hc_layer.hc_pre.hc_fn", 2 * channels, channels * hidden, element_bytes=4),
    ) * 2


def _joined(config: Config, hidden: int) -> Tensors:
    if not config.flag("enable_ihc", default=True):
        return ()
    channels = config.positive("hc_mult", default=4)
    return (
        plain("model.hc_head.hc_head_base", channels, element_bytes=4),
        plain("model.hc_head.hc_head_scale", 1, element_bytes=4),
        plain("model.hc_head.hc_head_fn", channels, channels * hidden, element_bytes=4),
    )


def _sparse(config: Config, layers: int) -> set[int]:
    # vLLM's own config class has no types by default, where Transformers' has.
    types = config.words("layer_types", layers) if config.values.get("layer_types") else None
    return {i for i, kind in enumerate(types or ()) if kind in _SPARSE}


def _indexer_types(config: Config, layers: int) -> tuple[str, ...]:
    """The first layer picks for itself, then every fourth, unless the config says which."""
    found = config.words("indexer_types", layers)
    return found or tuple("full" if i == 0 or i % 4 == 1 else "shared" for i in range(layers))
