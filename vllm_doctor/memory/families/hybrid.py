"""Models with state layers: Mamba, gated delta nets, short convolutions, linear attention, alone or beside attention."""

from collections.abc import Callable, Sequence

from vllm_doctor.memory.config_values import LARGEST_LAYERS, Config, ConfigError
from vllm_doctor.memory.facts import Architecture, Cache, CacheKind, Layer, Split, StateTensor
from vllm_doctor.memory.families import experts as moe
from vllm_doctor.memory.families.decoder import Shape, is_tied, kv_heads_of
from vllm_doctor.memory.families.latent import latent_attention, latent_cache
from vllm_doctor.memory.families.parts import Tensors, attention, embedding, full, head, linear, mlp, norm, norms, plain
from vllm_doctor.memory.families.windows import layer_types


def mamba1(hidden: int, inner: int, state: int, kernel: int, rank: int, *, bias: bool, conv_bias: bool) -> Tensors:
    """A Mamba block (0.32 layers/mamba/mamba_mixer.py); A is kept in fp32."""
    return (
        *linear("mixer.in_proj", 2 * inner, hidden, Split.ROWS, bias=bias),
        plain("mixer.conv1d", inner, kernel, Split.ROWS),
        *((plain("mixer.conv1d.bias", inner, split=Split.ROWS),) if conv_bias else ()),
        *linear("mixer.x_proj", rank + 2 * state, inner, Split.COLUMNS),
        *linear("mixer.dt_proj", inner, rank, Split.ROWS, bias=True),
        plain("mixer.A_log", inner, state, Split.ROWS, element_bytes=4),
        plain("mixer.D", inner, split=Split.ROWS),
        *linear("mixer.out_proj", hidden, inner, Split.COLUMNS, bias=bias),
    )


def mamba1_cache(inner: int, state: int, kernel: int) -> Cache:
    """The states of a Mamba block (mamba_utils.py mamba1_state_shape)."""
    states = (StateTensor(inner, kernel - 1), StateTensor(inner, state, temporal=True))
    return Cache(kind=CacheKind.STATE, states=states, state_name="mamba1")


def mamba2(
    hidden: int,
    inner: int,
    groups: int,
    heads: int,
    state: int,
    kernel: int,
    *,
    bias: bool = False,
    conv_bias: bool = True,
    gated_norm: bool = True,
) -> Tensors:
    """A Mamba-2 block (layers/mamba/mamba_mixer2.py); every rank has at least one group."""
    pairs = 2 * groups * state
    return (
        *linear("mixer.in_proj", 2 * inner + heads, hidden, Split.ROWS, bias=bias),
        *linear("mixer.in_proj_groups", pairs, hidden, Split.HEADS, bias=bias, heads=groups),
        plain("mixer.conv1d", inner, kernel, Split.ROWS),
        plain("mixer.conv1d_groups", pairs, kernel, Split.HEADS, heads=groups),
        *(
            (
                plain("mixer.conv1d.bias", inner, split=Split.ROWS),
                plain("mixer.conv1d_groups.bias", pairs, split=Split.HEADS, heads=groups),
            )
            if conv_bias
            else ()
        ),
        plain("mixer.A_log", heads, split=Split.ROWS, element_bytes=4),
        plain("mixer.D", heads, split=Split.ROWS),
        plain("mixer.dt_bias", heads, split=Split.ROWS),
        *((plain("mixer.norm", inner, split=Split.ROWS),) if gated_norm else ()),
        *linear("mixer.out_proj", hidden, inner, Split.COLUMNS, bias=bias),
    )


def mamba2_cache(inner: int, groups: int, heads: int, head_size: int, state: int, kernel: int) -> Cache:
    """The states of a Mamba-2 block (mamba_utils.py mamba2_state_shape)."""
    states = (
        StateTensor(inner, kernel - 1),
        StateTensor(groups, 2 * state * (kernel - 1)),
        StateTensor(heads, head_size * state, temporal=True),
    )
    return Cache(kind=CacheKind.STATE, states=states, state_name="mamba2")


def delta_net(config: Config, hidden: int) -> tuple[Tensors, Cache]:
    """A gated delta net (layers/mamba/gdn; qwen3_next.py, qwen3_5.py, olmo_hybrid.py)."""
    keys, values = config.positive("linear_num_key_heads"), config.positive("linear_num_value_heads")
    key_size, value_size = config.positive("linear_key_head_dim"), config.positive("linear_value_head_dim")
    kernel = config.positive("linear_conv_kernel_dim")
    key, value = keys * key_size, values * value_size
    tensors = (
        *linear("linear_attn.in_proj_qkvz", 2 * key + 2 * value, hidden, Split.ROWS),
        *linear("linear_attn.in_proj_ba", 2 * values, hidden, Split.ROWS),
        plain("linear_attn.conv1d", 2 * key + value, kernel, Split.ROWS),
        plain("linear_attn.dt_bias", values, split=Split.ROWS),
        plain("linear_attn.A_log", values, split=Split.ROWS, element_bytes=4),
        *norm("linear_attn.norm", value_size),
        *linear("linear_attn.out_proj", hidden, value, Split.COLUMNS),
    )
    states = (
        StateTensor(2 * key + value, kernel - 1),
        StateTensor(values, value_size * key_size, temporal=True),
    )
    return tensors, Cache(kind=CacheKind.STATE, states=states, state_name="gdn_attention")


def built(
    config: Config,
    layers: Sequence[Layer],
    hidden: int,
    *,
    heads: int = 0,
    kv_heads: int = 0,
    head_size: int = 0,
    found: moe.Experts | None = None,
    intermediate: int = 0,
    final_bias: bool = False,
    ssm_dtype: str | None = None,
    absorbed: int = 0,
    tied: bool | None = None,
) -> Architecture:
    """An architecture out of its layers in order."""
    order = list(dict.fromkeys(layers))
    numbers = {layer: i for i, layer in enumerate(order)}
    vocabulary = config.positive("vocab_size")
    is_one = is_tied(config, tied)
    caches = {c.kind for layer in order for c in layer.caches}
    return Architecture(
        name="",
        model_type=config.model_type,
        dtype="",
        hidden_size=hidden,
        vocabulary_size=vocabulary,
        layers=tuple(numbers[layer] for layer in layers),
        kinds=tuple(order),
        first=(embedding(vocabulary, hidden),),
        last=(*norm("model.norm", hidden, bias=final_bias), *(() if is_one else (head(vocabulary, hidden),))),
        attention_heads=heads,
        kv_heads=kv_heads,
        head_size=head_size,
        tied_embeddings=is_one,
        largest_intermediate=intermediate,
        experts=found.count if found else 0,
        experts_per_token=found.per_token if found else 0,
        expert_intermediate=found.width if found else 0,
        is_hybrid=CacheKind.STATE in caches and len(caches) > 1,
        is_attention_free=caches == {CacheKind.STATE},
        mamba_ssm_dtype=ssm_dtype,
        absorbed_elements=absorbed,
    )


def depth(config: Config) -> int:
    """The number of layers."""
    return config.positive("num_hidden_layers", "n_layer", "num_layers", largest=LARGEST_LAYERS)


def attention_shape(config: Config, hidden: int, *size_keys: str) -> Shape:
    """Heads and their size, for the attention layers of a hybrid."""
    heads = config.positive("num_attention_heads")
    kv_heads = kv_heads_of(config, heads)
    found = config.optional(*(size_keys or ("head_dim", "attention_head_dim")))
    if not found and hidden % heads:
        raise ConfigError(f"hidden_size {hidden} is no multiple of {heads} attention heads")
    return Shape(depth(config), hidden, heads, kv_heads, found or hidden // heads, 0, 0)


def read_mamba(config: Config) -> Architecture:
    """Mamba and Falcon-Mamba (mamba.py)."""
    hidden = config.positive("hidden_size", "d_model")
    inner = config.optional("intermediate_size") or config.positive("expand", default=2) * hidden
    state, kernel = config.positive("state_size"), config.positive("conv_kernel")
    rank = config.optional("time_step_rank") if config.get("time_step_rank") != "auto" else None
    tensors = mamba1(
        hidden,
        inner,
        state,
        kernel,
        rank or -(-hidden // 16),
        bias=config.flag("use_bias"),
        conv_bias=config.flag("use_conv_bias", default=True),
    )
    layer = Layer(tensors=(*tensors, *norms(1, hidden)), caches=(mamba1_cache(inner, state, kernel),))
    return built(config, [layer] * depth(config), hidden, intermediate=inner)


def read_mamba2(config: Config) -> Architecture:
    """Mamba-2 and Codestral-Mamba (mamba2.py)."""
    hidden = config.positive("hidden_size", "d_model")
    heads, size = config.positive("num_heads"), config.positive("head_dim")
    groups, state, kernel = config.positive("n_groups"), config.positive("state_size"), config.positive("conv_kernel")
    inner = config.positive("expand", default=2) * hidden
    tensors = mamba2(hidden, inner, groups, heads, state, kernel, bias=config.flag("use_bias"))
    layer = Layer(
        tensors=(*tensors, *norms(1, hidden)), caches=(mamba2_cache(inner, groups, heads, size, state, kernel),)
    )
    return built(config, [layer] * depth(config), hidden, intermediate=inner)


def read_jamba(config: Config) -> Architecture:
    """Jamba: Mamba layers, every n-th attention, every m-th with experts (jamba.py)."""
    hidden, layers = config.positive("hidden_size"), depth(config)
    inner = config.positive("mamba_expand", default=2) * hidden
    state, kernel = config.positive("mamba_d_state"), config.positive("mamba_d_conv")
    rank = config.optional("mamba_dt_rank") if config.get("mamba_dt_rank") != "auto" else None
    rank = rank or -(-hidden // 16)
    period = config.positive("attn_layer_period")
    offset = config.count("attn_layer_offset")
    shape, found = attention_shape(config, hidden), moe.jamba(config, layers)
    block = (
        *mamba1(
            hidden,
            inner,
            state,
            kernel,
            rank,
            bias=config.flag("mamba_proj_bias"),
            conv_bias=config.flag("mamba_conv_bias", default=True),
        ),
        *norm("mixer.dt_layernorm", rank),
        *norm("mixer.b_layernorm", state),
        *norm("mixer.c_layernorm", state),
    )
    attending = attention(hidden, shape.heads, shape.kv_heads, shape.head_size)
    dense = mlp(hidden, config.positive("intermediate_size"))

    def layer(i: int) -> Layer:
        is_attention = i % period == offset
        feed = found.tensors(hidden) if found is not None and i in found.layers else dense
        cache = full(shape.kv_heads, shape.head_size) if is_attention else mamba1_cache(inner, state, kernel)
        return Layer(tensors=(*(attending if is_attention else block), *feed, *norms(2, hidden)), caches=(cache,))

    return _hybrid(config, [layer(i) for i in range(layers)], shape, found, config.positive("intermediate_size"))


def _hybrid(
    config: Config, layers: Sequence[Layer], shape: Shape, found: moe.Experts | None, intermediate: int, **more: object
) -> Architecture:
    return built(
        config,
        layers,
        shape.hidden,
        heads=shape.heads,
        kv_heads=shape.kv_heads,
        head_size=shape.head_size,
        found=found,
        intermediate=intermediate,
        **more,  # type: ignore[arg-type]
    )


def read_nemotron_h(config: Config) -> Architecture:
    """Nemotron-H: one block per layer, by a pattern of letters (nemotron_h.py)."""
    hidden = config.positive("hidden_size")
    pattern = nemotron_pattern(config)
    heads, size = config.positive("mamba_num_heads"), config.positive("mamba_head_dim")
    groups, state = config.positive("n_groups"), config.positive("ssm_state_size")
    kernel, inner = config.positive("conv_kernel"), heads * size
    shape = attention_shape(config, hidden, "head_dim", "attention_head_dim")
    bias, width = config.flag("mlp_bias"), config.positive("intermediate_size")
    found = _nemotron_experts(config, pattern)
    latent = config.optional("moe_latent_size")
    blocks: dict[str, Callable[[], Layer]] = {
        "M": lambda: Layer(
            tensors=mamba2(
                hidden,
                inner,
                groups,
                heads,
                state,
                kernel,
                bias=config.flag("mamba_proj_bias", "use_bias"),
                conv_bias=config.flag("use_conv_bias", default=True),
            ),
            caches=(mamba2_cache(inner, groups, heads, size, state, kernel),),
        ),
        "-": lambda: Layer(tensors=mlp(hidden, width, gated=False, bias=bias)),
        "*": lambda: Layer(
            tensors=attention(
                hidden, shape.heads, shape.kv_heads, shape.head_size, qkv_bias=config.flag("attention_bias")
            ),
            caches=(full(shape.kv_heads, shape.head_size),),
        ),
        "E": lambda: Layer(tensors=_nemotron_expert_layer(found, hidden, latent)),
    }
    made = {letter: blocks[letter]() for letter in set(pattern)}
    layers = [Layer(tensors=(*made[c].tensors, *norms(1, hidden)), caches=made[c].caches) for c in pattern]
    ssm = config.text("mamba_ssm_cache_dtype") or "float32"
    return _hybrid(config, layers, shape, found, width if "-" in pattern else 0, ssm_dtype=ssm)


def nemotron_pattern(config: Config) -> str:
    """The letters of the layers: M Mamba, * attention, - MLP, E experts."""
    written = config.values.get("hybrid_override_pattern")
    types = config.values.get("layers_block_type")
    if isinstance(types, list) and not isinstance(written, str):
        letters = {"mamba": "M", "attention": "*", "mlp": "-", "moe": "E"}
        written = "".join(letters.get(t, "?") if isinstance(t, str) else "?" for t in types)
    written = written if isinstance(written, str) else config.text("hybrid_override_pattern")
    if not written or len(written) > LARGEST_LAYERS or set(written) - set("M*-E"):
        raise ConfigError("hybrid_override_pattern is no pattern of M, *, - and E")
    return written


def _nemotron_experts(config: Config, pattern: str) -> moe.Experts | None:
    layers = frozenset(i for i, c in enumerate(pattern) if c == "E")
    if not layers:
        return None
    shared = config.count("n_shared_experts", default=0) * config.count(
        "moe_shared_expert_intermediate_size", "moe_intermediate_size"
    )
    return moe.Experts(
        moe.count_of(config),
        moe.per_token_of(config),
        config.positive("moe_intermediate_size"),
        layers,
        shared=shared,
        corrected=True,
        gated=False,
        router_bytes=4,
    )


def _nemotron_expert_layer(found: moe.Experts | None, hidden: int, latent: int | None) -> Tensors:
    if found is None:
        return ()
    if not latent:
        return found.tensors(hidden)
    inside = found._replace(shared=0).tensors(latent)
    outside = found.tensors(hidden)
    return (
        *(t for t in outside if "experts." not in t.name or "shared" in t.name),
        *(t for t in inside if t.name.startswith("mlp.experts.")),
        *linear("mlp.fc1_latent_proj", latent, hidden, Split.WHOLE),
        *linear("mlp.fc2_latent_proj", hidden, latent, Split.WHOLE),
    )


def read_granite_hybrid(config: Config) -> Architecture:
    """Granite 4: Mamba-2 or attention by layer_types, experts and a shared MLP (granitemoehybrid.py)."""
    hidden, layers = config.positive("hidden_size"), depth(config)
    heads, size = config.positive("mamba_n_heads"), _granite_head(config, hidden)
    groups, state = config.positive("mamba_n_groups"), config.positive("mamba_d_state")
    kernel, inner = config.positive("mamba_d_conv"), config.positive("mamba_expand") * hidden
    shape = attention_shape(config, hidden)
    found = moe.granite(config, layers)
    shared = config.count("shared_intermediate_size", default=0)
    feed = found.tensors(hidden) if found else mlp(hidden, shared, prefix="shared_mlp.")
    types = config.words("layer_types", layers) or config.words("layers_block_type", layers) or ("mamba",) * layers
    block = mamba2(
        hidden,
        inner,
        groups,
        heads,
        state,
        kernel,
        bias=config.flag("mamba_proj_bias"),
        conv_bias=config.flag("mamba_conv_bias", default=True),
    )
    attending = attention(
        hidden,
        shape.heads,
        shape.kv_heads,
        shape.head_size,
        qkv_bias=config.flag("attention_bias"),
        out_bias=config.flag("attention_bias"),
    )
    state_layer = Layer(
        tensors=(*block, *feed, *norms(2, hidden)), caches=(mamba2_cache(inner, groups, heads, size, state, kernel),)
    )
    full_layer = Layer(tensors=(*attending, *feed, *norms(2, hidden)), caches=(full(shape.kv_heads, shape.head_size),))
    chosen = [full_layer if t == "attention" else state_layer for t in types]
    return _hybrid(config, chosen, shape, found, shared)


def _granite_head(config: Config, hidden: int) -> int:
    found = config.optional("mamba_d_head") if config.get("mamba_d_head") != "auto" else None
    return found or config.positive("mamba_expand") * hidden // config.positive("mamba_n_heads")


def read_bamba(config: Config) -> Architecture:
    """Bamba: Mamba-2 layers with attention at attn_layer_indices, dense MLPs (bamba.py, to 0.2x)."""
    hidden, layers = config.positive("hidden_size"), depth(config)
    heads, groups, state = (config.positive(k) for k in ("mamba_n_heads", "mamba_n_groups", "mamba_d_state"))
    kernel, inner = config.positive("mamba_d_conv"), config.positive("mamba_expand") * hidden
    shape, width = attention_shape(config, hidden), config.positive("intermediate_size")
    where = set(config.counts("attn_layer_indices"))
    feed = (*mlp(hidden, width), *norms(2, hidden))
    cache = mamba2_cache(inner, groups, heads, _granite_head(config, hidden), state, kernel)
    state_layer = Layer(tensors=(*mamba2(hidden, inner, groups, heads, state, kernel), *feed), caches=(cache,))
    full_layer = Layer(
        tensors=(*attention(hidden, shape.heads, shape.kv_heads, shape.head_size), *feed),
        caches=(full(shape.kv_heads, shape.head_size),),
    )
    return _hybrid(config, [full_layer if i in where else state_layer for i in range(layers)], shape, None, width)


def read_falcon_h1(config: Config) -> Architecture:
    """Falcon-H1: attention and Mamba-2 side by side in every layer (falcon_h1.py)."""
    hidden, layers = config.positive("hidden_size"), depth(config)
    shape, width = attention_shape(config, hidden), config.positive("intermediate_size")
    heads, groups, state = (config.positive(k) for k in ("mamba_n_heads", "mamba_n_groups", "mamba_d_state"))
    kernel = config.positive("mamba_d_conv")
    inner = config.optional("mamba_d_ssm") or config.positive("mamba_expand") * hidden
    size = config.optional("mamba_d_head") if config.get("mamba_d_head") != "auto" else None
    gated_norm = config.flag("mamba_rms_norm")
    bias = config.flag("attention_bias")
    tensors = (
        *attention(hidden, shape.heads, shape.kv_heads, shape.head_size, qkv_bias=bias, out_bias=bias),
        *mamba2(
            hidden,
            inner,
            groups,
            heads,
            state,
            kernel,
            bias=config.flag("mamba_proj_bias"),
            conv_bias=config.flag("mamba_conv_bias", default=True),
            gated_norm=gated_norm,
        ),
        *mlp(hidden, width, bias=config.flag("mlp_bias")),
        *norms(2, hidden),
    )
    caches = (
        full(shape.kv_heads, shape.head_size),
        mamba2_cache(inner, groups, heads, size or inner // heads, state, kernel),
    )
    return _hybrid(config, [Layer(tensors=tensors, caches=caches)] * layers, shape, None, width)


def read_delta_hybrid(config: Config) -> Architecture:
    """Qwen3-Next and Qwen3.5: gated delta nets, every n-th layer gated attention (qwen3_next.py, qwen3_5.py)."""
    hidden, layers = config.positive("hidden_size"), depth(config)
    shape = attention_shape(config, hidden, "head_dim")
    found = moe.qwen(config, layers) if moe.count_of(config) else None
    net, cache = delta_net(config, hidden)
    bias = config.flag("attention_bias")
    attending = (
        *attention(
            hidden,
            shape.heads,
            shape.kv_heads,
            shape.head_size,
            qkv_bias=bias,
            out_bias=False,
            gated=config.flag("attn_output_gate", default=True),
        ),
        *norm("self_attn.q_norm", shape.head_size),
        *norm("self_attn.k_norm", shape.head_size),
    )
    width = config.count("intermediate_size", default=0)
    types = layer_types(config, layers) or ("full_attention",) * layers

    def layer(i: int) -> Layer:
        is_attention = types[i] == "full_attention"
        feed = found.tensors(hidden) if found is not None and i in found.layers else mlp(hidden, width)
        mixer = attending if is_attention else net
        return Layer(
            tensors=(*mixer, *feed, *norms(2, hidden)),
            caches=(full(shape.kv_heads, shape.head_size) if is_attention else cache,),
        )

    intermediate = found.shared if found is not None else width
    ssm = config.text("mamba_ssm_dtype") if config.model_type.startswith("qwen3_5") else None
    return _hybrid(config, [layer(i) for i in range(layers)], shape, found, intermediate, ssm_dtype=ssm)


def read_lfm2(config: Config) -> Architecture:
    """LFM2: short convolutions and attention (lfm2.py, lfm2_moe.py)."""
    hidden, layers = config.positive("hidden_size"), depth(config)
    shape = attention_shape(config, hidden)
    kernel = config.positive("conv_L_cache", default=3)
    conv_bias = config.flag("conv_bias")
    types = config.words("layer_types", layers) or _lfm2_types(config, layers)
    found = moe.deepseek(config, layers) if moe.count_of(config) else None
    first = config.count("num_dense_layers", default=0)
    if found is not None:
        found = found._replace(layers=frozenset(range(first, layers)), corrected=config.flag("use_expert_bias"))
    width = _lfm2_width(config)
    dense = mlp(hidden, width)
    conv = (
        *linear("conv.in_proj", 3 * hidden, hidden, Split.ROWS, bias=conv_bias),
        plain("conv.conv", hidden, kernel, Split.ROWS),
        *((plain("conv.conv.bias", hidden, split=Split.ROWS),) if conv_bias else ()),
        *linear("conv.out_proj", hidden, hidden, Split.COLUMNS, bias=conv_bias),
    )
    attending = (
        *attention(hidden, shape.heads, shape.kv_heads, shape.head_size),
        *norm("self_attn.q_layernorm", shape.head_size),
        *norm("self_attn.k_layernorm", shape.head_size),
    )
    cache = Cache(kind=CacheKind.STATE, states=(StateTensor(hidden, kernel - 1),), state_name="short_conv")

    def layer(i: int) -> Layer:
        is_attention = types[i] == "full_attention"
        feed = found.tensors(hidden) if found is not None and i in found.layers else dense
        mixer = attending if is_attention else conv
        caches = (full(shape.kv_heads, shape.head_size) if is_attention else cache,)
        return Layer(tensors=(*mixer, *feed, *norms(2, hidden)), caches=caches)

    return _hybrid(config, [layer(i) for i in range(layers)], shape, found, width)


def _lfm2_types(config: Config, layers: int) -> tuple[str, ...]:
    where = set(config.counts("full_attn_idxs"))
    return tuple("full_attention" if i in where else "conv" for i in range(layers))


def _lfm2_width(config: Config) -> int:
    """The MLP's width: two thirds of the block's, rounded up (lfm2.py Lfm2MLP)."""
    width = config.positive("intermediate_size", "block_ff_dim")
    if config.model_type == "lfm2" and config.flag("block_auto_adjust_ff_dim", default=True):
        width = int(config.number("block_ffn_dim_multiplier", 1.0) * (2 * width // 3))
        multiple = config.positive("block_multiple_of", default=256)
        width = multiple * -(-width // multiple)
    return width


def read_kimi_linear(config: Config) -> Architecture:
    """Kimi Linear: delta attention (KDA) and latent attention by the lists of linear_attn_config (kimi_linear.py)."""
    hidden, layers = config.positive("hidden_size"), depth(config)
    section = config.section("linear_attn_config")
    if section is None:
        raise ConfigError("linear_attn_config is missing")
    heads, size = section.positive("num_heads"), section.positive("head_dim")
    kernel = section.positive("short_conv_kernel_size", default=4)
    kda_layers = set(section.counts("kda_layers"))
    found = moe.corrected(config, layers) if moe.count_of(config) else None
    inner = heads * size
    net = (
        *(t for n in "qkv" for t in linear(f"self_attn.{n}_proj", inner, hidden, Split.ROWS)),
        *(plain(f"self_attn.{n}_conv1d", inner, kernel, Split.ROWS, element_bytes=4) for n in "qkv"),
        *linear("self_attn.f_a_proj", size, hidden, Split.WHOLE),
        *linear("self_attn.f_b_proj", inner, size, Split.ROWS),
        *linear("self_attn.b_proj", heads, hidden, Split.ROWS),
        *linear("self_attn.g_a_proj", size, hidden, Split.WHOLE),
        *linear("self_attn.g_b_proj", inner, size, Split.ROWS),
        plain("self_attn.A_log", heads, split=Split.ROWS, element_bytes=4),
        plain("self_attn.dt_bias", inner, split=Split.ROWS, element_bytes=4),
        *norm("self_attn.o_norm", size),
        *linear("self_attn.o_proj", hidden, inner, Split.COLUMNS),
    )
    states = (StateTensor(3 * inner, kernel - 1), StateTensor(heads, size * size, element_bytes=4))
    cache = Cache(kind=CacheKind.STATE, states=states, state_name="kda")
    attending = latent_attention(config, hidden, config.positive("num_attention_heads"))
    dense = mlp(hidden, config.positive("intermediate_size"))

    def layer(i: int) -> Layer:
        is_net = i + 1 in kda_layers
        feed = found.tensors(hidden) if found is not None and i in found.layers else dense
        return Layer(
            tensors=(*(net if is_net else attending), *feed, *norms(2, hidden)),
            caches=(cache if is_net else latent_cache(config),),
        )

    return built(
        config,
        [layer(i) for i in range(layers)],
        hidden,
        heads=config.positive("num_attention_heads"),
        kv_heads=1,
        head_size=config.positive("kv_lora_rank"),
        found=found,
        intermediate=config.positive("intermediate_size"),
    )
