"""Hybrids of attention with delta nets, short convolutions, delta attention and shared blocks."""

from msgspec.structs import replace

from vllm_doctor.memory.config_values import Config, ConfigError
from vllm_doctor.memory.facts import Architecture, Cache, CacheKind, Layer, Split, StateTensor
from vllm_doctor.memory.families import experts as moe
from vllm_doctor.memory.families.hybrid import attention_shape, built, depth, hybrid
from vllm_doctor.memory.families.latent import latent_attention, latent_cache, with_latents
from vllm_doctor.memory.families.parts import Tensors, attention, full, linear, mlp, norm, norms, plain
from vllm_doctor.memory.families.states import delta_net, mamba2, mamba2_cache
from vllm_doctor.memory.families.windows import layer_types


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
        is_attention = types[i] in ("full_attention", "indexed_attention")
        feed = found.tensors(hidden) if found is not None and i in found.layers else mlp(hidden, width)
        mixer = attending if is_attention else net
        return Layer(
            tensors=(*mixer, *feed, *norms(2, hidden)),
            caches=(full(shape.kv_heads, shape.head_size) if is_attention else cache,),
        )

    intermediate = found.shared if found is not None else width
    ssm = config.text("mamba_ssm_dtype") if config.model_type.startswith("qwen3_5") else None
    return hybrid(
        config,
        [layer(i) for i in range(layers)],
        shape,
        found,
        intermediate,
        ssm_dtype=ssm,
        state_key_size=config.positive("linear_key_head_dim"),
    )


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
        is_attention = types[i] in ("full_attention", "indexed_attention")
        feed = found.tensors(hidden) if found is not None and i in found.layers else dense
        mixer = attending if is_attention else conv
        caches = (full(shape.kv_heads, shape.head_size) if is_attention else cache,)
        return Layer(tensors=(*mixer, *feed, *norms(2, hidden)), caches=caches)

    return hybrid(config, [layer(i) for i in range(layers)], shape, found, width)


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


def kda(hidden: int, heads: int, size: int, kernel: int) -> Tensors:
    """What delta attention has in every model; the projections of its gates differ."""
    inner = heads * size
    return (
        *(t for n in "qkv" for t in linear(f"self_attn.{n}_proj", inner, hidden, Split.ROWS)),
        *(plain(f"self_attn.{n}_conv1d", inner, kernel, Split.ROWS, element_bytes=4) for n in "qkv"),
        *linear("self_attn.b_proj", heads, hidden, Split.ROWS),
        plain("self_attn.A_log", heads, split=Split.ROWS, element_bytes=4),
        plain("self_attn.dt_bias", inner, split=Split.ROWS, element_bytes=4),
        *norm("self_attn.o_norm", size),
        *linear("self_attn.o_proj", hidden, inner, Split.COLUMNS),
    )


def kda_cache(heads: int, size: int, kernel: int, name: str = "kda") -> Cache:
    """The states of delta attention: the last tokens of its convolutions, and a matrix per head in fp32."""
    states = (StateTensor(3 * heads * size, kernel - 1), StateTensor(heads, size * size, element_bytes=4))
    return Cache(kind=CacheKind.STATE, states=states, state_name=name)


def read_ling_3(config: Config) -> Architecture:
    """Ling 3.0: delta attention, every layer_group_size-th layer and a rest latent attention (bailing_moe_v3.py)."""
    hidden, layers = config.positive("hidden_size"), depth(config)
    heads, size = config.positive("num_attention_heads"), config.positive("head_dim")
    kernel, group = config.positive("short_conv_kernel_size"), config.positive("layer_group_size")
    if not config.flag("no_kda_lora"):
        raise ConfigError("no_kda_lora is false, which vLLM refuses")
    packed = config.section("quantization_config")
    if packed is not None and packed.text("routed_experts_quant_method") is not None:
        raise ConfigError("the experts are packed by a method of their own, which is not counted")
    net = (
        *kda(hidden, heads, size, kernel),
        *(t for n in "fg" for t in linear(f"self_attn.{n}_proj", heads * size, hidden, Split.ROWS)),
    )
    gates = {"head_wise": heads, "element_wise": heads * config.positive("v_head_dim")}
    gate = gates.get(config.text("gated_attention_proj_granularity_type") or "")
    attending = (
        *latent_attention(config, hidden, heads),
        *(linear("self_attn.g_proj", gate, hidden, Split.ROWS) if gate else ()),
    )
    found, width = _ling_experts(config, layers), config.positive("intermediate_size")
    dense = mlp(hidden, width)
    cache = kda_cache(heads, size, kernel, "ling_kda")  # Its own class, which keeps no checkpoint of a prefill.

    def layer(i: int) -> Layer:
        is_net = (i + 1) % group != 0 and i < layers // group * group
        feed = found.tensors(hidden) if found is not None and i in found.layers else dense
        return Layer(
            tensors=(*(net if is_net else attending), *feed, *norms(2, hidden)),
            caches=(cache if is_net else latent_cache(config),),
        )

    return with_latents(config, [layer(i) for i in range(layers)], hidden, found, width, tied=False)


def _ling_experts(config: Config, layers: int) -> moe.Experts | None:
    found = moe.corrected(config, layers)
    if found is None:
        return None
    shared = config.count("num_shared_experts", default=0)
    return found._replace(
        shared=shared * config.positive("moe_shared_expert_intermediate_size", default=found.width), router_bytes=4
    )


def read_zamba2(config: Config) -> Architecture:
    """Zamba2: Mamba-2 everywhere, in some layers a shared transformer block with adapters of its own (zamba2.py)."""
    hidden, layers = config.positive("hidden_size"), depth(config)
    heads, groups, state = (config.positive(k) for k in ("n_mamba_heads", "mamba_ngroups", "mamba_d_state"))
    kernel, inner = config.positive("mamba_d_conv"), config.positive("mamba_expand") * hidden
    wide, width = 2 * hidden, config.positive("intermediate_size")
    query_heads = config.positive("num_attention_heads")
    size, rank = wide // query_heads, config.positive("adapter_rank")
    where = _zamba_hybrids(config, layers)
    block = mamba2(
        hidden,
        inner,
        groups,
        heads,
        state,
        kernel,
        bias=config.flag("add_bias_linear"),
        conv_bias=config.flag("use_conv_bias", default=True),
    )
    plain_layer = Layer(
        tensors=(*block, *norms(1, hidden)),
        caches=(mamba2_cache(inner, groups, heads, inner // heads, state, kernel),),
    )
    adapters = [("gate_up_adapter", 2 * width, hidden)]
    if config.flag("use_shared_attention_adapter"):
        adapters += [(f"{name}_adapter", wide, wide) for name in "qkv"]
    extra = (
        *linear("linear", hidden, hidden, Split.WHOLE),
        *(t for name, rows, columns in adapters for t in _adapter(name, rows, columns, rank)),
    )
    hybrid_layer = Layer(tensors=(*plain_layer.tensors, *extra), caches=(full(query_heads, size), *plain_layer.caches))
    shared = (
        *attention(wide, query_heads, query_heads, size, out_rows=hidden),
        *mlp(hidden, width),
        *norm("shared_transformer.input_layernorm", wide),
        *norm("shared_transformer.pre_ff_layernorm", hidden),
    ) * config.positive("num_mem_blocks")
    base = built(
        config,
        [hybrid_layer if i in where else plain_layer for i in range(layers)],
        hidden,
        heads=query_heads,
        kv_heads=query_heads,
        head_size=size,
        intermediate=width,
    )
    return replace(base, first=(*base.first, *shared))


def _adapter(name: str, rows: int, columns: int, rank: int) -> Tensors:
    return (*linear(f"{name}.A", rank, columns, Split.ROWS), *linear(f"{name}.B", rows, rank, Split.ROWS))


def _zamba_hybrids(config: Config, layers: int) -> set[int]:
    written = config.values.get("hybrid_layer_ids")
    if written is not None:
        return set(config.counts("hybrid_layer_ids"))
    types = config.words("layers_block_type", layers)
    if types is None:
        raise ConfigError("hybrid_layer_ids is missing")
    return {i for i, kind in enumerate(types) if kind == "hybrid"}
