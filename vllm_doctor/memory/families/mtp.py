"""MTP layers: the drafts that a model brings along, made of its own kinds of layers."""

from collections.abc import Callable, Mapping

from msgspec.structs import replace

from vllm_doctor.memory.config_values import LARGEST_EXPERTS, LARGEST_LAYERS, Config, ConfigError
from vllm_doctor.memory.facts import Architecture, CacheKind, Layer, Split
from vllm_doctor.memory.families import deepseek_v4, hyper, kimi
from vllm_doctor.memory.families.decoder import shape_of
from vllm_doctor.memory.families.draft_parts import MOST, drafted, grown
from vllm_doctor.memory.families.hybrid import nemotron_pattern
from vllm_doctor.memory.families.inside import read_qwen4
from vllm_doctor.memory.families.latent import latent_attention, latent_cache
from vllm_doctor.memory.families.lightning import read_ling_25
from vllm_doctor.memory.families.linear_hybrid import read_delta_hybrid, read_ling_3
from vllm_doctor.memory.families.parts import Tensors, attention, full, head, linear, mlp, norm, norms, plain
from vllm_doctor.memory.families.recent import read_step35
from vllm_doctor.memory.families.windows import SLIDING

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
    own = target.name in _OWN_HEADS or target.inside in _OWN_HEADS
    heads = (head(target.vocabulary_size, hidden),) * (len(layers) if own else 1)
    found = drafted(config, target, layers, hidden, heads)
    borrows = ("embedding",) if own else ("embedding", "head")
    return replace(found, quantization=target.quantization, borrows=borrows, approximations=(), exact=target.exact)


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
    return tuple(grown(k, *_joined(target.hidden_size)) for k in after)


def _exaone45(config: Config, target: Architecture) -> tuple[Layer, ...]:
    """Layers of the kinds that the first ones of the model have, behind one projection (exaone4_5_mtp.py)."""
    count = _count(Config(config.outer), default=1)
    if count > len(target.layers):
        raise ConfigError(f"num_nextn_predict_layers is {count}: more than the model has layers")
    if not count:
        return ()
    first, *others = (target.kinds[i] for i in target.layers[:count])
    return (grown(first, *_joined(target.hidden_size, split=Split.ROWS)), *others)


def _minimax_m3(config: Config, target: Architecture) -> tuple[Layer, ...]:
    """Layers with an indexer and experts, whatever the config's lists say (minimax_m3/nvidia/mtp.py)."""
    one = next((k for k in target.kinds if len(k.caches) > 1 and any(".experts." in t.name for t in k.tensors)), None)
    if one is None:
        raise ConfigError("no layer has both experts and an indexer, as an MTP layer has")
    hidden = target.hidden_size
    more = (*norms(3, hidden), *linear("eh_proj", hidden, 2 * hidden, Split.WHOLE))
    return (grown(one, *more),) * _count(config, "num_mtp_modules", default=1)


def _hunyuan_v4(config: Config, target: Architecture) -> tuple[Layer, ...]:
    """Layers as the last one is, with an indexer of their own and one residual (hy_v4/nvidia/mtp.py)."""
    return (grown(hyper.mtp_layer(config), *_joined(target.hidden_size)),) * max(1, _count(config, default=1))


def _deepseek_v4(config: Config, _: Architecture) -> tuple[Layer, ...]:
    """Layers that look at a window alone (deepseek_v4/nvidia/mtp.py)."""
    return (deepseek_v4.mtp_layer(config),) * _count(config)


def _kimi_k3(config: Config, target: Architecture) -> tuple[Layer, ...]:
    """Layers of latent attention with experts, and one residual (kimi_k3/nvidia/mtp.py)."""
    return (grown(kimi.mtp_layer(config), *_joined(target.hidden_size)),) * _count(config)


def _qwen4(config: Config, target: Architecture) -> tuple[Layer, ...]:
    """Layers of full attention between hyper-connections, a mixer behind the last (qwen4_exp/nvidia/mtp.py)."""
    count, hidden = _count(config, "mtp_num_hidden_layers", default=1), target.hidden_size
    values = {**config.values, "num_hidden_layers": count, "layer_types": ["full_attention"] * count}
    base = read_qwen4(Config(values, config.model_type, config.outer)) if count else None
    if base is None:
        return ()
    first, *others = (base.kinds[i] for i in base.layers)
    joins = tuple(t for name in ("fc_embedding", "fc_hidden") for t in linear(name, hidden, hidden, Split.ROWS))
    norms_ = (*norm("pre_fc_norm_embedding", hidden), *norm("pre_fc_norm_hidden", hidden * config.positive("hc_count")))
    return (grown(first, *joins, *norms_), *others)


def _ling(read: Callable[[Config], Architecture], split: Split | None) -> Block:
    """Layers of latent attention with experts (bailing_moe_mtp.py, bailing_moe_v3_mtp.py)."""

    def layers(config: Config, target: Architecture) -> tuple[Layer, ...]:
        # Of the layers that are left over after the last group, all have latent attention.
        values = {**config.values, "layer_group_size": 1, "first_k_dense_replace": 0}
        base = read(Config(values, config.model_type, config.outer))
        more = _joined(target.hidden_size, split=split)
        return (grown(base.kinds[base.layers[-1]], *more),) * _count(config)

    return layers


def _mobius_block(config: Config, _: Architecture) -> Layer:
    """Qwen3.5's layer with experts of a number of their own (interns2_mobius.py InternS2MobiusMTP)."""
    values = {**config.values, "num_experts": config.positive("mtp_num_experts", largest=LARGEST_EXPERTS)}
    return _full_kind(config, read_delta_hybrid(Config(values, config.model_type, config.outer)))


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
    if not pattern or len(pattern) > MOST or set(pattern) - set("*E"):
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
    "DeepseekV4ForCausalLM": _deepseek_v4,
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
    "GlmOcrForConditionalGeneration": _after(_last_kind),
    "Exaone4_5_ForConditionalGeneration": _exaone45,
    "MiniMaxM3SparseForCausalLM": _minimax_m3,
    "HYV4ForCausalLM": _hunyuan_v4,
    "Qwen4ExpForCausalLM": _qwen4,
    "BailingMoeV2_5ForCausalLM": _ling(read_ling_25, None),
    "BailingMoeV3ForCausalLM": _ling(read_ling_3, Split.WHOLE),
    "KimiK3ForConditionalGeneration": _kimi_k3,
    "InternS2MobiusModel": _behind_one(_mobius_block, "mtp_num_hidden_layers"),
    "LongcatFlashForCausalLM": _longcat,
    "MiMoV2ForCausalLM": _mimo_v2,
    "MiMoV2FlashForCausalLM": _mimo_v2,
    "NemotronHForCausalLM": _nemotron,
}

# Each of these MTP layers has an lm_head of its own (step3p5_mtp.py has_own_lm_head).
_OWN_HEADS = frozenset(("Step3p5ForCausalLM",))

# The names that vLLM gives to MTP layers; a checkpoint of these alone names them itself.
MTP_LAYERS = frozenset(
    (
        "BailingMoeV25MTPModel",
        "BailingMoeV3MTPModel",
        "DeepSeekMTPModel",
        "DeepSeekV4MTPModel",
        "DeepseekV32MTPModel",
        "ErnieMTPModel",
        "Exaone4_5_MTP",
        "ExaoneMoeMTP",
        "Glm4MoeLiteMTPModel",
        "Glm4MoeMTPModel",
        "GlmOcrMTPModel",
        "HYV3MTPModel",
        "HYV4MTPModel",
        "InternS2MobiusMTP",
        "KimiK3MTPModel",
        "LongCatFlashMTPModel",
        "MiMoMTPModel",
        "MiMoV2MTPModel",
        "MiMoV2OmniMTPModel",
        "MiniMaxM3MTP",
        "NemotronHMTPModel",
        "OpenPanguMTPModel",
        "Qwen3NextMTP",
        "Qwen3_5MTP",
        "Qwen3_5MoeMTP",
        "Qwen4ExpMTP",
        "Step3p5MTP",
    )
)
