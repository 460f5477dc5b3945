"""Architectures that differ from all others: OPT, DBRX, Falcon, MPT, Gemma 3n and 4, MiMo-V2, A.X-K1."""

from msgspec.structs import replace

from vllm_doctor.memory.config_values import LARGEST_EXPERTS, LARGEST_LAYERS, Config, ConfigError
from vllm_doctor.memory.elements import element_bytes
from vllm_doctor.memory.facts import Architecture, Cache, Layer, Split, Tensor
from vllm_doctor.memory.families import experts as moe
from vllm_doctor.memory.families.decoder import read_decoder, shape_of
from vllm_doctor.memory.families.hybrid import built, depth
from vllm_doctor.memory.families.latent import read_latent
from vllm_doctor.memory.families.parts import (
    Tensors,
    attention,
    embedding,
    experts,
    full,
    linear,
    mlp,
    norm,
    norms,
    plain,
    router,
)
from vllm_doctor.memory.families.styles import STYLES, Style
from vllm_doctor.memory.families.windows import SLIDING, layer_types

# Far more parallel streams than any Gemma 3n has.
_MOST_INPUTS = 64
_GPT = Style(qkv_bias=True, out_bias=True, mlp_bias=True, gated=False, norm_bias=True)


def read_opt(config: Config) -> Architecture:
    """OPT: learned positions with two rows more; narrow embeddings are projected (opt.py)."""
    bias = config.flag("enable_bias", default=True)
    style = _GPT._replace(qkv_bias=bias, out_bias=bias, mlp_bias=bias, tied=True)
    base = read_decoder(config, style)
    hidden = base.hidden_size
    narrow = config.positive("word_embed_proj_dim", default=hidden)
    if not config.has("word_embed_proj_dim"):
        narrow = hidden
    first: Tensors = (
        embedding(base.vocabulary_size, narrow),
        plain("model.embed_positions", config.positive("max_position_embeddings") + 2, hidden),
    )
    last: Tensors = ()
    if config.flag("do_layer_norm_before", default=True) and not config.flag("_remove_final_layer_norm"):
        last = norm("model.final_layer_norm", hidden, bias=True)
    if narrow != hidden:
        first = (*first, *linear("model.project_in", hidden, narrow, Split.WHOLE))
        last = (*last, *linear("model.project_out", narrow, hidden, Split.WHOLE))
    return replace(base, first=first, last=last, tied_embeddings=True)


def read_dbrx(config: Config) -> Architecture:
    """DBRX: its numbers stand in attn_config and ffn_config (dbrx.py)."""
    attn, ffn = config.section("attn_config"), config.section("ffn_config")
    if attn is None or ffn is None:
        raise ConfigError("attn_config or ffn_config is missing")
    hidden, heads = config.positive("d_model"), config.positive("n_heads")
    kv_heads = attn.positive("kv_n_heads")
    layers = config.positive("n_layers", largest=2048)
    found = moe.Experts(
        ffn.positive("moe_num_experts", largest=LARGEST_EXPERTS),
        ffn.positive("moe_top_k"),
        ffn.positive("ffn_hidden_size"),
        frozenset(range(layers)),
    )
    size = hidden // heads
    layer = Layer(
        tensors=(*attention(hidden, heads, kv_heads, size), *found.tensors(hidden), *norms(2, hidden)),
        caches=(full(kv_heads, size),),
    )
    return built(
        config,
        [layer] * layers,
        hidden,
        heads=heads,
        kv_heads=kv_heads,
        head_size=size,
        found=found,
        tied=config.flag("tie_word_embeddings"),
    )


def read_falcon(config: Config) -> Architecture:
    """Falcon: one or two norms, and with the new architecture key-value heads of its own (falcon.py)."""
    bias = config.flag("bias")
    if config.flag("new_decoder_architecture"):
        sides = config.optional("num_ln_in_parallel_attn") or 2
    else:
        sides = 1 if config.flag("parallel_attn", default=True) else 2
    style = _GPT._replace(qkv_bias=bias, out_bias=bias, mlp_bias=bias, sides=sides)
    base = read_decoder(config, style)
    if config.flag("alibi"):
        return base
    # 0.32 falcon.py gives the attention of its rotary models no cache_config: --kv-cache-dtype does not reach it.
    kinds = tuple(
        Layer(tensors=k.tensors, caches=tuple(replace(c, own_element_bytes=2) for c in k.caches)) for k in base.kinds
    )
    return replace(base, kinds=kinds)


def read_mpt(config: Config) -> Architecture:
    """MPT: ALiBi, no biases unless no_bias is false (mpt.py, to 0.2x)."""
    hidden, heads = config.positive("d_model"), config.positive("n_heads")
    attn = config.section("attn_config")
    kv_heads = (attn.optional("kv_n_heads") if attn is not None else None) or heads
    bias = not config.flag("no_bias", default=True)
    width = int(config.number("expansion_ratio", 4.0) * hidden)
    size = hidden // heads
    layer = Layer(
        tensors=(
            *attention(hidden, heads, kv_heads, size, qkv_bias=bias, out_bias=bias),
            *mlp(hidden, width, gated=False, bias=bias),
            *norms(2, hidden, bias=bias),
        ),
        caches=(full(kv_heads, size),),
    )
    return built(
        config,
        [layer] * config.positive("n_layers", largest=2048),
        hidden,
        heads=heads,
        kv_heads=kv_heads,
        head_size=size,
        intermediate=width,
        tied=True,
    )


def read_axk1(config: Config) -> Architecture:
    """A.X-K1: DeepSeek's layers with a norm after the MLP (AXK1.py)."""
    base = read_latent(config, moe.corrected)
    kinds = tuple(
        Layer(tensors=(*k.tensors, *norm("post_mlp_layernorm", base.hidden_size)), caches=k.caches) for k in base.kinds
    )
    return replace(base, kinds=kinds)


def read_laguna(config: Config) -> Architecture:
    """Laguna: gated attention outputs, one dense layer, then corrected experts with a shared one (laguna.py)."""
    base = read_decoder(config, STYLES["Qwen3ForCausalLM"]._replace(per_layer_window=True))
    shape = shape_of(config)
    types = config.words("mlp_layer_types", shape.layers)
    dense = {i for i, t in enumerate(types) if t == "dense"} if types else set(config.counts("mlp_only_layers")) or {0}
    width = config.positive("moe_intermediate_size")
    found = moe.Experts(
        moe.count_of(config),
        moe.per_token_of(config),
        width,
        frozenset(range(shape.layers)) - dense,
        shared=config.count("shared_expert_intermediate_size", default=0),
        corrected=True,
    )
    gate = linear("self_attn.g_proj", shape.heads, shape.hidden, Split.ROWS) if config.flag("gating") else ()

    def layer(i: int) -> Layer:
        kind = base.kinds[base.layers[i]]
        mixers = tuple(t for t in kind.tensors if not t.name.startswith("mlp."))
        feed = found.tensors(shape.hidden) if i in found.layers else mlp(shape.hidden, shape.intermediate)
        return Layer(tensors=(*mixers, *gate, *feed), caches=kind.caches)

    return built(
        config,
        [layer(i) for i in range(shape.layers)],
        shape.hidden,
        heads=shape.heads,
        kv_heads=shape.kv_heads,
        head_size=shape.head_size,
        found=found,
        intermediate=shape.intermediate,
    )


def read_gemma4(config: Config) -> Architecture:
    """Gemma 4: wider heads in the full layers, inputs per layer, shared caches, experts in some (gemma4.py)."""
    layers, hidden, heads = depth(config), config.positive("hidden_size"), config.positive("num_attention_heads")
    size, kv_heads = config.positive("head_dim"), config.positive("num_key_value_heads")
    wide = config.optional("global_head_dim") or 2 * size
    same = config.flag("attention_k_eq_v")
    wide_heads = (config.optional("num_global_key_value_heads") if same else None) or kv_heads
    shared_from = layers - min(layers, config.count("num_kv_shared_layers", default=0))
    types = layer_types(config, layers) or ("full_attention",) * layers
    width, window = config.positive("intermediate_size"), config.positive("sliding_window")
    per_layer = config.count("hidden_size_per_layer_input", default=0)
    count = moe.count_of(config)
    routed: Tensors = ()
    if count:
        expert_width = config.positive("moe_intermediate_size", "expert_intermediate_size")
        routed = (
            *router(hidden, count),
            *experts(hidden, expert_width, count),
            *norms(3, hidden),
            plain("router.scale", hidden),
            plain("router.per_expert_scale", count),
        )

    def layer(i: int) -> Layer:
        sliding = types[i] in SLIDING
        own = i < shared_from
        one_size, one_heads = (size, kv_heads) if sliding else (wide, wide_heads)
        projections = attention(hidden, heads, one_heads, one_size)
        if not own:
            projections = tuple(t for t in projections if not t.name.endswith(("k_proj", "v_proj")))
        doubled = 2 if not own and config.flag("use_double_wide_mlp") else 1
        return Layer(
            tensors=(
                *projections,
                *norm("self_attn.q_norm", one_size),
                *(norm("self_attn.k_norm", one_size) if own else ()),
                *mlp(hidden, width * doubled),
                *routed,
                *norms(4, hidden),
                *(_per_layer_input(hidden, per_layer) if per_layer else ()),
            ),
            caches=(full(one_heads, one_size, window=window if sliding else None),) if own else (),
        )

    base = built(
        config,
        [layer(i) for i in range(layers)],
        hidden,
        heads=heads,
        kv_heads=kv_heads,
        head_size=size,
        intermediate=width,
        tied=True,
    )
    base = replace(
        base,
        experts=count,
        experts_per_token=moe.per_token_of(config) if count else 0,
        expert_intermediate=config.count("moe_intermediate_size", default=0),
    )
    return replace(base, first=(*base.first, *_per_layer_tables(config, layers, hidden, per_layer)))


def _per_layer_input(hidden: int, size: int) -> Tensors:
    return (
        *linear("per_layer_input_gate", size, hidden, Split.WHOLE),
        *linear("per_layer_projection", hidden, size, Split.WHOLE),
        *norm("post_per_layer_input_norm", hidden),
    )


def _per_layer_tables(config: Config, layers: int, hidden: int, size: int) -> tuple[Tensor, ...]:
    if not size:
        return ()
    rows = config.positive("vocab_size_per_layer_input")
    return (
        embedding(rows, layers * size, "model.embed_tokens_per_layer"),
        *linear("model.per_layer_model_projection", layers * size, hidden, Split.ROWS),
        *norm("model.per_layer_projection_norm", size),
    )


def read_gemma3n(config: Config) -> Architecture:
    """Gemma 3n: AltUp, LAuReL, inputs per layer, and layers that share the cache of others (gemma3n.py)."""
    layers, hidden, heads = depth(config), config.positive("hidden_size"), config.positive("num_attention_heads")
    size, kv_heads = config.positive("head_dim"), config.positive("num_key_value_heads")
    shared_from = layers - min(layers, config.count("num_kv_shared_layers", default=0))
    types = layer_types(config, layers) or ("full_attention",) * layers
    widths = config.get("intermediate_size")
    width = (
        max(config.counts("intermediate_size")) if isinstance(widths, list) else config.positive("intermediate_size")
    )
    window, inputs = config.positive("sliding_window"), config.positive("altup_num_inputs", largest=_MOST_INPUTS)
    per_layer, rank = config.positive("hidden_size_per_layer_input"), config.positive("laurel_rank")
    altup: Tensors = (
        plain("altup.correct_output_scale", hidden, element_bytes=4),
        *linear("altup.correction_coefs", inputs, inputs, Split.WHOLE),
        *linear("altup.prediction_coefs", inputs * inputs, inputs, Split.WHOLE),
        *linear("altup.modality_router", inputs, hidden, Split.WHOLE),
        *norm("altup.router_norm", hidden),
        *linear("laurel.linear_left", rank, hidden, Split.ROWS),
        *linear("laurel.linear_right", hidden, rank, Split.COLUMNS),
        *norm("laurel.post_laurel_norm", hidden),
    )

    attending = (
        *attention(hidden, heads, kv_heads, size),
        *norm("self_attn.q_norm", size),
        *norm("self_attn.k_norm", size),
    )
    sharing = tuple(t for t in attending if not t.name.endswith(("k_proj", "v_proj", "k_norm")))

    def layer(i: int) -> Layer:
        sliding = types[i] in SLIDING
        return Layer(
            tensors=(
                *(attending if i < shared_from else sharing),
                *mlp(hidden, width),
                *norms(4, hidden),
                *altup,
                *_per_layer_input(hidden, per_layer),
            ),
            caches=(full(kv_heads, size, window=window if sliding else None),) if i < shared_from else (),
        )

    base = built(
        config,
        [layer(i) for i in range(layers)],
        hidden,
        heads=heads,
        kv_heads=kv_heads,
        head_size=size,
        intermediate=width,
        tied=True,
    )
    joins: Tensors = tuple(
        t for n in range(2 * (inputs - 1)) for t in linear(f"model.altup_projection{n}", hidden, hidden, Split.ROWS)
    )
    return replace(base, first=(*base.first, *joins, *_per_layer_tables(config, layers, hidden, per_layer)))


def read_mimo_v2(config: Config) -> Architecture:
    """MiMo-V2: sliding layers with heads of their own, values narrower than keys (mimo_v2.py)."""
    layers, hidden = depth(config), config.positive("hidden_size")
    pattern = config.counts("hybrid_layer_pattern", layers)
    if not pattern:
        raise ConfigError("hybrid_layer_pattern is missing")
    found = moe.corrected(config, layers)
    if found is None:
        raise ConfigError("n_routed_experts is missing")
    found = found._replace(router_bytes=element_bytes(config.text("moe_router_dtype") or "float32"))
    width, window = config.positive("intermediate_size"), config.optional("sliding_window_size", "sliding_window")

    def layer(i: int) -> Layer:
        prefix = "swa_" if pattern[i] == 1 else ""
        heads = config.positive(f"{prefix}num_attention_heads", "num_attention_heads")
        kv_heads = config.positive(f"{prefix}num_key_value_heads", "num_key_value_heads")
        size = config.positive(f"{prefix}head_dim", "head_dim")
        value = config.optional(f"{prefix}v_head_dim", "v_head_dim") or size
        sinks = prefix != "" and config.flag("add_swa_attention_sink_bias")
        return Layer(
            tensors=(
                *attention(hidden, heads, kv_heads, size, qkv_bias=config.flag("attention_bias"), value_size=value),
                *((plain("self_attn.sinks", heads, split=Split.ROWS),) if sinks else ()),
                *(found.tensors(hidden) if i in found.layers else mlp(hidden, width)),
                *norms(2, hidden),
            ),
            caches=(full(kv_heads, size, value, window if prefix else None),),
        )

    return built(
        config,
        [layer(i) for i in range(layers)],
        hidden,
        heads=config.positive("num_attention_heads"),
        kv_heads=config.positive("num_key_value_heads"),
        head_size=config.positive("head_dim"),
        found=found,
        intermediate=width,
    )


def read_deci(config: Config) -> Architecture:
    """Nemotron-NAS (Llama-3.3-Nemotron-Super): layers of several widths, some without attention (nemotron_nas.py)."""
    blocks = config.values.get("block_configs")
    if not isinstance(blocks, list) or not blocks or len(blocks) > LARGEST_LAYERS:
        raise ConfigError("block_configs is no list of layers")
    hidden, heads = config.positive("hidden_size"), config.positive("num_attention_heads")
    size = config.optional("head_dim") or hidden // heads
    layers = [_deci_layer(Config(b) if isinstance(b, dict) else Config({}), hidden, heads, size) for b in blocks]
    widths = [t.rows for layer in layers for t in layer.tensors if t.name == "mlp.up_proj"]
    kv_heads = [c.kv_heads for layer in layers for c in layer.caches]
    return built(
        config,
        layers,
        hidden,
        heads=heads,
        kv_heads=max(kv_heads, default=0),
        head_size=size,
        intermediate=max(widths, default=0),
    )


def _deci_layer(block: Config, hidden: int, heads: int, size: int) -> Layer:
    attn, ffn = block.section("attention"), block.section("ffn")
    tensors: Tensors = ()
    caches: tuple[Cache, ...] = ()
    if attn is not None and not attn.flag("no_op"):
        kv_heads = max(1, heads // attn.positive("n_heads_in_group", default=1))
        tensors = (*attention(hidden, heads, kv_heads, size), *norm("input_layernorm", hidden))
        caches = (full(kv_heads, size),)
    if ffn is not None and not ffn.flag("no_op"):
        width = ffn.optional("intermediate_size") or _rounded(int(2 * ffn.number("ffn_mult", 0.0) * hidden / 3))
        tensors = (*tensors, *mlp(hidden, width), *norm("post_attention_layernorm", hidden))
    return Layer(tensors=tensors, caches=caches)


def _rounded(width: int) -> int:
    """The width that ffn_mult means: a multiple of 256 (nemotron_nas.py _ffn_mult_to_intermediate_size)."""
    return -(-width // 256) * 256
