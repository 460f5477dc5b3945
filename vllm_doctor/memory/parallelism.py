"""Whether the parallel sizes divide the model, and how many GPUs they take, in the words of vLLM's own refusals."""

from collections.abc import Iterator

from vllm_doctor.memory.defaults import NEWEST
from vllm_doctor.memory.facts import Architecture, Device, LaunchSettings, Quantization, Release, Split, Tensor
from vllm_doctor.memory.implementation import BACKEND_FROM, WITHOUT_STAGES, built_as
from vllm_doctor.memory.packing import EXPERT_SPLITS, ignored_names, is_packed, matches
from vllm_doctor.memory.sharding import vocabulary_rows

_MAMBA_GROUPS = "If tensor parallel world size does not divide num_groups, then num_groups must equal 1."


# Experts of FP8 blocks that the ranks do not divide: refused to 0.28, made to fit in 0.32 (fused_moe/oracle/fp8.py).
_EXPERT_BLOCKS_REFUSED_BEFORE: Release = (0, 29, 0)
# The checks of FP8 blocks came with DeepSeek-V3 (quantization/fp8.py).
_BLOCKS_FROM: Release = (0, 7, 0)
# From here on the group is named (0.32 distributed/utils.py verify_group_size_divides_partition); before, an assertion.
_GROUPS_NAMED_FROM: Release = (0, 32, 0)


def indivisible(architecture: Architecture, settings: LaunchSettings, release: Release | None = None) -> str | None:
    """Why the model cannot be split so, in vLLM's words; None where it can.

    Query heads and stages: vllm/config/model.py `verify_with_parallel_config`; the others end the making of a layer.
    """
    size, version = settings.tensor_parallel_size, release or NEWEST
    if size > 1 and (refusal := _heads(architecture, size)) is not None:
        return refusal
    if settings.pipeline_parallel_size > 1 and (refusal := _stages(architecture)) is not None:
        return refusal
    if size <= 1:
        return None
    return (
        _vocabulary(architecture, size)
        or _states(architecture, size)
        or _widths(architecture, size)
        or (_towers(architecture, size) if version >= BACKEND_FROM else None)
        or _packing(architecture, settings, version)
    )


_NO_STAGES = (
    "Pipeline parallelism is not supported for this model. Supported models implement the `SupportsPP` interface."
)


def _stages(architecture: Architecture) -> str | None:
    if architecture.name in WITHOUT_STAGES:
        return _NO_STAGES
    if built_as(architecture) not in _HALF_STAGED:
        return None
    return f"AttributeError: '{architecture.name}' object has no attribute 'make_empty_intermediate_tensors'"


# These are taken for such as have stages, and lack what the runner of the second asks for (0.32
# models/glm5next/common/model.py: "gated off"; v1/worker/gpu/model_runner.py).
_HALF_STAGED = frozenset(("Glm5NextForCausalLM",))


def _heads(architecture: Architecture, size: int) -> str | None:
    """Attention heads (key-value heads: e.g. vllm/model_executor/models/llama.py)."""
    heads, kv_heads = architecture.attention_heads, architecture.kv_heads
    if not heads:
        return None
    if heads % size:
        return f"Total number of attention heads ({heads}) must be divisible by tensor parallel size ({size})."
    if kv_heads and (kv_heads % size if kv_heads >= size else size % kv_heads):
        return f"AssertionError: {kv_heads} key-value heads cannot be dealt out to {size} ranks"
    return _unrepeated(architecture, size)


def _unrepeated(architecture: Architecture, size: int) -> str | None:
    """Key-value heads that may not stand on several ranks, beside learned keys or the states of convolutions.

    0.32 model_executor/models/openpangu.py OpenPanguSinkAttention, models/inkling/nvidia/sconv_swa_attn.py.
    """
    heads = min((c.kv_heads for k in architecture.kinds for c in k.caches if c.kv_heads), default=size)
    if heads >= size:
        return None
    if built_as(architecture) == "InklingForCausalLM":
        return f"AssertionError: sconv SWA cache supports tp_size <= num_kv_heads ({heads}), got {size}"
    if any(t.name == "self_attn.param_sink" for kind in architecture.kinds for t in kind.tensors):
        return f"Number of KV heads {heads} is less than TP size {size}, KV heads replication is not support yet."
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
            return f"AssertionError: {_MAMBA_GROUPS}"
    return None


def _widths(architecture: Architecture, size: int) -> str | None:
    """Widths of dense MLPs (0.32 layers/linear.py MergedColumnParallelLinear, ColumnParallelLinear)."""
    tensors = (t for kind in architecture.kinds for t in kind.tensors)
    width = next((t.rows for t in tensors if t.name == "mlp.up_proj" and t.split is Split.ROWS and t.rows % size), None)
    return None if width is None else f"AssertionError: an MLP of width {width} cannot be dealt out to {size} ranks"


def _towers(architecture: Architecture, size: int) -> str | None:
    """Heads and widths of towers that the Transformers backend fuses (0.32 distributed/utils.py divide)."""
    units = next((t.units for t in architecture.towers if t.units % size), None)
    return None if units is None else f"AssertionError: {units} is not divisible by {size}"


def _packing(architecture: Architecture, settings: LaunchSettings, release: Release) -> str | None:
    """Blocks and groups of a packed checkpoint that a rank would have to share with the next."""
    packing = architecture.quantization
    if packing is None:
        return None
    for tensor in _packed(architecture, packing):
        if packing.block is not None:
            refusal = None if _is_padded(tensor, packing) else _blocks(tensor, packing.block, settings, release)
        else:
            refusal = _groups(tensor, packing, settings.tensor_parallel_size, release)
        if refusal is not None:
            return refusal
    return None


def _packed(architecture: Architecture, packing: Quantization) -> Iterator[Tensor]:
    everywhere, _ = ignored_names(packing.ignored)
    tensors = dict.fromkeys(t for kind in architecture.kinds for t in kind.tensors)
    return (t for t in tensors if is_packed(t, packing) and not matches(t.name, everywhere))


def _is_padded(tensor: Tensor, packing: Quantization) -> bool:
    """Whether ranks hold whole blocks of it anyway, or experts that are packed another way."""
    whole = packing.block is not None and tensor.multiple % packing.block[0] == 0
    return whole or (packing.experts is not None and tensor.split in EXPERT_SPLITS)


def _blocks(tensor: Tensor, block: tuple[int, int], settings: LaunchSettings, release: Release) -> str | None:
    """FP8 blocks (0.32 quantization/utils/fp8_utils.py validate_fp8_block_shape, validate_fp8_block_shape_moe)."""
    rows, columns = block
    part = tensor.columns // settings.tensor_parallel_size
    if release < _BLOCKS_FROM:
        return None
    if tensor.split is Split.COLUMNS and part % columns:
        return f"Weight input_size_per_partition = {part} is not divisible by weight quantization block_k = {columns}."
    split = tensor.split is Split.EXPERT_COLUMNS and not settings.expert_parallel
    if split and part % rows and release < _EXPERT_BLOCKS_REFUSED_BEFORE:
        return (
            f"The output_size of gate's and up's weight = {part} is not divisible by weight quantization "
            f"block_n = {rows}."
        )
    return None


def _groups(tensor: Tensor, packing: Quantization, size: int, release: Release) -> str | None:
    """Groups of AWQ (quantization/awq.py, auto_awq.py) and compressed-tensors (schemes/compressed_tensors_wNa16.py).

    GPTQ has kernels that take parts of a group, and experts are padded.
    """
    if packing.group <= 0 or packing.float_format or tensor.split is not Split.COLUMNS:
        return None
    part = tensor.columns // size
    if part % packing.group == 0:
        return None
    if packing.method in ("awq", "awq_marlin"):
        return _MISALIGNED
    if packing.method != "compressed-tensors" or packing.activation_order:
        return None
    if release < _GROUPS_NAMED_FROM:
        return f"AssertionError: input_size_per_partition {part} % group_size {packing.group} is not 0"
    return (
        f"Weight input_size_per_partition={part} is not divisible by group_size={packing.group}. This happens when "
        "tensor_parallel_size splits the layer input into shards that are not a whole number of quant groups. Consider "
        "reducing tensor_parallel_size."
    )


_MISALIGNED = (
    "The input size is not aligned with the quantized weight shape. This can be caused by too large tensor parallel "
    "size."
)


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


def sizes(architecture: Architecture, most: int, release: Release | None = None) -> tuple[int, ...]:
    """The tensor parallel sizes up to `most` that divide the model: powers of two, as machines have GPUs."""
    found = []
    size = 1
    while size <= most:
        if indivisible(architecture, LaunchSettings(tensor_parallel_size=size), release) is None:
            found.append(size)
        size *= 2
    return tuple(found)
