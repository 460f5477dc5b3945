"""Inkling: windows beside full attention, a short convolution on every stream, sinks among the experts."""

from msgspec.structs import replace

from vllm_doctor.memory.config_values import LARGEST_EXPERTS, Config
from vllm_doctor.memory.facts import Architecture, Cache, CacheKind, Layer, Split
from vllm_doctor.memory.families import experts as moe
from vllm_doctor.memory.families.hybrid import built, depth
from vllm_doctor.memory.families.parts import Tensors, experts, full, head, linear, norm, norms, plain, unpacked

# 0.32 models/inkling/nvidia/moe.py InklingGate: rows of the router are a multiple of so many.
_ROUTER_ROWS = 8
# The states of the convolutions are bfloat16, whatever --kv-cache-dtype says (nvidia/sconv_swa_attn.py).
_STATE_BYTES = 2


def read_inkling(config: Config) -> Architecture:
    """Inkling's language model (models/inkling/nvidia/model.py), by the defaults of vLLM's own class (configs.py)."""
    hidden, layers = config.positive("hidden_size", default=1536), depth(config)
    heads, pairs, size = _shape(config, hidden)
    own_heads = config.positive("swa_num_attention_heads", default=heads)
    own_pairs = config.positive("swa_num_key_value_heads", default=pairs)
    own_size = config.positive("swa_head_dim", default=size)
    window, reach = config.positive("sliding_window_size", default=512), config.positive("rel_extent", default=1024)
    everywhere = _attention(config, hidden, heads, pairs, size, reach)
    near = _attention(config, hidden, own_heads, own_pairs, own_size, window)
    caches = (full(pairs, size), _states(config, hidden, pairs, size))
    near_caches = (full(own_pairs, own_size, window=window), _states(config, hidden, own_pairs, own_size))
    local, first = set(config.counts("local_layer_ids")), config.count("dense_mlp_idx", default=0)
    routed, dense = _experts(config, hidden, first, layers), _dense(config, hidden)

    def layer(i: int) -> Layer:
        feed = dense if routed is None or i < first else (*routed[0], *norms(2, hidden))
        return Layer(
            tensors=(*(near if i in local else everywhere), *feed), caches=near_caches if i in local else caches
        )

    base = built(
        config,
        [layer(i) for i in range(layers)],
        hidden,
        heads=heads,
        kv_heads=pairs,
        head_size=size,
        found=routed[1] if routed else None,
        intermediate=_widths(config)[0],
        tied=False,
    )
    rows = config.positive("padded_vocab_size", "vocab_size", default=201024)
    embed_norm = norm("model.embed_norm", hidden) if config.flag("use_embed_norm") else ()
    first_tensors = (plain("model.embed_tokens", rows, hidden), *embed_norm)
    return replace(
        base, vocabulary_size=rows, first=first_tensors, last=(*norm("model.norm", hidden), head(rows, hidden))
    )


def depth_layer(config: Config, *, near: bool) -> Layer:
    """The block of an MTP layer: a dense one, unpacked, with a window or without (nvidia/mtp.py)."""
    only = {"num_hidden_layers": 1, "n_routed_experts": 0, "local_layer_ids": [0] if near else []}
    base = read_inkling(Config({**config.values, **only}, config.model_type, config.outer))
    one = base.kinds[0]
    return Layer(tensors=unpacked(one.tensors), caches=one.caches)


def _shape(config: Config, hidden: int) -> tuple[int, int, int]:
    heads = config.positive("num_attention_heads", default=12)
    return (
        heads,
        config.positive("num_key_value_heads", default=4),
        config.positive("head_dim", default=max(1, hidden // heads)),
    )


def _widths(config: Config) -> tuple[int, int]:
    """The widths of dense MLPs and of an expert; Transformers' names for them differ (configs.py)."""
    width = config.positive("intermediate_size", default=768)
    expert, dense = config.optional("moe_intermediate_size"), config.optional("dense_intermediate_size")
    if expert is not None and dense is None:
        return width, expert
    return dense or width, width


def _kernel(config: Config) -> int:
    return config.positive("sconv_kernel_size", "conv_kernel_size", default=4)


def _attention(config: Config, hidden: int, heads: int, pairs: int, size: int, reach: int) -> Tensors:
    """Queries, keys, values and relative states in one projection, whose biases reach as far back as `reach`."""
    relative, kernel = config.positive("d_rel", default=16), _kernel(config)
    bias = config.flag("q_bias")
    return (
        *linear("attn.wq_du", heads * size, hidden, Split.ROWS, bias=bias),
        *linear("attn.wk_dv", pairs * size, hidden, Split.HEADS, bias=bias, heads=pairs),
        *linear("attn.wv_dv", pairs * size, hidden, Split.HEADS, bias=bias, heads=pairs),
        *linear("attn.wr_du", heads * relative, hidden, Split.ROWS, bias=bias),
        *linear("attn.wo_ud", hidden, heads * size, Split.COLUMNS, bias=config.flag("o_bias")),
        plain("attn.rel_logits_proj.proj", relative, reach),
        *norm("attn.q_norm", size),
        *norm("attn.k_norm", size),
        *(plain(f"attn.{n}_sconv", pairs * size, kernel, Split.HEADS, heads=pairs) for n in "kv"),
        *(plain(f"{n}_sconv", hidden, kernel, Split.ROWS) for n in ("attn", "mlp")),
    )


def _states(config: Config, hidden: int, pairs: int, size: int) -> Cache:
    """The last tokens of the four convolutions, packed per key-value head: pages of a few tokens."""
    kernel, packed = _kernel(config), 2 * size + 2 * (hidden // pairs)
    return Cache(
        kind=CacheKind.SLIDING,
        kv_heads=pairs,
        head_size=1 << (packed - 1).bit_length(),
        value_size=0,
        window=kernel,
        own_element_bytes=_STATE_BYTES,
        block=kernel,
    )


def _dense(config: Config, hidden: int) -> Tensors:
    width, _ = _widths(config)
    scale = (plain("mlp.global_scale", 1),) if config.flag("use_global_scale") else ()
    return (
        *linear("mlp.gate_up_proj", 2 * width, hidden, Split.ROWS),
        *linear("mlp.down_proj", hidden, width, Split.COLUMNS),
        *scale,
        *norms(2, hidden),
    )


def _experts(config: Config, hidden: int, first: int, layers: int) -> tuple[Tensors, moe.Experts] | None:
    """Routed experts, and the sinks that every token takes: one pair of matrices, never packed."""
    count = config.count("n_routed_experts", default=0, largest=LARGEST_EXPERTS)
    if not count:
        return None
    sinks = config.positive("n_shared_experts", largest=LARGEST_EXPERTS)
    _, width = _widths(config)
    padding = -(count + sinks) % _ROUTER_ROWS
    found = moe.Experts(
        count,
        config.positive("num_experts_per_tok", default=1, largest=LARGEST_EXPERTS),
        width,
        frozenset(range(first, layers)),
        shared=sinks * width,
    )
    tensors = (
        plain("mlp.gate", count + sinks, hidden),
        *((plain("mlp.gate.padding", padding, hidden, added=True),) if padding else ()),
        *((plain("mlp.gate.global_scale", 1, element_bytes=4),) if config.flag("use_global_scale") else ()),
        *((plain("mlp.gate.bias", count, element_bytes=4),) if config.flag("use_gate_bias") else ()),
        *experts(hidden, width, count),
        plain("mlp.shared_experts.w13_weight", 2 * sinks * width, hidden, Split.ROWS),
        plain("mlp.shared_experts.w2_weight", hidden, sinks * width, Split.COLUMNS),
    )
    return tensors, found
