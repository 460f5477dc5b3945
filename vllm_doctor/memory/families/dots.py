"""dots3 note: two shapes of latent attention, chosen keys in some layers and windows in the others."""

from msgspec.structs import replace

from vllm_doctor.memory.config_values import LARGEST_LAYERS, Config, ConfigError
from vllm_doctor.memory.facts import Architecture, Cache, CacheKind, Layer, Split
from vllm_doctor.memory.families import experts as moe
from vllm_doctor.memory.families.hybrid import depth
from vllm_doctor.memory.families.latent import indexer, latent_attention, latent_cache, with_latents
from vllm_doctor.memory.families.parts import Tensors, linear, mlp, norm, norms

# The numbers of attention that layers with windows have of their own (0.32 models/dots3_note/nvidia/model.py).
_OWN = (
    "num_attention_heads",
    "q_lora_rank",
    "kv_lora_rank",
    "qk_nope_head_dim",
    "qk_rope_head_dim",
    "v_head_dim",
    "attention_gate_type",
)
# FP8 blocks are at most so large (memory/quantization.py).
_LARGEST_BLOCK = 4096


def read_dots_note(config: Config) -> Architecture:
    """dots3 note's language model (models/dots3_note/nvidia/model.py)."""
    layers, hidden = depth(config), config.positive("hidden_size")
    types = config.words("layer_types", layers)
    if types is None:
        raise ConfigError("layer_types is missing, and the caches of the layers depend on it")
    found = moe.deepseek(config, layers) if moe.count_of(config) else None
    routed = _whole_blocks(config, found.tensors(hidden)) if found is not None else ()
    dense = _dense(config, hidden)
    chosen, near = _chosen(config, hidden), _near(config, hidden)

    def layer(i: int) -> Layer:
        base = near if types[i] == "sliding_attention" else chosen
        feed = routed if found is not None and i in found.layers else dense
        return Layer(tensors=(*base.tensors, *feed), caches=base.caches)

    width = config.positive("intermediate_size")
    base = with_latents(config, [layer(i) for i in range(layers)], hidden, found, width, tied=False)
    return replace(base, sparse_attention=True, absorbed_elements=_absorbed(config, types))


def _absorbed(config: Config, types: tuple[str, ...]) -> int:
    """Elements of the copies of a layer, on average: the two shapes of attention differ."""
    near = types.count("sliding_attention")
    sizes = ((config, len(types) - near), (_windowed(config), near))
    return sum(_copied(part) * count for part, count in sizes) // len(types)


def _copied(config: Config) -> int:
    sides = config.positive("qk_nope_head_dim") + config.positive("v_head_dim")
    return config.positive("num_attention_heads") * sides * config.positive("kv_lora_rank")


def mtp_layers(config: Config) -> tuple[Layer, ...]:
    """MTP layers: dense ones with windows, unless the config has a list of their types (nvidia/mtp.py)."""
    count = config.count("num_nextn_predict_layers", default=1, largest=LARGEST_LAYERS)
    types = config.words("mtp_layer_types", count) or ("sliding_attention",) * count
    hidden = config.positive("hidden_size")
    dense = _dense(config, hidden)

    def layer(kind: str) -> Layer:
        base = _near(config, hidden) if kind == "sliding_attention" else _chosen(config, hidden)
        return Layer(tensors=(*base.tensors, *dense), caches=base.caches)

    return tuple(layer(kind) for kind in types)


def _chosen(config: Config, hidden: int) -> Layer:
    """Attention to what an indexer picks; its latents lie in rows as wide as those of the other layers."""
    scorer, scores = indexer(config, hidden)
    wide = latent_cache(_windowed(config)).head_size
    cache = latent_cache(config)
    if cache.head_size > wide or not scores:
        raise ConfigError("swa_kv_lora_rank is narrower than kv_lora_rank, or there is no indexer, which vLLM refuses")
    return Layer(tensors=(*_attention(config, hidden), *scorer), caches=(replace(cache, head_size=wide), *scores))


def _near(config: Config, hidden: int) -> Layer:
    """Attention with a window."""
    own = _windowed(config)
    window = config.positive("sliding_window_size")
    cache: Cache = replace(latent_cache(own), kind=CacheKind.SLIDING_LATENT, window=window)
    return Layer(tensors=_attention(own, hidden), caches=(cache,))


def _windowed(config: Config) -> Config:
    """The config with the numbers of the layers with windows in the place of the others'."""
    own = {key: config.get(f"swa_{key}") for key in _OWN}
    return Config({**config.values, **own}, config.model_type, config.outer)


def _attention(config: Config, hidden: int) -> Tensors:
    heads = config.positive("num_attention_heads")
    plainly = Config({**config.values, "attention_bias": False}, config.model_type, config.outer)
    per_head = config.text("attention_gate_type") == "headwise"
    rows = heads if per_head else heads * config.positive("v_head_dim")
    return (
        *latent_attention(plainly, hidden, heads),
        *linear("self_attn.g_proj", rows, hidden, Split.WHOLE if per_head else Split.ROWS),
        *norm("self_attn.k_rope_only_layernorm", config.positive("qk_rope_head_dim")),
        *norms(2, hidden),
    )


def _dense(config: Config, hidden: int) -> Tensors:
    return _whole_blocks(config, mlp(hidden, config.positive("intermediate_size")))


def _whole_blocks(config: Config, tensors: Tensors) -> Tensors:
    """MLPs of which every rank holds whole FP8 blocks (nvidia/model.py _padded_mlp_size)."""
    packed = config.section("quantization_config")
    sides = packed.counts("weight_block_size") if packed is not None else ()
    if not sides or not 0 < sides[0] <= _LARGEST_BLOCK:
        return tensors
    divided = (Split.ROWS, Split.COLUMNS)
    return tuple(replace(t, multiple=sides[0]) if t.split in divided else t for t in tensors)
