"""Decoders of attention and MLP layers: one table says how each architecture differs from Llama."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from vllm_doctor.memory.config_values import LARGEST_LAYERS, Config, ConfigError
from vllm_doctor.memory.facts import Architecture, Cache, CacheKind, Layer, Split, Tensor
from vllm_doctor.memory.families import experts as moe
from vllm_doctor.memory.families.parts import Tensors, attention, embedding, full, head, mlp, norm, norms, plain
from vllm_doctor.memory.families.windows import CHUNKED, layer_types, windows

Switch = bool | str
"""On, off, or the name of the config's key that says."""


class Style(NamedTuple):
    """How an architecture's layers differ from Llama's (vLLM 0.32 model_executor/models, one file per name).

    `qk_norm`: `head` over one head's size, `full` over all heads at once, `heads` with a weight for every head.
    `sides`: how many norms of the hidden size a layer has. `positions`: the key of learned positions, `offset` rows more.
    """

    qkv_bias: Switch = False
    out_bias: Switch = False
    mlp_bias: Switch = False
    gated: bool = True
    sides: int = 2
    norm_bias: Switch = False
    plain_norms: bool = False
    qk_norm: str | None = None
    positions: str | None = None
    offset: int = 0
    tied: bool | None = None
    head_bias: Switch = False
    experts: moe.Finder | None = None
    per_layer_window: bool = False
    widen: int = 0
    sinks: bool = False
    gated_attention: bool = False
    scalars: int = 0
    embedding_norm: bool = False


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
    if config.flag("multi_query") and config.model_type in ("gpt_bigcode", "falcon", "RefinedWebModel"):
        if not config.flag("new_decoder_architecture"):
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
    ("gemma", "gemma2", "gemma3_text", "gemma3n_text", "gemma4_text", "qwen3", "gpt_oss", "exaone4", "afmoe")
    + ("qwen3_next", "qwen3_5_text", "qwen3_5_moe_text", "glm", "glm4", "glm4_moe", "helium", "ernie4_5", "mistral3")
    + (
        "seed_oss",
        "apertus",
        "ministral",
        "ministral3",
        "dots1",
        "minimax_m2",
        "vaultgemma",
        "laguna",
        "hunyuan_v1_dense",
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
        experts=found.count if found else 0,
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
    """Whether lm_head is the embedding; Transformers' own default is that it is."""
    if forced is not None:
        return forced
    return config.flag("tie_word_embeddings", default=bool(config.outer.get("tie_word_embeddings", True)))


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
        rows = config.positive(style.positions) + style.offset
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


_LLAMA = Style(qkv_bias="attention_bias", out_bias="attention_bias", mlp_bias="mlp_bias", per_layer_window=True)
_GPT = Style(qkv_bias=True, out_bias=True, mlp_bias=True, gated=False, norm_bias=True)

STYLES: Mapping[str, Style] = {
    "LlamaForCausalLM": _LLAMA,
    "LLaMAForCausalLM": _LLAMA,
    "AquilaForCausalLM": _LLAMA,
    "AquilaModel": _LLAMA,
    "InternLMForCausalLM": _LLAMA._replace(qkv_bias="bias", out_bias="bias"),
    "InternLM2ForCausalLM": _LLAMA._replace(qkv_bias="bias", out_bias="bias"),
    "InternLM3ForCausalLM": _LLAMA._replace(qkv_bias="qkv_bias", out_bias="bias", mlp_bias="bias"),
    "MistralForCausalLM": _LLAMA._replace(qkv_bias=False, out_bias=False),
    "Ministral3ForCausalLM": _LLAMA._replace(qkv_bias=False, out_bias=False),
    "MistralModel": _LLAMA,
    "LlamaModel": _LLAMA,
    "TeleChat3ForCausalLM": _LLAMA,
    "IQuestCoderForCausalLM": _LLAMA,
    "CwmForCausalLM": _LLAMA,
    "XverseForCausalLM": _LLAMA._replace(tied=False),
    "YiForCausalLM": _LLAMA,
    "SolarForCausalLM": _LLAMA,
    "SmolLM3ForCausalLM": _LLAMA,
    "NanbeigeForCausalLM": _LLAMA,
    "BitnetForCausalLM": _LLAMA,
    "HyperCLOVAXForCausalLM": _LLAMA._replace(sides=4),
    "SeedOssForCausalLM": _LLAMA._replace(qkv_bias="attention_bias", out_bias="attention_out_bias"),
    "ArceeForCausalLM": _LLAMA._replace(gated=False),
    "ApertusForCausalLM": _LLAMA._replace(gated=False, qk_norm="head", scalars=2),
    "HeliumForCausalLM": _LLAMA,
    "Ernie4_5ForCausalLM": _LLAMA._replace(qkv_bias="use_bias", out_bias="use_bias", mlp_bias="use_bias"),
    "GlmForCausalLM": _LLAMA._replace(out_bias=False),
    "Glm4ForCausalLM": _LLAMA._replace(out_bias=False, sides=4),
    "GemmaForCausalLM": _LLAMA._replace(tied=True),
    "Gemma2ForCausalLM": _LLAMA._replace(sides=4, tied=True),
    "VaultGemmaForCausalLM": _LLAMA._replace(tied=True),
    "Gemma3ForCausalLM": _LLAMA._replace(sides=4, qk_norm="head", tied=True),
    "Gemma3TextModel": _LLAMA._replace(sides=4, qk_norm="head", tied=True),
    "Rnj1ForCausalLM": _LLAMA._replace(sides=4, qk_norm="head"),
    "Qwen2ForCausalLM": _LLAMA._replace(qkv_bias=True, out_bias=False, mlp_bias=False, per_layer_window=False),
    "Qwen2Model": _LLAMA._replace(qkv_bias=True, out_bias=False, mlp_bias=False, per_layer_window=False),
    "MiMoForCausalLM": _LLAMA._replace(qkv_bias="attention_bias", out_bias=False, per_layer_window=False),
    "Qwen3ForCausalLM": _LLAMA._replace(qk_norm="head", out_bias="attention_bias"),
    "Exaone4ForCausalLM": _LLAMA._replace(qk_norm="head", qkv_bias=False, out_bias=False, mlp_bias=False),
    "ExaoneForCausalLM": _LLAMA._replace(tied=None),
    "OlmoForCausalLM": _LLAMA._replace(plain_norms=True),
    "Olmo2ForCausalLM": _LLAMA._replace(qk_norm="full"),
    "Olmo3ForCausalLM": _LLAMA._replace(qk_norm="full"),
    "GraniteForCausalLM": _LLAMA,
    "GraniteSWAForCausalLM": _LLAMA._replace(sinks=True),
    "CohereForCausalLM": _LLAMA._replace(sides=1, qk_norm="heads?", tied=True),
    "Cohere2ForCausalLM": _LLAMA._replace(sides=1, qk_norm="heads?", tied=True, widen=1),
    "Phi3ForCausalLM": _LLAMA._replace(per_layer_window=False),
    "PhiForCausalLM": _GPT._replace(sides=1, head_bias=True, tied=False),
    "StableLmForCausalLM": _LLAMA._replace(qkv_bias="use_qkv_bias", out_bias=False, norm_bias=True),
    "StableLMEpochForCausalLM": _LLAMA._replace(qkv_bias="use_qkv_bias", out_bias=False, norm_bias=True),
    "Starcoder2ForCausalLM": _GPT._replace(qkv_bias="use_bias", out_bias="use_bias", mlp_bias="use_bias"),
    "NemotronForCausalLM": _LLAMA._replace(gated=False, norm_bias=True),
    "BaiChuanForCausalLM": _LLAMA._replace(qkv_bias=False, out_bias=False, mlp_bias=False, tied=False),
    "BaichuanForCausalLM": _LLAMA._replace(qkv_bias=False, out_bias=False, mlp_bias=False, tied=False),
    "OrionForCausalLM": _LLAMA._replace(qkv_bias=False, out_bias=False, norm_bias=True),
    "MiniCPMForCausalLM": _LLAMA._replace(qkv_bias=False, out_bias=False),
    "TeleFLMForCausalLM": _LLAMA,
    "TeleChat2ForCausalLM": _LLAMA._replace(qkv_bias=False, out_bias=True, mlp_bias=True),
    "Step1ForCausalLM": _LLAMA,
    "PanguEmbeddedForCausalLM": _LLAMA._replace(qkv_bias="bias", out_bias="bias"),
    "ChatGLMModel": _LLAMA._replace(qkv_bias=True, out_bias="add_bias_linear", mlp_bias="add_bias_linear", tied=False),
    "ChatGLMForConditionalGeneration": _LLAMA._replace(
        qkv_bias=True, out_bias="add_bias_linear", mlp_bias="add_bias_linear", tied=False
    ),
    "HunYuanDenseV1ForCausalLM": _LLAMA._replace(qk_norm="head"),
    "JAISLMHeadModel": _GPT._replace(gated=True, positions=None, tied=True),
    "Jais2ForCausalLM": _GPT._replace(positions=None),
    "GPT2LMHeadModel": _GPT._replace(positions="n_positions", tied=True),
    "GPTBigCodeForCausalLM": _GPT._replace(positions="n_positions"),
    "GPTJForCausalLM": _GPT._replace(qkv_bias=False, out_bias=False, sides=1, head_bias=True, tied=False),
    "CodeGenForCausalLM": _GPT._replace(qkv_bias=False, out_bias=False, sides=1, head_bias=True, tied=False),
    "GPTNeoXForCausalLM": _GPT,
    "BloomForCausalLM": _GPT._replace(tied=True, embedding_norm=True),
    "FalconForCausalLM": _GPT._replace(qkv_bias="bias", out_bias="bias", mlp_bias="bias", sides=1),
    "RWForCausalLM": _GPT._replace(qkv_bias="bias", out_bias="bias", mlp_bias="bias", sides=1),
    "MPTForCausalLM": Style(gated=False, tied=True),
    "MptForCausalLM": Style(gated=False, tied=True),
    "PersimmonForCausalLM": _GPT._replace(qk_norm="head", tied=False),
    "MixtralForCausalLM": _LLAMA._replace(
        qkv_bias=False, out_bias=False, experts=moe.every_layer, per_layer_window=False
    ),
    "PhiMoEForCausalLM": _LLAMA._replace(
        experts=moe.phimoe, norm_bias=True, head_bias="lm_head_bias", per_layer_window=False
    ),
    "GptOssForCausalLM": _LLAMA._replace(qkv_bias=True, out_bias=True, experts=moe.gpt_oss, sinks=True),
    "Qwen2MoeForCausalLM": _LLAMA._replace(qkv_bias=True, out_bias=False, experts=moe.qwen, per_layer_window=False),
    "Qwen3MoeForCausalLM": _LLAMA._replace(qk_norm="head", experts=moe.qwen, out_bias=False, per_layer_window=False),
    "OlmoeForCausalLM": _LLAMA._replace(qkv_bias=False, out_bias=False, qk_norm="full", experts=moe.every_layer),
    "FlexOlmoForCausalLM": _LLAMA._replace(qk_norm="full", experts=moe.every_layer),
    "GraniteMoeForCausalLM": _LLAMA._replace(experts=moe.every_layer),
    "GraniteMoeSharedForCausalLM": _LLAMA._replace(experts=moe.granite),
    "GraniteMoeSWAForCausalLM": _LLAMA._replace(experts=moe.granite, sinks=True),
    "DeepseekForCausalLM": _LLAMA._replace(experts=moe.deepseek, out_bias=False),
    "Glm4MoeForCausalLM": _LLAMA._replace(qk_norm="head?", out_bias=False, experts=moe.glm),
    "Dots1ForCausalLM": _LLAMA._replace(qk_norm="head", experts=moe.corrected),
    "Ernie4_5_MoeForCausalLM": _LLAMA._replace(
        qkv_bias="use_bias", out_bias="use_bias", mlp_bias="use_bias", experts=moe.ernie
    ),
    "BailingMoeForCausalLM": _LLAMA._replace(
        qkv_bias="use_qkv_bias", out_bias="use_bias", mlp_bias="use_bias", experts=moe.deepseek
    ),
    "BailingMoeV2ForCausalLM": _LLAMA._replace(
        qkv_bias="use_qkv_bias", out_bias="use_bias", mlp_bias="use_bias", experts=moe.corrected, qk_norm="head?"
    ),
    "Llama4ForCausalLM": _LLAMA._replace(experts=moe.llama4, qk_norm="none"),
    "MiniMaxM2ForCausalLM": _LLAMA._replace(qkv_bias=False, out_bias=False, qk_norm="full", experts=moe.minimax),
    "Cohere2MoeForCausalLM": _LLAMA._replace(sides=1, tied=True, widen=1, experts=moe.every_layer),
    "ExaoneMoeForCausalLM": _LLAMA._replace(qkv_bias=False, out_bias=False, qk_norm="head", experts=moe.exaone),
    "ExaoneMoEForCausalLM": _LLAMA._replace(qkv_bias=False, out_bias=False, qk_norm="head", experts=moe.exaone),
    "HunYuanMoEV1ForCausalLM": _LLAMA._replace(qk_norm="head", experts=moe.hunyuan),
    "AfmoeForCausalLM": _LLAMA._replace(sides=4, qk_norm="head", experts=moe.corrected, gated_attention=True),
}
