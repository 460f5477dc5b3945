"""The parts that layers are made of: attention, MLP, experts, norms, with vLLM's way of dividing each."""

from msgspec.structs import replace

from vllm_doctor.memory.facts import Cache, CacheKind, Split, Tensor

Tensors = tuple[Tensor, ...]


def linear(name: str, rows: int, columns: int, split: Split, *, bias: bool = False, heads: int = 0) -> Tensors:
    """A linear layer; the bias of a row-parallel one (split by columns) is whole on every rank."""
    matrix = Tensor(name=name, rows=rows, columns=columns, split=split, linear=True, heads=heads)
    if not bias:
        return (matrix,)
    bias_split = Split.WHOLE if split is Split.COLUMNS else split
    return (matrix, Tensor(name=f"{name}.bias", rows=rows, split=bias_split, heads=heads))


def plain(name: str, rows: int, columns: int = 0, split: Split = Split.WHOLE, **more: int | bool | None) -> Tensor:
    """A tensor that no quantization method packs."""
    return Tensor(name=name, rows=rows, columns=columns, split=split, **more)  # type: ignore[arg-type]


def unpacked(tensors: Tensors) -> Tensors:
    """Layers that vLLM builds without the checkpoint's quantization."""
    return tuple(replace(t, linear=False) for t in tensors)


def norm(name: str, size: int, *, bias: bool = False) -> Tensors:
    """A norm over `size` values, whole on every rank."""
    weight = Tensor(name=name, rows=size)
    return (weight, Tensor(name=f"{name}.bias", rows=size)) if bias else (weight,)


def norms(count: int, size: int, *, bias: bool = False) -> Tensors:
    """So many norms of a layer."""
    return tuple(t for i in range(count) for t in norm(f"norm{i}", size, bias=bias))


def attention(
    hidden: int,
    heads: int,
    kv_heads: int,
    head_size: int,
    *,
    qkv_bias: bool = False,
    out_bias: bool = False,
    value_size: int | None = None,
    gated: bool = False,
    out_rows: int | None = None,
    prefix: str = "self_attn.",
) -> Tensors:
    """Query, key, value and output projections; `gated` doubles the queries (Qwen3-Next)."""
    value_size = head_size if value_size is None else value_size
    queries = heads * head_size * (2 if gated else 1)
    return (
        *linear(f"{prefix}q_proj", queries, hidden, Split.ROWS, bias=qkv_bias),
        *linear(f"{prefix}k_proj", kv_heads * head_size, hidden, Split.HEADS, bias=qkv_bias, heads=kv_heads),
        *linear(f"{prefix}v_proj", kv_heads * value_size, hidden, Split.HEADS, bias=qkv_bias, heads=kv_heads),
        *linear(f"{prefix}o_proj", out_rows or hidden, heads * value_size, Split.COLUMNS, bias=out_bias),
    )


def full(kv_heads: int, head_size: int, value_size: int | None = None, window: int | None = None) -> Cache:
    """The cache of an attention layer, sliding where it has a window."""
    kind = CacheKind.FULL if window is None else CacheKind.SLIDING
    value = head_size if value_size is None else value_size
    return Cache(kind=kind, kv_heads=kv_heads, head_size=head_size, value_size=value, window=window)


def mlp(
    hidden: int,
    intermediate: int,
    *,
    gated: bool = True,
    bias: bool = False,
    prefix: str = "mlp.",
    split: bool = True,
) -> Tensors:
    """A dense MLP; `split` False: whole on every rank."""
    rows, columns = (Split.ROWS, Split.COLUMNS) if split else (Split.WHOLE, Split.WHOLE)
    up = linear(f"{prefix}up_proj", intermediate, hidden, rows, bias=bias)
    gate = linear(f"{prefix}gate_proj", intermediate, hidden, rows, bias=bias) if gated else ()
    return (*gate, *up, *linear(f"{prefix}down_proj", hidden, intermediate, columns, bias=bias))


def experts(
    hidden: int,
    intermediate: int,
    count: int,
    *,
    gated: bool = True,
    bias: bool = False,
    prefix: str = "mlp.experts.",
) -> Tensors:
    """Routed experts: tensor parallelism cuts each one's intermediate size, expert parallelism deals out whole ones."""
    sides = 2 if gated else 1
    up = Tensor(
        name=f"{prefix}gate_up_proj",
        rows=sides * intermediate,
        columns=hidden,
        split=Split.EXPERT_ROWS,
        linear=True,
        copies=count,
    )
    down = Tensor(
        name=f"{prefix}down_proj",
        rows=hidden,
        columns=intermediate,
        split=Split.EXPERT_COLUMNS,
        linear=True,
        copies=count,
    )
    if not bias:
        return (up, down)
    return (
        up,
        down,
        Tensor(name=f"{prefix}up_bias", rows=sides * intermediate, split=Split.EXPERT_ROWS, copies=count),
        Tensor(name=f"{prefix}down_bias", rows=hidden, split=Split.EXPERT_WHOLE, copies=count),
    )


def router(
    hidden: int, count: int, *, bias: bool = False, name: str = "mlp.gate", element_bytes: int | None = None
) -> Tensors:
    """The router, whole on every rank and never packed."""
    gate = Tensor(name=name, rows=count, columns=hidden, element_bytes=element_bytes)
    return (gate, Tensor(name=f"{name}.bias", rows=count)) if bias else (gate,)


def correction(count: int) -> Tensor:
    """The router's correction bias, in fp32 (DeepSeek-V3, GLM-4.5, ...)."""
    return Tensor(name="mlp.gate.e_score_correction_bias", rows=count, element_bytes=4)


def embedding(vocabulary: int, hidden: int, name: str = "model.embed_tokens") -> Tensor:
    """An embedding or lm_head: rows padded to 64 and divided by tp."""
    return Tensor(name=name, rows=vocabulary, columns=hidden, split=Split.VOCABULARY)


def head(vocabulary: int, hidden: int) -> Tensor:
    """lm_head, which some checkpoints quantize."""
    return Tensor(name="lm_head", rows=vocabulary, columns=hidden, split=Split.VOCABULARY, linear=True)
