"""Blocks that keep a state per sequence: Mamba, Mamba-2, gated delta nets; their tensors and their states."""

from vllm_doctor.memory.config_values import Config
from vllm_doctor.memory.facts import Cache, CacheKind, Split, StateTensor
from vllm_doctor.memory.families.parts import Tensors, linear, norm, plain


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
