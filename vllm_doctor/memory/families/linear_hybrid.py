"""Hybrids of attention with delta nets, short convolutions and Kimi's delta attention."""

from vllm_doctor.memory.config_values import Config, ConfigError
from vllm_doctor.memory.facts import Architecture, Cache, CacheKind, Layer, Split, StateTensor
from vllm_doctor.memory.families import experts as moe
from vllm_doctor.memory.families.hybrid import attention_shape, built, depth, hybrid
from vllm_doctor.memory.families.latent import latent_attention, latent_cache
from vllm_doctor.memory.families.parts import attention, full, linear, mlp, norm, norms, plain
from vllm_doctor.memory.families.states import delta_net
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
        is_attention = types[i] == "full_attention"
        feed = found.tensors(hidden) if found is not None and i in found.layers else mlp(hidden, width)
        mixer = attending if is_attention else net
        return Layer(
            tensors=(*mixer, *feed, *norms(2, hidden)),
            caches=(full(shape.kv_heads, shape.head_size) if is_attention else cache,),
        )

    intermediate = found.shared if found is not None else width
    ssm = config.text("mamba_ssm_dtype") if config.model_type.startswith("qwen3_5") else None
    return hybrid(config, [layer(i) for i in range(layers)], shape, found, intermediate, ssm_dtype=ssm)


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
