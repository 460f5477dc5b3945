"""DeepSeek V4.1: V4's layers that look into the compressed keys of a few of them, and tables of n-grams on the host."""

from msgspec.structs import replace

from vllm_doctor.memory.config_values import LARGEST_EXPERTS, LARGEST_LAYERS, Config, ConfigError
from vllm_doctor.memory.facts import Architecture, Cache, CacheKind, Layer, Split
from vllm_doctor.memory.families.deepseek_v4 import (
    channels,
    dspark,
    feed,
    index_cache,
    latent_attention,
    rope_tables,
    window_cache,
    with_channels,
)
from vllm_doctor.memory.families.draft_parts import MOST
from vllm_doctor.memory.families.hybrid import depth
from vllm_doctor.memory.families.parts import Tensors, linear, norm, plain

_RECORD = "v4.1"
# vLLM 0.32 models/deepseek_v41/attention.py: tokens of a block of the window.
_WINDOW_BLOCK = 32
# What the config of a draft has by default (dspark.py).
_DSPARK_LAYERS = 3
# Columns of the n-grams' tables that one scale stands for.
_ENGRAM_BLOCK = 32


def read_v41(config: Config) -> Architecture:
    """DeepSeek V4.1 Flash (0.32 models/deepseek_v41/nvidia/model.py).

    The tables of n-grams are on the host by default: --engram-config cpu_offload.
    """
    layers = depth(config)
    ratios = config.counts("compress_ratios", layers)
    if not ratios:
        raise ConfigError("compress_ratios is missing, and the caches of the layers depend on it")
    base = with_channels(config, [_layer(config, i, ratios[i]) for i in range(layers)], ())
    tables = len({ratio > 0 for ratio in ratios[:layers]})
    return replace(
        base,
        rope_elements=rope_tables(config, tables),
        output_groups=config.positive("o_groups"),
        host_bytes=_engram_bytes(config),
    )


def _layer(config: Config, index: int, ratio: int) -> Layer:
    """A layer; those that others look into have a compressor and its cache, those that choose keys an indexer."""
    if ratio not in (0, 1, 2):
        raise ConfigError(f"compress_ratios: {ratio} is none of 0, 1 and 2, which vLLM refuses")
    has_keys = index in config.counts("kv_source_layer_ids")
    tensors, caches = latent_attention(config), [_window(config)]
    if has_keys and not ratio:
        raise ConfigError(f"kv_source_layer_ids: layer {index} compresses nothing")
    if has_keys:
        states, kept = _compressor(config, ratio)
        tensors, caches = (*tensors, *states), [*caches, *kept]
    if index in config.counts("index_source_layer_ids"):
        scorer, scores = _indexer(config, ratio, has_keys=has_keys)
        tensors, caches = (*tensors, *scorer), [*caches, *scores]
    engram = _engram(config) if index in config.counts("engram_layer_ids") else ()
    more = (*engram, *channels(config), *feed(config, hashed=False, vision=_sees(config)))
    return Layer(tensors=(*tensors, *more), caches=tuple(caches))


def _sees(config: Config) -> bool:
    vision = Config(config.outer).section("vision_config")
    return vision is not None and vision.count("num_hidden_layers", default=0, largest=LARGEST_LAYERS) > 0


def _window(config: Config) -> Cache:
    return replace(window_cache(config, "v4.1-window"), block=_WINDOW_BLOCK)


def _compressor(config: Config, ratio: int) -> tuple[Tensors, tuple[Cache, ...]]:
    """What joins keys, with a gate where it joins several; a ring of those that wait (deepseek_v41/compressor.py)."""
    hidden, size = config.positive("hidden_size"), config.positive("head_dim")
    gated = ratio > 1
    tensors = (
        plain("attn.compressor.wkv_wgate", (2 if gated else 1) * size, hidden),
        *norm("attn.compressor.norm", size),
    )
    keys = Cache(kind=CacheKind.LATENT, kv_heads=1, head_size=size, record=_RECORD, tokens_per_state=ratio)
    ring = Cache(kind=CacheKind.RING, kv_heads=1, head_size=2 * size, own_element_bytes=4, record="ring")
    return tensors, (keys, ring) if gated else (keys,)


def _indexer(config: Config, ratio: int, *, has_keys: bool) -> tuple[Tensors, tuple[Cache, ...]]:
    """A scorer, whole on every rank; one beside a compressor makes the keys that others score too."""
    size, heads = config.positive("index_head_dim"), config.positive("index_n_heads")
    tensors = (
        *linear("attn.indexer.wq_b", heads * size, config.positive("q_lora_rank"), Split.WHOLE),
        plain("attn.indexer.weights_proj", heads, config.positive("hidden_size")),
    )
    if not has_keys:
        return tensors, ()
    keys = (plain("attn.indexer.wk", size, config.positive("head_dim")), *norm("attn.indexer.k_norm", size))
    return (*tensors, *keys), (index_cache(size, ratio, _RECORD),)


def _engram(config: Config) -> Tensors:
    """What takes rows of n-grams into the residual's channels (deepseek_v41/common/engram.py Engram)."""
    hidden, count = config.positive("hidden_size"), config.positive("hc_mult", largest=MOST)
    rows = (config.positive("engram_max_ngram_size", largest=MOST) - 1) * config.positive("engram_n_heads")
    return (
        *linear("engram.wkv", hidden * (count + 1), rows * config.positive("engram_head_dim"), Split.ROWS),
        plain("engram.q_weight", count, hidden),
        plain("engram.k_weight", count, hidden),
    )


def _engram_bytes(config: Config) -> int:
    """Bytes of the tables of n-grams, FP8 with a scale for 32 columns, on all ranks of a replica together."""
    if not config.counts("engram_layer_ids"):
        return 0
    size = config.positive("engram_head_dim")
    return sum(config.counts("engram_num_embeddings")) * (size + size // _ENGRAM_BLOCK)


def read_v41_dspark(config: Config, target: Architecture) -> Architecture:
    """DSpark of DeepSeek V4.1: layers with experts of a number of their own (deepseek_v41/nvidia/dspark.py)."""
    count = config.optional("n_mtp_layers", "num_nextn_predict_layers", largest=MOST) or _DSPARK_LAYERS
    experts = config.optional("dspark_n_routed_experts", largest=LARGEST_EXPERTS)
    more = feed(config, hashed=False, vision=_sees(config), count=experts)
    one = Layer(tensors=(*latent_attention(config), *channels(config), *more), caches=(_window(config),))
    return dspark(config, target, (one,) * count, ())
