"""Whether the parallel sizes divide the model, and how many GPUs they take, in the words of vLLM's own refusals."""

from vllm_doctor.memory.facts import Architecture, Device, LaunchSettings


def indivisible(architecture: Architecture, settings: LaunchSettings) -> str | None:
    """Why the model cannot be split so (vllm/config/model.py `verify_with_parallel_config`); None where it can.

    Key-value heads: an AssertionError while the layers are built (e.g. vllm/model_executor/models/llama.py).
    """
    size = settings.tensor_parallel_size
    heads, kv_heads = architecture.attention_heads, architecture.kv_heads
    if size <= 1 or not heads:
        return None
    if heads % size:
        return f"Total number of attention heads ({heads}) must be divisible by tensor parallel size ({size})."
    if kv_heads and (kv_heads % size if kv_heads >= size else size % kv_heads):
        return f"AssertionError: {kv_heads} key-value heads cannot be dealt out to {size} ranks"
    return None


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
