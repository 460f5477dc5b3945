"""MiniMax-M3: attention over chosen blocks of keys, which an indexer with a cache of its own scores."""

from msgspec.structs import replace

from vllm_doctor.memory.config_values import LARGEST_EXPERTS, Config, ConfigError
from vllm_doctor.memory.facts import Architecture, Cache, CacheKind, Layer, Split
from vllm_doctor.memory.families import experts as moe
from vllm_doctor.memory.families.hybrid import built, depth
from vllm_doctor.memory.families.parts import Tensors, attention, full, linear, mlp, norm, norms

# The indexer's keys are bfloat16 whatever --kv-cache-dtype says (minimax_m3/common/indexer.py MiniMaxM3IndexerCache).
_INDEX_KEY_BYTES = 2
# minimax_m3/common/sparse_attention.py get_supported_kernel_block_sizes: one block of keys per page.
_BLOCK = 128


def read_minimax_m3(config: Config) -> Architecture:
    """MiniMax-M3: dense layers first, then experts; most layers have an indexer (models/minimax_m3/nvidia/model.py)."""
    hidden, layers = config.positive("hidden_size"), depth(config)
    heads, kv_heads = config.positive("num_attention_heads"), config.positive("num_key_value_heads")
    size, width = config.positive("head_dim"), config.positive("dense_intermediate_size")
    found, indexed = _experts(config, layers), _indexed(config, layers)
    index, cache = _indexer(config, hidden, kv_heads, size) if indexed else ((), None)

    def layer(i: int) -> Layer:
        return Layer(
            tensors=(
                *attention(hidden, heads, kv_heads, size),
                *norm("self_attn.q_norm", size),
                *norm("self_attn.k_norm", size),
                *(index if i in indexed else ()),
                *(found.tensors(hidden) if i in found.layers else mlp(hidden, width)),
                *norms(2, hidden),
            ),
            caches=(full(kv_heads, size), *((cache,) if cache is not None and i in indexed else ())),
        )

    base = built(
        config,
        [layer(i) for i in range(layers)],
        hidden,
        heads=heads,
        kv_heads=kv_heads,
        head_size=size,
        found=found,
        intermediate=width,
        tied=False,
    )
    return replace(base, kernel_block=_BLOCK if indexed else None)


def _experts(config: Config, layers: int) -> moe.Experts:
    """All experts are as wide as intermediate_size says; the router is fp32."""
    width = config.positive("intermediate_size")
    frequency = config.counts("moe_layer_freq", layers)
    return moe.Experts(
        config.positive("num_local_experts", largest=LARGEST_EXPERTS),
        config.positive("num_experts_per_tok", largest=LARGEST_EXPERTS),
        width,
        frozenset(i for i in range(layers) if not frequency or frequency[i]),
        shared=config.count("n_shared_experts", default=1, largest=LARGEST_EXPERTS) * width,
        corrected=config.flag("use_routing_bias", default=True),
        router_bytes=4,
    )


def _indexed(config: Config, layers: int) -> frozenset[int]:
    """The layers with an indexer."""
    sparse = config.section("sparse_attention_config")
    if sparse is None:
        raise ConfigError("sparse_attention_config is missing, and the caches of the layers depend on it")
    return frozenset(i for i, on in enumerate(sparse.counts("sparse_attention_freq")) if on and i < layers)


def _indexer(config: Config, hidden: int, kv_heads: int, size: int) -> tuple[Tensors, Cache]:
    """Index queries, divided as the key-value heads are; index keys of one head, on every rank (layers/linear.py)."""
    sparse = config.section("sparse_attention_config") or config
    heads, index_size = sparse.positive("sparse_num_index_heads"), sparse.positive("sparse_index_dim")
    if heads != kv_heads or index_size != size:
        raise ConfigError("the indexer has other heads than the keys have, which vLLM refuses")
    tensors = (
        *linear("self_attn.index_q_proj", heads * size, hidden, Split.HEADS, heads=heads),
        *linear("self_attn.index_k_proj", size, hidden, Split.WHOLE),
        *norm("self_attn.index_q_norm", size),
        *norm("self_attn.index_k_norm", size),
    )
    cache = Cache(kind=CacheKind.LATENT, kv_heads=1, head_size=size, value_size=0, own_element_bytes=_INDEX_KEY_BYTES)
    return tensors, cache
