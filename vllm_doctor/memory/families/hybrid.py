"""Models of Mamba layers, alone or beside attention."""

from collections.abc import Callable, Sequence

from msgspec.structs import replace

from vllm_doctor.memory.config_values import LARGEST_LAYERS, Config, ConfigError
from vllm_doctor.memory.facts import Architecture, CacheKind, Layer, Split
from vllm_doctor.memory.families import experts as moe
from vllm_doctor.memory.families.decoder import Shape, is_tied, kv_heads_of
from vllm_doctor.memory.families.parts import Tensors, attention, embedding, full, head, linear, mlp, norm, norms
from vllm_doctor.memory.families.states import mamba1, mamba1_cache, mamba2, mamba2_cache


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
    state_key_size: int = 0,
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
        experts=found.number if found else 0,
        experts_per_token=found.per_token if found else 0,
        expert_intermediate=found.width if found else 0,
        is_hybrid=CacheKind.STATE in caches and len(caches) > 1,
        is_attention_free=caches == {CacheKind.STATE},
        mamba_ssm_dtype=ssm_dtype,
        state_key_size=state_key_size,
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

    width = config.positive("intermediate_size")
    return hybrid(config, [layer(i) for i in range(layers)], shape, found, width, tied=False)


def hybrid(
    config: Config, layers: Sequence[Layer], shape: Shape, found: moe.Experts | None, intermediate: int, **more: object
) -> Architecture:
    """An architecture out of its layers, with the heads of its attention."""
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
            caches=(full(shape.kv_heads, shape.head_size, window=config.optional("sliding_window")),),
        ),
        "E": lambda: Layer(tensors=_nemotron_expert_layer(found, hidden, latent)),
    }
    made = {letter: blocks[letter]() for letter in set(pattern)}
    layers = [Layer(tensors=(*made[c].tensors, *norms(1, hidden)), caches=made[c].caches) for c in pattern]
    ssm = config.text("mamba_ssm_cache_dtype") or "float32"
    return hybrid(config, layers, shape, found, width if "-" in pattern else 0, ssm_dtype=ssm)


def read_nemotron_puzzle(config: Config) -> Architecture:
    """Nemotron-H whose blocks differ: each has the config's numbers but for those of its entry in block_configs."""
    blocks = config.values.get("block_configs")
    if not isinstance(blocks, list) or not 0 < len(blocks) <= LARGEST_LAYERS:
        raise ConfigError("block_configs is no list of layers")
    made: dict[str, Architecture] = {}
    order: list[Architecture] = []
    for block in blocks:
        if not isinstance(block, dict) or not all(isinstance(k, str) for k in block):
            raise ConfigError("block_configs is no list of layers")
        own = {k: v for k, v in block.items() if v is not None}
        one = {**config.values, **own, "layers_block_type": [own.get("block_type")], "hybrid_override_pattern": None}
        key = repr(sorted(own.items()))
        if key not in made:
            made[key] = read_nemotron_h(Config(one, config.model_type, config.outer))
        order.append(made[key])
    widest = max(order, key=lambda a: (a.expert_intermediate * a.experts_per_token, a.experts))
    kinds = {kind: i for i, kind in enumerate(dict.fromkeys(a.kinds[0] for a in order))}
    caches = {c.kind for kind in kinds for c in kind.caches}
    return replace(
        widest,
        layers=tuple(kinds[a.kinds[0]] for a in order),
        kinds=tuple(kinds),
        largest_intermediate=max(a.largest_intermediate for a in order),
        is_hybrid=CacheKind.STATE in caches and len(caches) > 1,
        is_attention_free=caches == {CacheKind.STATE},
    )


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
    return hybrid(config, chosen, shape, found, shared)


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
    return hybrid(config, [full_layer if i in where else state_layer for i in range(layers)], shape, None, width)


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
    return hybrid(config, [Layer(tensors=tensors, caches=caches)] * layers, shape, None, width)
