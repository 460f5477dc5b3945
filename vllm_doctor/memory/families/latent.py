"""Decoders with multi-head latent attention: DeepSeek-V2/V3, Kimi-K2, GLM-4.7-Flash, LongCat and kin."""

from collections.abc import Sequence

from msgspec.structs import replace

from vllm_doctor.memory.config_values import LARGEST_EXPERTS, LARGEST_LAYERS, Config, ConfigError
from vllm_doctor.memory.facts import Architecture, Cache, CacheKind, Layer, Split
from vllm_doctor.memory.families import experts as moe
from vllm_doctor.memory.families.decoder import is_tied, read_decoder
from vllm_doctor.memory.families.hybrid import built
from vllm_doctor.memory.families.parts import Tensors, embedding, full, head, linear, mlp, norm, norms, plain
from vllm_doctor.memory.families.styles import STYLES

# 128 elements of an indexer key share one fp32 scale (0.32 v1/attention/backends/mla/indexer.py).
_INDEX_SCALE_GROUP = 128
# More tables of tokens together than any model has (LongCat-Flash-Lite: 4 for each of 3 lengths).
LARGEST_TABLES = 256


def latent_attention(config: Config, hidden: int, heads: int, *, out_bias: bool = False) -> Tensors:
    """The projections: the down-projections are whole on every rank (0.32 deepseek_v2.py DeepseekV2MLAAttention)."""
    rank, rope = config.positive("kv_lora_rank"), config.count("qk_rope_head_dim", default=0)
    nope, value = config.positive("qk_nope_head_dim"), config.positive("v_head_dim")
    queries = heads * (nope + rope)
    query_rank = config.optional("q_lora_rank")
    bias = config.flag("attention_bias")
    if query_rank:
        query: Tensors = (
            *linear("self_attn.q_a_proj", query_rank, hidden, Split.WHOLE, bias=bias),
            *norm("self_attn.q_a_layernorm", query_rank),
            *linear("self_attn.q_b_proj", queries, query_rank, Split.ROWS),
        )
    else:
        query = linear("self_attn.q_proj", queries, hidden, Split.ROWS)
    return (
        *query,
        *linear("self_attn.kv_a_proj_with_mqa", rank + rope, hidden, Split.WHOLE, bias=bias),
        *norm("self_attn.kv_a_layernorm", rank),
        *linear("self_attn.kv_b_proj", heads * (nope + value), rank, Split.ROWS),
        *linear("self_attn.o_proj", hidden, heads * value, Split.COLUMNS, bias=bias or out_bias),
    )


def latent_cache(config: Config) -> Cache:
    """One latent per token, the same on every rank."""
    size = config.positive("kv_lora_rank") + config.count("qk_rope_head_dim", default=0)
    return Cache(kind=CacheKind.LATENT, kv_heads=1, head_size=size, value_size=0)


def indexer(config: Config, hidden: int) -> tuple[Tensors, tuple[Cache, ...]]:
    """DeepSeek-V3.2's sparse attention: a small scorer, whole on every rank, and the cache of its keys in FP8."""
    size, heads = config.optional("index_head_dim"), config.optional("index_n_heads")
    if not size or not heads:
        return (), ()
    tensors = (
        *linear("self_attn.indexer.wq_b", heads * size, config.positive("q_lora_rank"), Split.WHOLE),
        # Joined with weights_proj, so never packed: FP8 is widened while it is loaded (deepseek_v2.py Indexer).
        plain("self_attn.indexer.wk", size, hidden),
        plain("self_attn.indexer.k_norm", size, element_bytes=4),
        plain("self_attn.indexer.k_norm.bias", size, element_bytes=4),
        plain("self_attn.indexer.weights_proj", heads, hidden),
    )
    bytes_per_token = size + -(-size // _INDEX_SCALE_GROUP) * 4
    cache = Cache(kind=CacheKind.LATENT, kv_heads=1, head_size=bytes_per_token, value_size=0, own_element_bytes=1)
    return tensors, (cache,)


def read_deepseek(config: Config) -> Architecture:
    """DeepSeek-V2, V3 and what is built as they are: lm_head is never tied (deepseek_v2.py).

    Without sizes of latents it has ordinary attention (DeepSeek-OCR).
    """
    if not any(config.optional(key) for key in ("qk_nope_head_dim", "qk_rope_head_dim")):
        return read_decoder(config, STYLES["DeepseekForCausalLM"]._replace(tied=False))
    return read_latent(config, tied=False)


def read_latent(config: Config, found_by: moe.Finder = moe.deepseek, *, tied: bool | None = None) -> Architecture:
    """The architecture of a latent-attention decoder."""
    layers = config.positive("num_hidden_layers", "num_layers", largest=LARGEST_LAYERS)
    hidden = config.positive("hidden_size")
    heads = config.positive("num_attention_heads")
    found = found_by(config, layers) if moe.count_of(config) else None
    dense = config.positive("intermediate_size", "ffn_hidden_size")
    extra, index_caches = indexer(config, hidden)
    shared: Tensors = (*latent_attention(config, hidden, heads), *extra, *norms(2, hidden))
    caches = (latent_cache(config), *index_caches)
    kinds = (
        Layer(tensors=(*shared, *mlp(hidden, dense)), caches=caches),
        Layer(tensors=(*shared, *(found.tensors(hidden) if found else ())), caches=caches),
    )
    vocabulary = config.positive("vocab_size")
    tied = is_tied(config, tied)
    return Architecture(
        name="",
        model_type=config.model_type,
        dtype="",
        hidden_size=hidden,
        vocabulary_size=vocabulary,
        layers=tuple(1 if found is not None and i in found.layers else 0 for i in range(layers)),
        kinds=kinds,
        first=(embedding(vocabulary, hidden),),
        last=(*norm("model.norm", hidden), *(() if tied else (head(vocabulary, hidden),))),
        attention_heads=heads,
        kv_heads=1,
        head_size=config.positive("kv_lora_rank") + config.count("qk_rope_head_dim", default=0),
        tied_embeddings=tied,
        largest_intermediate=dense if found is None or len(found.layers) < layers else found.shared,
        experts=found.number if found else 0,
        experts_per_token=found.per_token if found else 0,
        expert_intermediate=found.width if found else 0,
        sparse_attention=bool(index_caches),
        absorbed_elements=heads
        * (config.positive("qk_nope_head_dim") + config.positive("v_head_dim"))
        * config.positive("kv_lora_rank"),
    )


def with_latents(
    config: Config,
    layers: Sequence[Layer],
    hidden: int,
    found: moe.Experts | None,
    width: int,
    tied: bool | None = None,
) -> Architecture:
    """An architecture out of its layers in order, those of attention with latents."""
    heads, rank = config.positive("num_attention_heads"), config.positive("kv_lora_rank")
    return built(
        config,
        layers,
        hidden,
        heads=heads,
        kv_heads=1,
        head_size=rank + config.count("qk_rope_head_dim", default=0),
        found=found,
        intermediate=width,
        absorbed=heads * (config.positive("qk_nope_head_dim") + config.positive("v_head_dim")) * rank,
        tied=tied,
    )


def read_corrected(config: Config) -> Architecture:
    """As DeepSeek-V3, always with a correction bias (GLM-4.7-Flash, LongCat)."""
    return read_latent(config, moe.corrected)


def read_glm_lite(config: Config) -> Architecture:
    """GLM-4.7-Flash: as `read_corrected`, with an fp32 router (glm4_moe_lite.py)."""
    return read_latent(config, moe.glm)


def read_longcat(config: Config) -> Architecture:
    """LongCat-Flash: every layer has two attentions and two dense MLPs beside the experts (longcat_flash.py)."""
    layers = config.positive("num_layers", "num_hidden_layers", largest=LARGEST_LAYERS)
    hidden, heads = config.positive("hidden_size"), config.positive("num_attention_heads")
    count = config.positive("n_routed_experts", largest=LARGEST_EXPERTS)
    zero = config.count("zero_expert_num", default=0, largest=LARGEST_EXPERTS)
    width = config.positive("expert_ffn_hidden_size", "moe_intermediate_size")
    dense = config.positive("ffn_hidden_size", "intermediate_size")
    per_token = moe.per_token_of(config)
    routed = moe.Experts(count, per_token, width, frozenset(range(layers)), corrected=False)
    tensors = (
        *latent_attention(config, hidden, heads) * 2,
        *norms(4, hidden),
        *mlp(hidden, dense) * 2,
        *routed.tensors(hidden)[1:],
        plain("mlp.router.classifier", count + zero, hidden, element_bytes=4),
        plain("mlp.router.e_score_correction_bias", count + zero, element_bytes=4),
    )
    vocabulary = config.positive("vocab_size")
    return Architecture(
        name="",
        model_type=config.model_type,
        dtype="",
        hidden_size=hidden,
        vocabulary_size=vocabulary,
        layers=(0,) * layers,
        kinds=(Layer(tensors=tensors, caches=(latent_cache(config),) * 2),),
        first=(embedding(vocabulary, hidden),),
        last=(*norm("model.norm", hidden), head(vocabulary, hidden)),
        attention_heads=heads,
        kv_heads=1,
        head_size=config.positive("kv_lora_rank") + config.count("qk_rope_head_dim", default=0),
        largest_intermediate=dense,
        experts=count,
        experts_per_token=per_token,
        expert_intermediate=width,
        absorbed_elements=2
        * heads
        * (config.positive("qk_nope_head_dim") + config.positive("v_head_dim"))
        * config.positive("kv_lora_rank"),
    )


def read_longcat_ngram(config: Config) -> Architecture:
    """LongCat-Flash-Lite: LongCat beside one embedding of the last tokens together (longcat_flash_ngram.py)."""
    base = read_longcat(config)
    if config.optional("ngram_vocab_size_ratio") is None:
        return base
    tables = config.positive("emb_split_num", largest=LARGEST_TABLES) * (
        config.positive("emb_neighbor_num", largest=LARGEST_TABLES) - 1
    )
    if not tables:
        raise ConfigError("emb_neighbor_num is 1: no tokens are embedded together")
    width = base.hidden_size // tables
    # Every table has a size of its own, an odd number of rows more than the one before it.
    rows = tables * config.positive("ngram_vocab_size_ratio") * base.vocabulary_size + tables * tables
    more = (
        plain("model.ngram_embeddings.oe_embedder", rows, width, Split.VOCABULARY),
        plain("model.ngram_embeddings.oe_projection", tables * width, base.hidden_size),
    )
    return replace(base, first=(*base.first, *more))


def read_minicpm3(config: Config) -> Architecture:
    """MiniCPM3: latent projections, but an ordinary cache of all heads (minicpm3.py)."""
    base = read_latent(config)
    heads = config.positive("num_attention_heads")
    size = config.positive("qk_nope_head_dim") + config.count("qk_rope_head_dim", default=0)
    kinds = tuple(Layer(tensors=k.tensors, caches=(full(heads, size),)) for k in base.kinds)
    return replace(base, kinds=kinds, kv_heads=heads, head_size=size, absorbed_elements=0)
