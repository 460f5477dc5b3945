"""Architectures of 2025 and 2026 with layers of their own: Step-3, Hunyuan V3, HRM-Text, PLaMo 3, Sarvam, loops."""

from msgspec.structs import replace

from vllm_doctor.memory.config_values import LARGEST_EXPERTS, LARGEST_LAYERS, Config, ConfigError
from vllm_doctor.memory.facts import Architecture, Layer, Split
from vllm_doctor.memory.families import experts as moe
from vllm_doctor.memory.families.decoder import read_decoder
from vllm_doctor.memory.families.hybrid import built, depth
from vllm_doctor.memory.families.latent import read_latent
from vllm_doctor.memory.families.parts import (
    Tensors,
    attention,
    embedding,
    full,
    linear,
    mlp,
    norm,
    norms,
    plain,
    router,
)
from vllm_doctor.memory.families.styles import STYLES

# As many characters as all layers' numbers with commas take.
_LONGEST_LIST = LARGEST_LAYERS * 5


def read_step3(config: Config) -> Architecture:
    """Step-3: queries from a shared low rank, one key-value head, both whole on every rank (step3_text.py)."""
    hidden, layers = config.positive("hidden_size"), depth(config)
    heads, size = config.positive("num_attention_heads"), config.positive("head_dim")
    shared = config.optional("share_q_dim") or size
    width = config.positive("intermediate_size")
    found = _step_experts(config, layers)._replace(router_bytes=None, corrected=False)
    attending: Tensors = (
        *linear("self_attn.qkv_proj", shared + 2 * size, hidden, Split.WHOLE),
        *norm("self_attn.inter_norm", shared),
        *linear("self_attn.wq", heads * size, shared, Split.ROWS),
        *linear("self_attn.o_proj", hidden, heads * size, Split.COLUMNS),
        *norms(2, hidden),
    )
    dense = Layer(tensors=(*attending, *mlp(hidden, width)), caches=(full(1, size),))
    sparse = Layer(tensors=(*attending, *found.tensors(hidden)), caches=(full(1, size),))
    chosen = [sparse if i in found.layers else dense for i in range(layers)]
    return built(
        config,
        chosen,
        hidden,
        heads=heads,
        kv_heads=1,
        head_size=size,
        found=found,
        intermediate=width,
        tied=config.flag("tie_word_embeddings"),
    )


def _step_experts(config: Config, layers: int) -> moe.Experts:
    """Experts in the layers of `moe_layers_enum`, an expert for all tokens beside them, an fp32 router with a bias."""
    return moe.Experts(
        config.positive("moe_num_experts", largest=LARGEST_EXPERTS),
        config.positive("moe_top_k", largest=LARGEST_EXPERTS),
        config.positive("moe_intermediate_size"),
        _step_layers(config, layers),
        shared=config.positive("share_expert_dim"),
        corrected=True,
        router_bytes=4,
    )


def _step_layers(config: Config, layers: int) -> frozenset[int]:
    """The layers with experts: a text of numbers and commas, all but the first where there is none."""
    text = config.get("moe_layers_enum")
    if text is None and config.model_type != "step3_text":
        return frozenset(range(1, layers))
    if not isinstance(text, str) or len(text) > _LONGEST_LIST:
        raise ConfigError("moe_layers_enum is not a list of layers as text")
    numbers = [n.strip() for n in text.strip().split(",")]
    if not all(n.isascii() and n.isdecimal() and len(n) < 6 for n in numbers):
        raise ConfigError("moe_layers_enum is not a list of layers as text")
    return frozenset(int(n) for n in numbers) & frozenset(range(layers))


def read_step35(config: Config) -> Architecture:
    """Step-3.5: windows with more heads of their own, a gate for every head (step3p5.py)."""
    if config.text("att_impl_type") not in (None, "GQA"):
        raise ConfigError("att_impl_type is not GQA, which vLLM refuses")
    hidden, layers = config.positive("hidden_size"), depth(config)
    found, width = _step_experts(config, layers), config.positive("intermediate_size")
    types = config.words("layer_types", layers)
    other, window = config.section("attention_other_setting"), config.optional("sliding_window")

    def layer(i: int) -> Layer:
        special = other if other is not None and types and other.text("attention_type") == types[i] else None
        source = special or config
        heads, kv_heads = source.positive("num_attention_heads"), source.positive("num_attention_groups")
        size = source.optional("head_dim") or config.optional("head_dim") or hidden // heads
        slides = types[i] == "sliding_attention" if types else i % 2 == 0
        gate = linear("self_attn.g_proj", heads, hidden, Split.ROWS)
        return Layer(
            tensors=(
                *attention(hidden, heads, kv_heads, size, qkv_bias=config.flag("attention_bias")),
                *norm("self_attn.q_norm", size),
                *norm("self_attn.k_norm", size),
                *(gate if config.flag("use_head_wise_attn_gate") else ()),
                *(found.tensors(hidden) if i in found.layers else mlp(hidden, width)),
                *norms(2, hidden),
            ),
            caches=(full(kv_heads, size, window=window if slides and window else None),),
        )

    heads = config.positive("num_attention_heads")
    return built(
        config,
        [layer(i) for i in range(layers)],
        hidden,
        heads=heads,
        kv_heads=config.positive("num_attention_groups"),
        head_size=config.optional("head_dim") or hidden // heads,
        found=found,
        intermediate=width,
    )


def read_hunyuan_v3(config: Config) -> Architecture:
    """Hunyuan V3: the first layers dense, then experts with an fp32 router and its bias (hy_v3.py)."""
    hidden, layers = config.positive("hidden_size"), depth(config)
    heads, kv_heads = config.positive("num_attention_heads"), config.positive("num_key_value_heads")
    size = config.optional("head_dim") or hidden // heads
    width, expert = config.positive("intermediate_size"), config.positive("expert_hidden_dim", "moe_intermediate_size")
    found = moe.Experts(
        config.positive("num_experts", largest=LARGEST_EXPERTS),
        config.positive("num_experts_per_tok", largest=LARGEST_EXPERTS),
        expert,
        frozenset(range(config.count("first_k_dense_replace"), layers)),
        shared=config.count("num_shared_experts") * expert,
        corrected=True,
        router_bytes=4,
    )
    attending: Tensors = (
        *attention(hidden, heads, kv_heads, size),
        *((*norm("self_attn.q_norm", size), *norm("self_attn.k_norm", size)) if config.flag("qk_norm") else ()),
        *norms(2, hidden),
    )
    cache = (full(kv_heads, size),)
    dense = Layer(tensors=(*attending, *mlp(hidden, width)), caches=cache)
    sparse = Layer(tensors=(*attending, *found.tensors(hidden)), caches=cache)
    chosen = [sparse if i in found.layers else dense for i in range(layers)]
    return built(
        config, chosen, hidden, heads=heads, kv_heads=kv_heads, head_size=size, found=found, intermediate=width
    )


def read_hrm(config: Config) -> Architecture:
    """HRM-Text: two stacks, run again and again; every run of a layer keeps a cache of its own (hrm_text.py)."""
    hidden, heads = config.positive("hidden_size"), config.positive("num_attention_heads")
    size = config.optional("head_dim") or hidden // heads
    width, stack = config.positive("intermediate_size"), config.positive("num_layers_per_stack", largest=LARGEST_LAYERS)
    high, low = config.positive("H_cycles", largest=64), config.positive("L_cycles", largest=64)
    bias = config.flag("attention_bias")
    tensors: Tensors = (
        *linear("self_attn.gqkv_proj", 4 * heads * size, hidden, Split.ROWS, bias=bias),
        *linear("self_attn.o_proj", hidden, heads * size, Split.COLUMNS, bias=bias),
        *mlp(hidden, width, bias=config.flag("mlp_bias")),
    )
    inner = Layer(tensors=tensors, caches=(full(heads, size),) * (high * low))
    outer = Layer(tensors=tensors, caches=(full(heads, size),) * high)
    base = built(
        config,
        [inner] * stack + [outer] * stack,
        hidden,
        heads=heads,
        kv_heads=heads,
        head_size=size,
        intermediate=width,
    )
    first = (embedding(base.vocabulary_size, hidden), plain("model.z_L_init", hidden))
    return replace(base, first=first, last=tuple(t for t in base.last if t.name != "model.norm"))


def read_loop_coder(config: Config) -> Architecture:
    """IQuest-Coder with loops: after the first run of a layer, the others keep a window only (iquest_loopcoder.py)."""
    hidden, heads = config.positive("hidden_size"), config.positive("num_attention_heads")
    kv_heads, width = config.positive("num_key_value_heads"), config.positive("intermediate_size")
    size = hidden // heads
    window = config.positive("loop_window_size", default=64)
    again = config.positive("loop_num", default=2, largest=64) - 1
    layer = Layer(
        tensors=(
            *attention(hidden, heads, kv_heads, size),
            *linear("gate_proj", heads, size, Split.ROWS, bias=True),
            *mlp(hidden, width),
            *norms(2, hidden),
        ),
        caches=(full(kv_heads, size), *(full(kv_heads, size, window=window),) * again),
    )
    return built(
        config, [layer] * depth(config), hidden, heads=heads, kv_heads=kv_heads, head_size=size, intermediate=width
    )


def read_plamo3(config: Config) -> Architecture:
    """PLaMo 3: four norms, and a window for each layer, which the config writes out (plamo3.py)."""
    hidden, heads, layers = config.positive("hidden_size"), config.positive("num_attention_heads"), depth(config)
    kv_heads, size = config.positive("num_key_value_heads"), config.positive("head_dim")
    width, windows = config.positive("intermediate_size"), config.get("interleaved_sliding_window")
    if not isinstance(windows, list) or len(windows) < layers:
        raise ConfigError("interleaved_sliding_window is no list with the window of every layer")
    tensors: Tensors = (
        *attention(hidden, heads, kv_heads, size),
        *norm("self_attn.q_norm", size),
        *norm("self_attn.k_norm", size),
        *mlp(hidden, width),
        *norms(4, hidden),
    )
    sizes = [None if w is None else Config({"window": w}).positive("window") for w in windows[:layers]]
    chosen = [Layer(tensors=tensors, caches=(full(kv_heads, size, window=w),)) for w in sizes]
    return built(config, chosen, hidden, heads=heads, kv_heads=kv_heads, head_size=size, intermediate=width)


def read_arctic(config: Config) -> Architecture:
    """Arctic: beside the experts a dense MLP as wide as the hidden state (arctic.py, to 0.27)."""
    base = read_decoder(config, STYLES["MixtralForCausalLM"])
    hidden, width = base.hidden_size, config.positive("intermediate_size")
    found = moe.every_layer(config, len(base.layers))
    step = config.positive("moe_layer_frequency", default=2)
    extra = (*mlp(hidden, hidden, prefix="residual_mlp."), *norm("residual_layernorm", hidden))
    residual = extra if config.flag("use_residual", default=True) else ()

    def layer(i: int) -> Layer:
        kind = base.kinds[base.layers[i]]
        mixers = tuple(t for t in kind.tensors if not t.name.startswith("mlp."))
        if found is not None and (i + 1) % step == 0:
            return Layer(tensors=(*mixers, *found.tensors(hidden), *residual), caches=kind.caches)
        return Layer(tensors=(*mixers, *mlp(hidden, width)), caches=kind.caches)

    return built(
        config,
        [layer(i) for i in range(len(base.layers))],
        hidden,
        heads=base.attention_heads,
        kv_heads=base.kv_heads,
        head_size=base.head_size,
        found=found,
        intermediate=hidden,
    )


def read_k2_horizon(config: Config) -> Architecture:
    """K2 Horizon: gated attention, in sparse layers with experts for the values too (k2_horizon.py)."""
    hidden, layers = config.positive("hidden_size"), depth(config)
    heads, kv_heads = config.positive("num_attention_heads"), config.positive("num_key_value_heads")
    size, width = config.optional("head_dim") or hidden // heads, config.positive("intermediate_size")
    found = _horizon_experts(config, layers)
    values = config.count("mova_num_experts", default=0, largest=LARGEST_EXPERTS)
    bias = config.flag("attention_bias")
    plain_attention = attention(hidden, heads, kv_heads, size, qkv_bias=bias, out_bias=bias)
    mixed = (
        *(t for t in plain_attention if ".v_proj" not in t.name),
        *router(hidden, values, name="self_attn.v_router"),
        *((plain("self_attn.v_router.bias", values, element_bytes=4),) if config.flag("moe_gate_bias") else ()),
        *linear("self_attn.v_experts", kv_heads * size, hidden, Split.ROWS) * values,
    )
    both: Tensors = (
        *(_horizon_norms(heads, kv_heads, size) if config.flag("query_key_norm") else ()),
        *(
            linear("self_attn.gate_proj", heads * size, hidden, Split.ROWS)
            if config.text("attention_gate_func")
            else ()
        ),
        *norms(2, hidden),
    )
    cache = (full(kv_heads, size),)

    def layer(i: int) -> Layer:
        sparse = found is not None and i in found.layers
        attending = mixed if sparse and values else plain_attention
        feed = found.tensors(hidden) if found is not None and sparse else mlp(hidden, width)
        return Layer(tensors=(*attending, *both, *feed), caches=cache)

    chosen = [layer(i) for i in range(layers)]
    return built(
        config, chosen, hidden, heads=heads, kv_heads=kv_heads, head_size=size, found=found, intermediate=width
    )


def _horizon_norms(heads: int, kv_heads: int, size: int) -> Tensors:
    return (
        plain("self_attn.q_norm", heads * size, split=Split.ROWS),
        plain("self_attn.k_norm", kv_heads * size, split=Split.HEADS, heads=kv_heads),
    )


def _horizon_experts(config: Config, layers: int) -> moe.Experts | None:
    found = moe.qwen(config, layers)
    if found is None:
        return None
    shared = config.count("num_shared_experts", default=0) * found.width
    return found._replace(shared=shared, shared_gate=False, corrected=config.flag("moe_gate_bias"))


def read_sarvam_latent(config: Config) -> Architecture:
    """Sarvam with latent attention: DeepSeek's layers with numbers of other names (sarvam.py)."""
    return read_latent(config, _sarvam)


def _sarvam(config: Config, layers: int) -> moe.Experts | None:
    first, step = config.count("first_k_dense_replace", default=1), config.positive("moe_layer_freq", default=1)
    width = config.positive("moe_intermediate_size")
    shared = config.count("num_shared_experts", default=1)
    return moe.Experts(
        config.positive("num_experts", largest=LARGEST_EXPERTS),
        config.positive("num_experts_per_tok", largest=LARGEST_EXPERTS),
        width,
        frozenset(range(first, layers, step)),
        shared=shared * config.positive("moe_shared_expert_intermediate_size", default=width),
        corrected=config.flag("moe_router_enable_expert_bias", default=True),
    )
