"""Whether the parallel sizes divide the model, and how many GPUs they take, in the words of vLLM's own refusals."""

from vllm_doctor.memory.facts import Architecture, Device, LaunchSettings, Split
from vllm_doctor.memory.sharding import vocabulary_rows

_GROUPS = "If tensor parallel world size does not divide num_groups, then num_groups must equal 1."


def indivisible(architecture: Architecture, settings: LaunchSettings) -> str | None:
    """Why the model cannot be split so (vllm/config/model.py `verify_with_parallel_config`); None where it can.

    All but the query heads: an AssertionError while the layers are built.
    """
    size = settings.tensor_parallel_size
    if size <= 1:
        return None
    return (
        _heads(architecture, size)
        or _vocabulary(architecture, size)
        or _states(architecture, size)
        or _widths(architecture, size)
    )


def _heads(architecture: Architecture, size: int) -> str | None:
    """Attention heads (key-value heads: e.g. vllm/model_executor/models/llama.py)."""
    heads, kv_heads = architecture.attention_heads, architecture.kv_heads
    if not heads:
        return None
    if heads % size:
        return f"Total number of attention heads ({heads}) must be divisible by tensor parallel size ({size})."
    if kv_heads and (kv_heads % size if kv_heads >= size else size % kv_heads):
        return f"AssertionError: {kv_heads} key-value heads cannot be dealt out to {size} ranks"
    return None


def _vocabulary(architecture: Architecture, size: int) -> str | None:
    """The vocabulary, padded to 64 rows and no further (0.32 layers/vocab_parallel_embedding.py)."""
    for tensor in (t for t in architecture.first if t.split is Split.VOCABULARY):
        if (rows := vocabulary_rows(tensor.rows, 1)) % size:
            return f"AssertionError: {rows} is not divisible by {size}"
    return None


def _states(architecture: Architecture, size: int) -> str | None:
    """Mamba-2 heads and groups (0.32 layers/mamba/mamba_mixer2.py MambaMixer2)."""
    for cache in (c for kind in architecture.kinds for c in kind.caches if c.state_name == "mamba2"):
        _, groups, heads = (state.divided for state in cache.states)
        if heads % size:
            return "AssertionError: Tensor parallel world size must divide num heads."
        if groups != 1 and groups % size:
            return f"AssertionError: {_GROUPS}"
    return None


def _widths(architecture: Architecture, size: int) -> str | None:
    """Widths of dense MLPs (0.32 layers/linear.py MergedColumnParallelLinear, ColumnParallelLinear)."""
    tensors = (t for kind in architecture.kinds for t in kind.tensors)
    width = next((t.rows for t in tensors if t.name == "mlp.up_proj" and t.split is Split.ROWS and t.rows % size), None)
    return None if width is None else f"AssertionError: an MLP of width {width} cannot be dealt out to {size} ranks"


def gpus_needed(settings: LaunchSettings) -> int:
    """The GPUs of all replicas."""
    return settings.tensor_parallel_size * settings.pipeline_parallel_size * settings.data_parallel_size


def too_few(settings: LaunchSettings, device: Device) -> str | None:
    """Why there are too few GPUs (vllm/config/parallel.py); None where there are enough."""
    needed = gpus_needed(settings)
    if needed <= device.count:
        return None
    return (
        f"World size ({needed}) is larger than the number of available GPUs ({device.count}) in this node. If this is "
        "intentional and you are using: - ray, set '--distributed-executor-backend ray'. - multiprocessing, set "
        "'--nnodes' appropriately."
    )


def sizes(architecture: Architecture, most: int) -> tuple[int, ...]:
    """The tensor parallel sizes up to `most` that divide the model: powers of two, as machines have GPUs."""
    found = []
    size = 1
    while size <= most:
        if indivisible(architecture, LaunchSettings(tensor_parallel_size=size)) is None:
            found.append(size)
        size *= 2
    return tuple(found)
