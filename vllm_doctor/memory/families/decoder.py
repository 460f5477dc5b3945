"""Decoders of attention and MLP layers, built by the style of their architecture."""

from collections.abc import Callable
from typing import NamedTuple

from vllm_doctor.memory.config_values import LARGEST_LAYERS, Config, ConfigError
from vllm_doctor.memory.facts import Architecture, Cache, CacheKind, Layer, Split, Tensor
from vllm_doctor.memory.families import experts as moe
from vllm_doctor.memory.families.parts import Tensors, attention, embedding, full, head, mlp, norm, norms, plain
from vllm_doctor.memory.families.styles import Style, Switch
from vllm_doctor.memory.families.windows import CHUNKED, layer_types, windows


def decoder(style: Style) -> Callable[[Config], Architecture]:
    """The reader of an architecture of that style."""
    return lambda config: read_decoder(config, style)


class Shape(NamedTuple):
    """The numbers that all decoders have."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_size: int
    vocabulary: int
    intermediate: int


def shape_of(config: Config) -> Shape:
    """The common numbers under the names that configs use for them."""
    layers = config.positive("num_hidden_layers", "n_layer", "n_layers", "num_layers", largest=LARGEST_LAYERS)
    hidden = config.positive("hidden_size", "n_embd", "d_model", "dim")
    heads = config.positive("num_attention_heads", "n_head", "n_heads", "num_heads")
    return Shape(
        layers=layers,
        hidden=hidden,
        heads=heads,
        kv_heads=kv_heads_of(config, heads),
        head_size=head_size_of(config, hidden, heads),
        vocabulary=config.positive("vocab_size", "padded_vocab_size"),
        intermediate=intermediate_of(config, hidden),
    )


def kv_heads_of(config: Config, heads: int) -> int:
    """Key-value heads; as many as query heads where the config names none (GPTBigCode: one)."""
    single = config.model_type in ("gpt_bigcode", "falcon", "RefinedWebModel") and config.flag("multi_query")
    if single and not config.flag("new_decoder_architecture"):
        return 1
    if config.model_type == "chatglm" and config.flag("multi_query_attention"):
        return config.positive("multi_query_group_num")
    found = config.optional("n_head_kv", "num_kv_heads", "num_key_value_heads", "multi_query_group_num", "n_kv_heads")
    if found is None or (found == 0) or not _own_kv_heads(config):
        return heads
    return found


def _own_kv_heads(config: Config) -> bool:
    """A default of the class holds for the class's own number of heads only."""
    keys = ("n_head_kv", "num_kv_heads", "num_key_value_heads", "multi_query_group_num", "n_kv_heads")
    own_heads = any(config.has(k) for k in ("num_attention_heads", "n_head", "n_heads"))
    return any(config.has(k) for k in keys) or not own_heads or config.model_type not in _HEADS_FOLLOW


# Config classes that take the query heads where num_key_value_heads is null or missing (configuration_*.py).
_HEADS_FOLLOW = frozenset(
    (
        "llama",
        "qwen2_moe",
        "phi",
        "phi3",
        "gemma",
        "stablelm",
        "olmo",
        "olmo2",
        "cohere",
        "granite",
        "nemotron",
        "mixtral",
    )
)


def head_size_of(config: Config, hidden: int, heads: int) -> int:
    """`head_dim`, else the hidden size over the heads (0.32 model_arch_config_convertor.py get_head_size)."""
    found = config.optional("head_dim", "attention_head_dim", "kv_channels", "hidden_size_per_head")
    own = any(config.has(k) for k in ("head_dim", "attention_head_dim", "kv_channels", "hidden_size_per_head"))
    if found and (own or not config.has("hidden_size") or config.model_type in _FIXED_HEADS):
        return found
    if hidden % heads:
        raise ConfigError(f"hidden_size {hidden} is no multiple of {heads} attention heads")
    return hidden // heads


# Config classes whose own head_dim default holds whatever the hidden size is.
_FIXED_HEADS = frozenset(
    (
        "afmoe",
        "apertus",
        "dots1",
        "ernie4_5",
        "exaone4",
        "gemma",
        "gemma2",
        "gemma3_text",
        "gemma3n_text",
        "gemma4_text",
        "glm",
        "glm4",
        "glm4_moe",
        "gpt_oss",
        "helium",
        "hunyuan_v1_dense",
        "laguna",
        "minimax_m2",
        "ministral",
        "ministral3",
        "mistral3",
        "qwen3",
        "qwen3_5_moe_text",
        "qwen3_5_text",
        "qwen3_next",
        "seed_oss",
        "vaultgemma",
    )
)


def intermediate_of(config: Config, hidden: int) -> int:
    """The width of a dense MLP; four times the hidden size where the config names none (GPT-2, Falcon, BLOOM)."""
    keys = ("intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size", "ffn_hidden_dim", "d_ff")
    found = config.optional(*keys)
    own = any(config.has(k) for k in keys)
    if found and (own or config.model_type not in ("falcon", "gpt2", "bloom", "gpt_bigcode", "mpt", "gptj")):
        return found
    return 4 * hidden


def read_decoder(config: Config, style: Style) -> Architecture:
    """The architecture of a decoder in that style."""
    shape = shape_of(config)
    found = style.experts(config, shape.layers) if style.experts is not None else None
    sliding = windows(config, shape.layers, per_layer=style.per_layer_window, widen=style.widen)
    types = layer_types(config, shape.layers) if style.per_layer_window else None
    chunk = config.optional("attention_chunk_size") if types is not None else None
    plans = [
        (
            cache_of(shape, sliding[i], chunk if types and types[i] in CHUNKED else None),
            found is not None and i in found.layers,
        )
        for i in range(shape.layers)
    ]
    order = list(dict.fromkeys(plans))
    kinds = tuple(Layer(tensors=_layer(config, style, shape, found if m else None), caches=(c,)) for c, m in order)
    return Architecture(
        name="",
        model_type=config.model_type,
        dtype="",
        hidden_size=shape.hidden,
        vocabulary_size=shape.vocabulary,
        layers=tuple(order.index(p) for p in plans),
        kinds=kinds,
        first=_first(config, style, shape),
        last=_last(config, style, shape),
        attention_heads=shape.heads,
        kv_heads=shape.kv_heads,
        head_size=shape.head_size,
        tied_embeddings=is_tied(config, style.tied),
        largest_intermediate=_largest(shape, found),
        experts=found.number if found else 0,
        experts_per_token=found.per_token if found else 0,
        expert_intermediate=found.width if found else 0,
    )


def _largest(shape: Shape, found: moe.Experts | None) -> int:
    if found is None:
        return shape.intermediate
    return max(found.shared, 0 if len(found.layers) == shape.layers else shape.intermediate)


def cache_of(shape: Shape, window: int | None, chunk: int | None = None) -> Cache:
    """The cache of one layer: chunked, sliding or full."""
    if chunk:
        return Cache(
            kind=CacheKind.CHUNKED,
            kv_heads=shape.kv_heads,
            head_size=shape.head_size,
            value_size=shape.head_size,
            window=chunk,
        )
    return full(shape.kv_heads, shape.head_size, window=window)


def is_tied(config: Config, forced: bool | None = None) -> bool:
    """Whether lm_head is the embedding; Transformers' own default is that it is.

    A multi-modal config's own word wins over its language model's (0.32 config/vllm.py with_hf_config).
    """
    if forced is not None:
        return forced
    key = "tie_word_embeddings"
    if isinstance(outer := config.outer.get(key), bool):
        return outer
    return config.flag(key, default=True)


def on(config: Config, switch: Switch) -> bool:
    """What a switch of the style says for this config."""
    return config.flag(switch) if isinstance(switch, str) else switch


def _layer(config: Config, style: Style, shape: Shape, found: moe.Experts | None) -> Tensors:
    qkv_bias, out_bias = on(config, style.qkv_bias), on(config, style.out_bias)
    if config.has("qkv_bias") and style.qkv_bias == "attention_bias":
        qkv_bias = config.flag("qkv_bias")
    return (
        *attention(
            shape.hidden,
            shape.heads,
            shape.kv_heads,
            shape.head_size,
            qkv_bias=qkv_bias,
            out_bias=out_bias,
            gated=style.gated_attention,
        ),
        *qk_norms(config, style.qk_norm, shape),
        *_norms(config, style, shape),
        *((plain("self_attn.sinks", shape.heads, split=Split.ROWS),) if style.sinks else ()),
        *(found.tensors(shape.hidden) if found is not None else _dense(config, style, shape)),
        *((plain("scalars", style.scalars),) if style.scalars else ()),
    )


def _norms(config: Config, style: Style, shape: Shape) -> Tensors:
    return () if style.plain_norms else norms(style.sides, shape.hidden, bias=on(config, style.norm_bias))


def _dense(config: Config, style: Style, shape: Shape) -> Tensors:
    width = config.optional("intermediate_size_mlp", "dense_intermediate_size") or shape.intermediate
    return mlp(shape.hidden, width, gated=style.gated, bias=on(config, style.mlp_bias))


def qk_norms(config: Config, kind: str | None, shape: Shape) -> Tensors:
    """The norms over queries and keys."""
    switches = ("use_qk_norm", "qk_layernorm", "use_qk_layernorm", "add_qk_norm")
    if kind is None or (kind.endswith("?") and not config.flag(*switches)):
        return ()
    queries, keys = shape.heads * shape.head_size, shape.kv_heads * shape.head_size
    match kind.rstrip("?"):
        case "head":
            return (*norm("self_attn.q_norm", shape.head_size), *norm("self_attn.k_norm", shape.head_size))
        case "full":
            return (*norm("self_attn.q_norm", queries), *norm("self_attn.k_norm", keys))
        case "none":
            return ()
        case _:
            return (
                plain("self_attn.q_norm", queries, split=Split.ROWS),
                plain("self_attn.k_norm", keys, split=Split.HEADS, heads=shape.kv_heads),
            )


def _first(config: Config, style: Style, shape: Shape) -> tuple[Tensor, ...]:
    tensors = [embedding(shape.vocabulary, shape.hidden)]
    if style.positions is not None:
        rows = config.positive(style.positions)
        tensors.append(plain("model.embed_positions", rows, shape.hidden))
    if style.embedding_norm:
        tensors += norm("model.embed_norm", shape.hidden, bias=True)
    return tuple(tensors)


def _last(config: Config, style: Style, shape: Shape) -> tuple[Tensor, ...]:
    final = () if style.plain_norms else norm("model.norm", shape.hidden, bias=on(config, style.norm_bias))
    if is_tied(config, style.tied):
        return final
    tensors: tuple[Tensor, ...] = (*final, head(shape.vocabulary, shape.hidden))
    if on(config, style.head_bias):
        tensors = (*tensors, plain("lm_head.bias", shape.vocabulary, split=Split.VOCABULARY))
    return tensors
