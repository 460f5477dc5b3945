"""DeepSeek V4: attention over a window beside compressed keys, in a residual of several channels, and its drafts."""

from collections.abc import Sequence

from msgspec.structs import replace

from vllm_doctor.memory.config_values import LARGEST_EXPERTS, Config, ConfigError
from vllm_doctor.memory.context import rope_parameters
from vllm_doctor.memory.facts import Architecture, Cache, CacheKind, Layer, Split
from vllm_doctor.memory.families import experts as moe
from vllm_doctor.memory.families.draft_parts import MOST, draft_vocabulary, drafted, grown
from vllm_doctor.memory.families.hybrid import built, depth
from vllm_doctor.memory.families.parts import (
    Tensors,
    correction,
    experts,
    head,
    linear,
    mlp,
    norm,
    norms,
    plain,
    router,
)

# vLLM 0.32 models/deepseek_v4/nvidia/flashmla.py get_padded_num_q_heads: 64 or 128.
_PADDED_HEADS = 64
# v1/attention/backends/mla/sparse_swa.py DeepseekV4SWACache, and what deepseek_v4/compressor.py CompressorStateCache
# says of every ratio of compression: tokens of a block of its states.
_WINDOW_BLOCK = 64
_STATE_BLOCKS = {4: 4, 128: 8}
_INDEXED = 4
# A key of the indexer is one number of FP8 for every element, and a fp32 scale for 128 of them.
_INDEX_SCALE_GROUP = 128
_RECORD = "v4"
# Layers of DSpark where the config names no number, and rows that a table on every rank is padded to.
_DSPARK_LAYERS = 3
_PADDED_WORDS = 64


def read_v4(config: Config) -> Architecture:
    """DeepSeek V4, Flash and Pro (0.32 models/deepseek_v4/nvidia/model.py)."""
    layers = depth(config)
    ratios = config.counts("compress_ratios", layers)
    if not ratios:
        raise ConfigError("compress_ratios is missing, and the caches of the layers depend on it")
    hashed = config.count("num_hash_layers")
    base = with_channels(
        config,
        [v4_layer(config, ratio=ratios[i], hashed=i < hashed) for i in range(layers)],
        joined_channels(config),
    )
    tables = len({ratio > 1 for ratio in ratios[:layers]})
    return replace(base, rope_elements=rope_tables(config, tables))


def joined_channels(config: Config) -> Tensors:
    """What makes one out of the channels: vLLM has it on every stage, some kilobytes."""
    hidden, count = config.positive("hidden_size"), config.positive("hc_mult", largest=MOST)
    return (
        plain("hc_head_scale", 1, element_bytes=4),
        plain("hc_head_base", count, element_bytes=4),
        plain("hc_head_fn", count, count * hidden, element_bytes=4),
    )


def with_channels(config: Config, layers: Sequence[Layer], joined: Tensors) -> Architecture:
    """An architecture out of its layers in order; `joined` stands beside the last norm."""
    hidden = config.positive("hidden_size")
    width = config.positive("moe_intermediate_size")
    base = built(
        config,
        layers,
        hidden,
        heads=config.positive("num_attention_heads"),
        kv_heads=1,
        head_size=config.positive("head_dim"),
        found=moe.Experts(_experts(config), _per_token(config), width, frozenset(range(len(layers)))),
        intermediate=width * config.count("n_shared_experts", default=0, largest=LARGEST_EXPERTS),
        tied=False,
    )
    return replace(base, last=(*base.last, *joined))


def rope_tables(config: Config, tables: int) -> int:
    """Elements, counted as of two bytes: the tables are fp32 (rotary_embedding/deepseek_scaling_rope.py)."""
    rope = rope_parameters(config)
    factor, original = rope.get("factor"), rope.get("original_max_position_embeddings")
    positions = config.positive("max_position_embeddings")
    if isinstance(factor, int) and isinstance(original, int) and 0 < factor <= 2**16 and 0 < original <= 2**31:
        positions = factor * original
    return 2 * tables * positions * config.positive("qk_rope_head_dim")


def v4_layer(config: Config, *, ratio: int, hashed: bool) -> Layer:
    """One layer: its compressed keys are one for every `ratio` tokens, none where that is 0 or 1."""
    if ratio not in (0, 1, *_STATE_BLOCKS):
        raise ConfigError(f"compress_ratios: {ratio} is none of 0, 1, 4 and 128, which vLLM refuses")
    hidden, size = config.positive("hidden_size"), config.positive("head_dim")
    attending, caches = latent_attention(config), [window_cache(config, _RECORD)]
    if ratio > 1:
        states, state_cache = _compressor("attn.compressor", hidden, size, ratio)
        compressed = Cache(
            kind=CacheKind.LATENT, kv_heads=1, head_size=size, record=_RECORD, tokens_per_state=ratio, value_size=0
        )
        attending, caches = (*attending, *states), [*caches, compressed, state_cache]
    if ratio == _INDEXED:
        scorer, scores = _indexer(config, hidden)
        attending, caches = (*attending, *scorer), [*caches, *scores]
    vision = config.count("vision_n_layers", default=0) > 0
    return Layer(
        tensors=(*attending, *channels(config), *feed(config, hashed=hashed, vision=vision)), caches=tuple(caches)
    )


def latent_attention(config: Config) -> Tensors:
    """Queries and the output through low ranks; keys of one head, whole on every rank (deepseek_v4/attention.py)."""
    hidden, heads, size = (config.positive(key) for key in ("hidden_size", "num_attention_heads", "head_dim"))
    rank, groups = config.positive("q_lora_rank"), config.positive("o_groups")
    out = groups * config.positive("o_lora_rank")
    if heads * size % groups:
        raise ConfigError(f"o_groups {groups} does not divide {heads} heads of {size}")
    sinks = plain("attn.attn_sink", heads, split=Split.ROWS, element_bytes=4, multiple=_PADDED_HEADS)
    return (
        sinks,
        *linear("attn.wq_a", rank, hidden, Split.WHOLE),
        *linear("attn.wkv", size, hidden, Split.WHOLE),
        *norm("attn.q_norm", rank),
        *linear("attn.wq_b", heads * size, rank, Split.ROWS),
        *norm("attn.kv_norm", size),
        *linear("attn.wo_a", out, heads * size // groups, Split.ROWS),
        *linear("attn.wo_b", hidden, out, Split.COLUMNS),
    )


def window_cache(config: Config, record: str) -> Cache:
    """The keys of the last tokens, which every layer has."""
    return Cache(
        kind=CacheKind.SLIDING_LATENT,
        kv_heads=1,
        head_size=config.positive("head_dim"),
        window=config.positive("sliding_window"),
        record=record,
        block=_WINDOW_BLOCK,
    )


def _compressor(name: str, hidden: int, size: int, ratio: int) -> tuple[Tensors, Cache]:
    """What joins keys, in full precision, and the states of those that are not joined yet (deepseek_v4/compressor.py).

    At a ratio of 4 neighbours overlap: both are twice as wide, and the states of two of them are kept.
    """
    width = size * (2 if ratio == _INDEXED else 1)
    tensors = (
        plain(f"{name}.ape", ratio, width, element_bytes=4),
        plain(f"{name}.wkv_wgate", 2 * width, hidden),
        *norm(f"{name}.norm", size),
    )
    cache = Cache(
        kind=CacheKind.SLIDING_LATENT,
        kv_heads=1,
        head_size=2 * width,
        window=ratio * width // size,
        own_element_bytes=4,
        record=_RECORD,
        block=_STATE_BLOCKS[ratio],
    )
    return tensors, cache


def _indexer(config: Config, hidden: int) -> tuple[Tensors, tuple[Cache, ...]]:
    """The scorer of compressed keys, whole on every rank, with keys and a compressor of its own."""
    size, heads = config.positive("index_head_dim"), config.positive("index_n_heads")
    states, state_cache = _compressor("attn.indexer.compressor", hidden, size, _INDEXED)
    tensors = (
        *linear("attn.indexer.wq_b", heads * size, config.positive("q_lora_rank"), Split.WHOLE),
        plain("attn.indexer.weights_proj", heads, hidden),
        *states,
    )
    return tensors, (index_cache(size, _INDEXED, _RECORD), state_cache)


def index_cache(size: int, ratio: int, record: str) -> Cache:
    """The indexer's keys in FP8 with their scales (DeepseekV4IndexerCache)."""
    stored = size + size // _INDEX_SCALE_GROUP * 4
    return Cache(
        kind=CacheKind.LATENT,
        kv_heads=1,
        head_size=stored,
        own_element_bytes=1,
        record=record,
        tokens_per_state=ratio,
    )


def channels(config: Config) -> Tensors:
    """The norms of a layer, and what mixes the channels of the residual before attention and before the experts."""
    hidden, count = config.positive("hidden_size"), config.positive("hc_mult", largest=MOST)
    mixes = (2 + count) * count
    one = (
        plain("hc_fn", mixes, count * hidden, element_bytes=4),
        plain("hc_base", mixes, element_bytes=4),
        plain("hc_scale", 3, element_bytes=4),
    )
    return (*one * 2, *norm("attn_norm", hidden), *norm("ffn_norm", hidden))


def _experts(config: Config) -> int:
    return config.positive("n_routed_experts", largest=LARGEST_EXPERTS)


def _per_token(config: Config) -> int:
    return config.positive("num_experts_per_tok", largest=LARGEST_EXPERTS)


def feed(config: Config, *, hashed: bool, vision: bool, count: int | None = None) -> Tensors:
    """The experts of a layer (DeepseekV4MoE); the router of the first layers is a table of the words.

    The shared expert is cut into whole blocks of FP8: the last ranks hold zeros (DeepseekV4MLP).
    """
    hidden, width = config.positive("hidden_size"), config.positive("moe_intermediate_size")
    number = count or _experts(config)
    corrected = config.text("topk_method") == "noaux_tc" and (vision or not hashed)
    table = plain("ffn.gate.tid2eid", config.positive("vocab_size"), _per_token(config), element_bytes=4)
    shared = width * config.count("n_shared_experts", default=0, largest=LARGEST_EXPERTS)
    block = _block_of(config)
    return (
        *router(hidden, number, name="ffn.gate"),
        *((table,) if hashed else ()),
        *((correction(number),) if corrected else ()),
        *((plain("ffn.gate.bias_vl", number, element_bytes=4),) if vision else ()),
        *(replace(t, multiple=block) for t in (mlp(hidden, shared, prefix="ffn.shared_experts.") if shared else ())),
        *experts(hidden, width, number, prefix="ffn.experts."),
    )


def _block_of(config: Config) -> int:
    """The rows of a block of FP8, 1 where the checkpoint has none."""
    packed = config.section("quantization_config") or Config(config.outer).section("quantization_config")
    sides = packed.counts("weight_block_size") if packed is not None else ()
    return sides[0] if sides and 0 < sides[0] <= 4096 else 1


def mtp_layer(config: Config) -> Layer:
    """The MTP layer: a window alone, between projections and a joining of the channels (deepseek_v4/nvidia/mtp.py)."""
    hidden = config.positive("hidden_size")
    more = (
        *linear("e_proj", hidden, hidden, Split.WHOLE),
        *linear("h_proj", hidden, hidden, Split.WHOLE),
        *norms(3, hidden),
        *joined_channels(config),
    )
    return grown(v4_layer(config, ratio=0, hashed=False), *more)


def read_v4_dspark(config: Config, target: Architecture) -> Architecture:
    """DSpark of DeepSeek V4: MTP layers that propose a block of tokens (deepseek_v4/nvidia/dspark.py)."""
    count = config.optional("n_mtp_layers", largest=MOST) or _DSPARK_LAYERS
    keys = linear("context_wkv_proj", count * config.positive("head_dim"), config.positive("hidden_size"), Split.WHOLE)
    one = v4_layer(config, ratio=0, hashed=False)
    return dspark(config, target, (one,) * count, (*keys, *joined_channels(config)))


def dspark(config: Config, target: Architecture, layers: Sequence[Layer], more: Tensors) -> Architecture:
    """A draft that brings no words and no head of its own, with a chain over the words and a head of confidence."""
    hidden, states = config.positive("hidden_size"), len(config.counts("dspark_target_layer_ids"))
    if not states:
        raise ConfigError("dspark_target_layer_ids is missing, and the projection depends on it")
    words, rank = config.positive("vocab_size"), config.positive("dspark_markov_rank")
    read = (*linear("main_proj", hidden, states * hidden, Split.WHOLE), *norm("main_norm", hidden), *more)
    chain = (
        plain("markov_head.markov_w1", words, rank),
        plain("markov_head.markov_w2", -(-draft_vocabulary(config) // _PADDED_WORDS) * _PADDED_WORDS, rank),
    )
    sure = plain("confidence_head.proj", 1, hidden + rank, element_bytes=4)
    confident = (sure,) if config.flag("enable_confidence_head", default=True) else ()
    first, *others = layers
    last = (*norm("norm", hidden), head(target.vocabulary_size, hidden), *chain, *confident)
    found = drafted(config, target, (grown(first, *read), *others), hidden, last)
    return replace(
        found, quantization=target.quantization, borrows=("embedding", "head"), approximations=(), exact=target.exact
    )
