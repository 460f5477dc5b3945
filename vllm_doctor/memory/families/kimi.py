"""Kimi Linear and Kimi K3: delta attention (KDA) beside latent attention, experts of a narrower state."""

from msgspec.structs import replace

from vllm_doctor.memory.config_values import Config, ConfigError
from vllm_doctor.memory.facts import Architecture, Layer, Split, Tensor
from vllm_doctor.memory.families import experts as moe
from vllm_doctor.memory.families.hybrid import depth
from vllm_doctor.memory.families.latent import latent_attention, latent_cache, with_latents
from vllm_doctor.memory.families.linear_hybrid import kda, kda_cache
from vllm_doctor.memory.families.parts import Tensors, experts, linear, mlp, norm, norms, plain

# models/kimi_k3/nvidia/model.py KimiMoE: where ranks divide the experts, each one is at least so wide on a rank.
_LEAST_WIDTH = 256
# models/kimi_k3/nvidia/kda.py: rows of the joined projection on a rank; all but the beta's are a multiple already.
_ALIGNED = 16


def read_kimi_linear(config: Config) -> Architecture:
    """Kimi Linear and K3's language model, by the lists of linear_attn_config (models/kimi_k3/nvidia/model.py)."""
    hidden, layers = config.positive("hidden_size"), depth(config)
    section = config.section("linear_attn_config")
    if section is None:
        raise ConfigError("linear_attn_config is missing")
    heads, size = section.positive("num_heads"), section.positive("head_dim")
    kernel = section.positive("short_conv_kernel_size", default=4)
    delta = set(section.counts("kda_layers"))
    found = moe.corrected(config, layers) if moe.count_of(config) else None
    dense = mlp(hidden, config.positive("intermediate_size"))
    routed = _experts(config, hidden, found) if found is not None else ()
    net = _delta(section, hidden, heads, size, kernel)
    attending = (*latent_attention(config, hidden, config.positive("num_attention_heads")), *_gate(config, hidden))
    residual = _residual(hidden) * 2 if config.optional("attn_res_block_size") else ()
    cache = kda_cache(heads, size, kernel)

    def layer(i: int) -> Layer:
        is_net = i + 1 in delta
        feed = routed if found is not None and i in found.layers else dense
        return Layer(
            tensors=(*(net if is_net else attending), *feed, *norms(2, hidden), *residual),
            caches=(cache if is_net else latent_cache(config),),
        )

    width = config.positive("intermediate_size")
    base = with_latents(config, [layer(i) for i in range(layers)], hidden, found, width, tied=False)
    return replace(base, last=(*base.last, *(_residual(hidden) if residual else ())))


def mtp_layer(config: Config) -> Layer:
    """An MTP layer: latent attention and experts, without what joins blocks of layers (nvidia/mtp.py)."""
    layers = depth(config) + 1
    linear_section = config.values.get("linear_attn_config")
    section = {**linear_section, "kda_layers": []} if isinstance(linear_section, dict) else linear_section
    more = {"num_hidden_layers": layers, "linear_attn_config": section, "attn_res_block_size": None}
    base = read_kimi_linear(Config({**config.values, **more}, config.model_type, config.outer))
    return base.kinds[base.layers[-1]]


def low_rank_delta(hidden: int, heads: int, size: int, kernel: int) -> Tensors:
    """Delta attention whose gates have a low rank."""
    return (
        *kda(hidden, heads, size, kernel),
        *_low_rank("f", hidden, heads, size),
        *_low_rank("g", hidden, heads, size),
    )


def _low_rank(name: str, hidden: int, heads: int, size: int) -> Tensors:
    return (
        *linear(f"self_attn.{name}_a_proj", size, hidden, Split.WHOLE),
        *linear(f"self_attn.{name}_b_proj", heads * size, size, Split.ROWS),
    )


def _delta(section: Config, hidden: int, heads: int, size: int, kernel: int) -> Tensors:
    """Delta attention with gates of a low rank, or with one of full rank (use_full_rank_gate)."""
    if not section.flag("use_full_rank_gate"):
        return low_rank_delta(hidden, heads, size, kernel)
    if size % _ALIGNED:
        raise ConfigError(f"linear_attn_config.head_dim {size} is no multiple of {_ALIGNED}")
    parts = tuple(
        replace(t, multiple=_ALIGNED) if t.name == "self_attn.b_proj" else t for t in kda(hidden, heads, size, kernel)
    )
    gate = linear("self_attn.g_proj", heads * size, hidden, Split.ROWS)
    return (*parts, *_low_rank("f", hidden, heads, size), *gate)


def _gate(config: Config, hidden: int) -> Tensors:
    if not config.flag("mla_use_output_gate"):
        return ()
    rows = config.positive("num_attention_heads") * config.positive("v_head_dim")
    return linear("self_attn.g_proj", rows, hidden, Split.ROWS)


def _residual(hidden: int) -> tuple[Tensor, ...]:
    """What weighs the blocks of layers before this one, which are read again."""
    return (*norm("res_norm", hidden), plain("res_proj", 1, hidden))


def _experts(config: Config, hidden: int, found: moe.Experts) -> Tensors:
    """Routed experts of the hidden state, or of a narrower one (routed_expert_hidden_size)."""
    narrow = config.optional("routed_expert_hidden_size")
    others = tuple(t for t in found.tensors(hidden) if not t.name.startswith("mlp.experts."))
    up, down = experts(narrow or hidden, found.width, found.number)
    routed = (replace(up, smallest=2 * _LEAST_WIDTH), replace(down, smallest=_LEAST_WIDTH))
    if narrow is None:
        return (*others, *routed)
    return (
        *others,
        *routed,
        *linear("mlp.routed_expert_down_proj", narrow, hidden, Split.WHOLE),
        *(norm("mlp.routed_expert_norm", narrow) if config.flag("latent_moe_use_norm") else ()),
        *linear("mlp.routed_expert_up_proj", hidden, narrow, Split.WHOLE),
    )
