"""Drafts of speculative decoding: MTP layers of the model itself, EAGLE, Medusa, DFlash.

A draft's `first` is its embedding and `last` its norm and head; what it shares with its target is taken off where the
two are known (memory/drafting.py).
"""

from collections.abc import Callable, Mapping

from msgspec.structs import replace

from vllm_doctor.memory.config_values import LARGEST_LAYERS, Config, ConfigError
from vllm_doctor.memory.facts import Architecture, CacheKind, Layer, Split, Tensor
from vllm_doctor.memory.families.decoder import qk_norms, shape_of
from vllm_doctor.memory.families.hybrid import nemotron_pattern
from vllm_doctor.memory.families.latent import latent_attention, latent_cache
from vllm_doctor.memory.families.parts import (
    Tensors,
    attention,
    embedding,
    full,
    head,
    linear,
    mlp,
    norm,
    norms,
    plain,
)
from vllm_doctor.memory.families.recent import read_step35
from vllm_doctor.memory.families.windows import SLIDING

# No draft has more heads, features of the target or layers of its own.
_MOST = 64

# 0.32 v1/spec_decode/llm_base_proposer.py _maybe_share_lm_head compares the numbers of both.
_SAME_HEAD = "whether the draft has an lm_head of its own is in its weights; the target's was taken"

Block = Callable[[Config, Architecture], tuple[Layer, ...]]


def read_mtp(config: Config, target: Architecture) -> Architecture:
    """The MTP layers of a target (0.32 config/speculative.py hf_config_override: which architectures have them).

    Raises ConfigError for an architecture that has none, or whose config names none.
    """
    maker = _MTP.get(target.name) or _MTP.get(target.inside or "")
    if maker is None:
        raise ConfigError(f"{target.name} has no MTP layers that are known")
    layers = maker(config, target)
    if not layers:
        raise ConfigError("num_nextn_predict_layers is 0: the model has no MTP layer")
    hidden = target.hidden_size
    found = _draft(config, target, layers, hidden, (head(target.vocabulary_size, hidden),))
    return replace(
        found, quantization=target.quantization, borrows=("embedding", "head"), approximations=(), exact=target.exact
    )


def _draft(
    config: Config, target: Architecture, layers: tuple[Layer, ...], hidden: int, last: tuple[Tensor, ...]
) -> Architecture:
    order = list(dict.fromkeys(layers))
    embeds = ("embedding",) if hidden == target.hidden_size else ()
    heads = [t for t in last if t.split is Split.VOCABULARY]
    same = not heads or (hidden == target.hidden_size and heads[0].rows == target.vocabulary_size)
    return Architecture(
        name="",
        model_type=config.model_type,
        dtype=target.dtype,
        hidden_size=hidden,
        vocabulary_size=target.vocabulary_size,
        layers=tuple(order.index(layer) for layer in layers),
        kinds=tuple(order),
        first=(embedding(target.vocabulary_size, hidden),),
        last=last,
        absorbed_elements=target.absorbed_elements if _is_latent(layers) else 0,
        borrows=(*embeds, *(("head",) if same else ())),
        approximations=(_SAME_HEAD,) if heads and same else (),
    )


def _is_latent(layers: tuple[Layer, ...]) -> bool:
    return any(cache.kind is CacheKind.LATENT for layer in layers for cache in layer.caches)


def _count(config: Config, *keys: str, default: int | None = None) -> int:
    return config.count(*(keys or ("num_nextn_predict_layers",)), default=default or 0, largest=LARGEST_LAYERS)


def _joined(hidden: int, *, split: Split | None = None) -> Tensors:
    """The norms of both inputs, the projection of the two, and the norm at the end."""
    if split is None:
        return (*norms(3, hidden), plain("eh_proj", hidden, 2 * hidden))
    return (*norms(3, hidden), *linear("fc", hidden, 2 * hidden, split))


def _last_kind(_: Config, target: Architecture) -> Layer:
    return target.kinds[target.layers[-1]]


def _after(block: Callable[[Config, Architecture], Layer], default: int = 0) -> Block:
    """Layers that each have a projection of their own (deepseek_mtp.py, glm4_moe_mtp.py, mimo_mtp.py, hy_v3_mtp.py)."""

    def layers(config: Config, target: Architecture) -> tuple[Layer, ...]:
        one = block(config, target)
        tensors = (*one.tensors, *_joined(target.hidden_size))
        return (Layer(tensors=tensors, caches=one.caches),) * _count(config, default=default)

    return layers


def _behind_one(block: Callable[[Config, Architecture], Layer], *keys: str) -> Block:
    """Layers behind one projection (qwen3_next_mtp.py, qwen3_5_mtp.py, exaone_moe_mtp.py)."""

    def layers(config: Config, target: Architecture) -> tuple[Layer, ...]:
        one = block(config, target)
        count = _count(config, *keys, default=1)
        first = Layer(tensors=(*one.tensors, *_joined(target.hidden_size, split=Split.ROWS)), caches=one.caches)
        return (first, *(one,) * (count - 1)) if count else ()

    return layers


def _full_kind(_: Config, target: Architecture) -> Layer:
    """The target's layer of full attention."""
    kinds = (target.kinds[i] for i in reversed(target.layers))
    found = next((k for k in kinds if any(c.kind is CacheKind.FULL for c in k.caches)), None)
    if found is None:
        raise ConfigError("no layer has full attention, as an MTP layer has")
    return found


def _ernie_block(config: Config, target: Architecture) -> Layer:
    """A dense layer, whatever the target's are (ernie_mtp.py: Llama's); two norms before it and none behind."""
    shape, bias = shape_of(config), config.flag("use_bias")
    tensors = (
        *attention(shape.hidden, shape.heads, shape.kv_heads, shape.head_size, qkv_bias=bias, out_bias=bias),
        *mlp(shape.hidden, shape.intermediate, bias=bias),
        *norms(2, shape.hidden),
    )
    return Layer(tensors=tensors, caches=(full(target.kv_heads, target.head_size),))


def _ernie(config: Config, target: Architecture) -> tuple[Layer, ...]:
    one, hidden = _ernie_block(config, target), target.hidden_size
    tensors = (*one.tensors, *norms(2, hidden), plain("mtp_linear_proj", hidden, 2 * hidden))
    return (Layer(tensors=tensors, caches=one.caches),) * _count(config)


def _first_kind(config: Config, target: Architecture) -> Layer:
    """The layer that has the MTP layer's number, 0, in the lists of the config (exaone_moe.py, exaone_moe_mtp.py)."""
    first = target.kinds[target.layers[0]]
    types = config.get("mtp_layer_types")
    if not isinstance(types, list) or not types:
        return first
    window = config.optional("sliding_window") if types[0] in SLIDING else None
    return Layer(tensors=first.tensors, caches=(full(target.kv_heads, target.head_size, window=window),))


def _step35(config: Config, target: Architecture) -> tuple[Layer, ...]:
    """Layers of the kinds that the config's lists give to the numbers after the model's own (step3p5_mtp.py)."""
    count, own = _count(config, default=1), len(target.layers)
    longer = read_step35(Config({**config.values, "num_hidden_layers": own + count}, config.model_type, config.outer))
    after = [longer.kinds[i] for i in longer.layers[own:]]
    return tuple(Layer(tensors=(*k.tensors, *_joined(target.hidden_size)), caches=k.caches) for k in after)


def _longcat(config: Config, target: Architecture) -> tuple[Layer, ...]:
    """One dense layer with one latent attention (longcat_flash_mtp.py)."""
    hidden = target.hidden_size
    tensors = (
        *latent_attention(config, hidden, target.attention_heads),
        *mlp(hidden, config.positive("intermediate_size", "ffn_hidden_size")),
        *norms(5, hidden),
        *linear("eh_proj", hidden, 2 * hidden, Split.WHOLE),
    )
    return (Layer(tensors=tensors, caches=(latent_cache(config),)),)


def _mimo_v2(config: Config, target: Architecture) -> tuple[Layer, ...]:
    """One sliding layer with a dense MLP (mimo_v2_mtp.py: vLLM takes the first of them only)."""
    hidden, width = target.hidden_size, config.positive("intermediate_size")
    heads, kv_heads = config.positive("swa_num_attention_heads"), config.positive("swa_num_key_value_heads")
    size = config.positive("swa_head_dim")
    value = config.optional("swa_v_head_dim") or size
    sinks = (plain("self_attn.sinks", heads, split=Split.ROWS),) if config.flag("add_swa_attention_sink_bias") else ()
    tensors = (
        *attention(hidden, heads, kv_heads, size, qkv_bias=config.flag("attention_bias"), value_size=value),
        *sinks,
        *mlp(hidden, width),
        *norms(5, hidden),
        *linear("eh_proj", hidden, 2 * hidden, Split.WHOLE),
    )
    window = config.optional("sliding_window_size", "sliding_window")
    return (Layer(tensors=tensors, caches=(full(kv_heads, size, value, window),)),)


def _nemotron(config: Config, target: Architecture) -> tuple[Layer, ...]:
    """Blocks by a pattern of their own; projections stand before the first, a norm behind the last."""
    pattern, hidden = config.text("mtp_hybrid_override_pattern"), target.hidden_size
    if not pattern or len(pattern) > _MOST or set(pattern) - set("*E"):
        raise ConfigError("mtp_hybrid_override_pattern is no pattern of * and E")
    own = nemotron_pattern(config)
    kinds = {letter: target.kinds[target.layers[own.index(letter)]] for letter in set(pattern) if letter in own}
    if set(pattern) - set(kinds):
        raise ConfigError("mtp_hybrid_override_pattern has blocks that the model has not")
    layers = [kinds[letter] for letter in pattern]
    start = (*norms(2, hidden), *linear("eh_proj", hidden, 2 * hidden, Split.ROWS))
    layers[0] = Layer(tensors=(*layers[0].tensors, *start), caches=layers[0].caches)
    layers[-1] = Layer(tensors=(*layers[-1].tensors, *norm("final_layernorm", hidden)), caches=layers[-1].caches)
    return tuple(layers)


_MTP: Mapping[str, Block] = {
    "DeepseekV3ForCausalLM": _after(_last_kind),
    "DeepseekV32ForCausalLM": _after(_last_kind),
    "GlmMoeDsaForCausalLM": _after(_last_kind),
    "Glm4MoeForCausalLM": _after(_last_kind),
    "Glm4MoeLiteForCausalLM": _after(_last_kind),
    "PanguUltraMoEForCausalLM": _after(_last_kind),
    "MiMoForCausalLM": _after(_last_kind),
    "HYV3ForCausalLM": _after(_last_kind),
    "Ernie4_5_MoeForCausalLM": _ernie,
    "Qwen3NextForCausalLM": _behind_one(_full_kind),
    "Qwen3_5ForCausalLM": _behind_one(_full_kind, "mtp_num_hidden_layers"),
    "Qwen3_5MoeForCausalLM": _behind_one(_full_kind, "mtp_num_hidden_layers"),
    "Qwen3_5ForConditionalGeneration": _behind_one(_full_kind, "mtp_num_hidden_layers"),
    "Qwen3_5MoeForConditionalGeneration": _behind_one(_full_kind, "mtp_num_hidden_layers"),
    "ExaoneMoeForCausalLM": _behind_one(_first_kind),
    "ExaoneMoEForCausalLM": _behind_one(_first_kind),
    "Step3p5ForCausalLM": _step35,
    "LongcatFlashForCausalLM": _longcat,
    "MiMoV2ForCausalLM": _mimo_v2,
    "MiMoV2FlashForCausalLM": _mimo_v2,
    "NemotronHForCausalLM": _nemotron,
}


def read_eagle(config: Config, target: Architecture) -> Architecture:
    """EAGLE on Llama's layers: the first without its norm, one projection, no norm at the end (llama_eagle.py)."""
    shape = shape_of(config)
    one = _llama_layer(config)
    first = tuple(t for t in one.tensors if t.name != "norm0")
    fc = linear("fc", shape.hidden, 2 * shape.hidden, Split.WHOLE)
    layers = (Layer(tensors=(*first, *fc), caches=one.caches), *(one,) * (shape.layers - 1))
    return _draft(config, target, layers, shape.hidden, ())


def read_eagle_mistral(config: Config, target: Architecture) -> Architecture:
    """EAGLE on Mistral's layers: a norm at the end, and a projection divided by columns (mistral_eagle.py)."""
    shape = shape_of(config)
    one = _llama_layer(config)
    fc = linear("fc", shape.hidden, 2 * shape.hidden, Split.COLUMNS)
    layers = (Layer(tensors=(*one.tensors, *fc), caches=one.caches), *(one,) * (shape.layers - 1))
    return _draft(config, target, layers, shape.hidden, norm("norm", shape.hidden))


def _llama_layer(config: Config, inputs: int | None = None, *, normed: bool = False) -> Layer:
    """A layer of Llama or Qwen3, whose queries, keys and values may read more than the hidden state."""
    shape = shape_of(config)
    bias = config.flag("attention_bias")
    projections = attention(
        inputs or shape.hidden, shape.heads, shape.kv_heads, shape.head_size, qkv_bias=bias, out_rows=shape.hidden
    )
    tensors = (
        *projections,
        *(qk_norms(config, "head", shape) if normed else ()),
        *mlp(shape.hidden, shape.intermediate, bias=config.flag("mlp_bias")),
        *norms(2, shape.hidden),
    )
    return Layer(tensors=tensors, caches=(full(shape.kv_heads, shape.head_size),))


def _draft_vocabulary(config: Config) -> int:
    return config.optional("draft_vocab_size") or config.positive("vocab_size")


def _aux_states(config: Config) -> int:
    """Hidden states of the target that the draft reads: 3 where the config names no layers."""
    found = config.optional("num_aux_hidden_states", "num_aux_layers", largest=_MOST)
    section = config.section("eagle_config")
    listed = section.counts("eagle_aux_hidden_state_layer_ids") if section is not None else ()
    return found or len(listed or config.counts("eagle_aux_hidden_state_layer_ids")) or 3


def _own_head(config: Config, hidden: int, target: Architecture) -> tuple[Tensor, ...]:
    """The draft's lm_head, with a map of words where its vocabulary is another one than the target's."""
    rows = _draft_vocabulary(config)
    words = () if rows == target.vocabulary_size else (plain("draft_id_to_target_id", rows, element_bytes=8),)
    return (*norm("norm", hidden), head(rows, hidden), *words)


def read_eagle3(config: Config, target: Architecture) -> Architecture:
    """EAGLE 3 and P-EAGLE: the first layer reads twice the width (llama_eagle3.py, qwen3_eagle3.py)."""
    shape = shape_of(config)
    normed = config.text("model_type") == "qwen3" and "Qwen3" in _named(config)
    first, later = (_llama_layer(config, n * shape.hidden, normed=normed) for n in (2, 1))
    section = config.section("eagle_config") or config
    fused: Tensors = ()
    if section.flag("use_aux_hidden_state", default=True):
        count = _aux_states(config)
        wide = count * (config.optional("target_hidden_size") or shape.hidden)
        before = norm("input_norm", wide) if section.flag("norm_before_fc") or config.flag("norm_before_fc") else ()
        each = norms(count, wide // count) if config.flag("fc_norm") else ()
        fused = (*before, *each, *linear("fc", shape.hidden, wide, Split.WHOLE))
    own = norm("hidden_norm", shape.hidden)
    layers = (
        Layer(tensors=(*first.tensors, *own, *fused), caches=first.caches),
        *(Layer(tensors=(*later.tensors, *own), caches=later.caches),) * (shape.layers - 1),
    )
    return _draft(config, target, layers, shape.hidden, _own_head(config, shape.hidden, target))


def read_dflash(config: Config, target: Architecture) -> Architecture:
    """DFlash: Qwen3's layers that read all chosen states of the target at once (qwen3_dflash.py)."""
    shape = shape_of(config)
    section = config.section("dflash_config") or config
    one = _llama_layer(config, normed=True)
    states = len(section.counts("target_layer_ids")) or shape.layers
    types = config.words("layer_types", shape.layers)
    slides = types is not None and any(t in SLIDING for t in types)
    every = section.flag("use_swa") and not slides
    window = section.optional("swa_window_size") or config.optional("sliding_window")

    def layer(i: int) -> Layer:
        sliding = every or (slides and types is not None and types[i] in SLIDING)
        return replace(one, caches=(full(shape.kv_heads, shape.head_size, window=window if sliding else None),))

    wide = states * (config.optional("target_hidden_size") or shape.hidden)
    fused = (
        plain("mask_embedding", shape.hidden),
        *linear("fc", shape.hidden, wide, Split.WHOLE),
        *norm("hidden_norm", shape.hidden),
    )
    layers = [layer(i) for i in range(shape.layers)]
    layers[0] = Layer(tensors=(*layers[0].tensors, *fused), caches=layers[0].caches)
    return _draft(config, target, tuple(layers), shape.hidden, _own_head(config, shape.hidden, target))


def read_medusa(config: Config, target: Architecture) -> Architecture:
    """Medusa: blocks of linear layers and a head for each, no attention (medusa.py); nothing is shared."""
    hidden, blocks = config.positive("hidden_size"), config.positive("num_heads", largest=_MOST)
    depth = config.positive("num_hidden_layers", default=1, largest=_MOST)
    bias = config.flag("medusa_fc_bias")
    one = tuple(t for _ in range(depth) for t in linear("blocks", hidden, hidden, Split.WHOLE, bias=bias))
    rows = target.vocabulary_size
    heads = 1 if config.flag("original_lm_head") else blocks
    lm_heads = tuple(replace(head(rows, hidden), name=f"lm_heads.{i}") for i in range(heads))
    found = _draft(config, target, (Layer(tensors=one),) * blocks, hidden, lm_heads)
    return replace(found, first=(), borrows=(), approximations=())


def _named(config: Config) -> str:
    names = config.values.get("architectures")
    return names[0] if isinstance(names, list) and names and isinstance(names[0], str) else ""


Reader = Callable[[Config, Architecture], Architecture]

DRAFTS: Mapping[str, Reader] = {
    "EagleLlamaForCausalLM": read_eagle,
    "EagleMistralForCausalLM": read_eagle_mistral,
    "Eagle3LlamaForCausalLM": read_eagle3,
    "LlamaForCausalLMEagle3": read_eagle3,
    "PEagleDraftModel": read_eagle3,
    "PeagleLlamaForCausalLM": read_eagle3,
    "Eagle3MiniMaxM2ForCausalLM": read_eagle3,
    "Eagle3Qwen2_5vlForCausalLM": read_eagle3,
    "Eagle3Qwen3vlForCausalLM": read_eagle3,
    "Eagle3Qwen3ForCausalLM": read_eagle3,
    "PeagleQwen3ForCausalLM": read_eagle3,
    "DFlashDraftModel": read_dflash,
    "MedusaModel": read_medusa,
}


# The names that vLLM gives to MTP layers; a checkpoint of these alone names them itself.
MTP_LAYERS = frozenset(
    (
        "DeepSeekMTPModel",
        "DeepseekV32MTPModel",
        "ErnieMTPModel",
        "ExaoneMoeMTP",
        "Glm4MoeLiteMTPModel",
        "Glm4MoeMTPModel",
        "HYV3MTPModel",
        "LongCatFlashMTPModel",
        "MiMoMTPModel",
        "MiMoV2MTPModel",
        "NemotronHMTPModel",
        "OpenPanguMTPModel",
        "Qwen3NextMTP",
        "Qwen3_5MTP",
        "Qwen3_5MoeMTP",
    )
)


def draft_name(config: Config, method: str | None) -> str:
    """The architecture of a draft, as vLLM names it (0.32 transformers_utils/configs/eagle.py)."""
    name = _named(config)
    if method == "eagle" and not name.startswith("Eagle"):
        return f"Eagle{name}"
    if method == "eagle3" and not (name.startswith("Eagle3") or name.endswith("Eagle3")):
        return f"Eagle3{name}"
    if method == "dflash" and not (name.startswith("DFlash") or name.endswith("DFlash")):
        return f"DFlash{name}"
    return "MedusaModel" if method == "medusa" else name


def read_draft(config: Config, target: Architecture, method: str | None) -> Architecture | None:
    """The draft of that config; None for a whole model, which is read as any other."""
    reader = DRAFTS.get(draft_name(config, method))
    return None if reader is None else reader(config, target)
