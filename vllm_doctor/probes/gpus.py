"""Probes the NVIDIA GPUs through NVML: driver, boards, and the processes that hold their memory."""

from typing import Any

from vllm_doctor.facts import Gpu, GpuProcess, Gpus, MigDevice, NvmlUnavailable, Unknown
from vllm_doctor.probes import gpu_processes, nvml
from vllm_doctor.probes.nvml import Answer, first, query

# More GPUs, MIG instances or processes than any machine has: a library that names more is not believed.
_MAXIMUM_GPUS = 64
_MAXIMUM_INSTANCES = 16
_MAXIMUM_PROCESSES = 256

# nvml.h: NVML_NVLINK_MAX_LINKS.
_MAXIMUM_LINKS = 18

# nvml.h: NVML_MEMORY_ERROR_TYPE_UNCORRECTED, NVML_VOLATILE_ECC.
_UNCORRECTED, _VOLATILE = 1, 0

# nvml.h: nvmlComputeMode_t.
_COMPUTE_MODES = {0: "default", 1: "exclusive-thread", 2: "prohibited", 3: "exclusive-process"}

# nvml.h: nvmlGpuFabricState_t, an unsigned char that the binding declares as a whole word.
_FABRIC_STATES = {1: "not-started", 2: "in-progress", 3: "completed"}

# nvml.h: nvmlMemory_v2, the structure's version: (2 << 24) | sizeof.
_MEMORY_V2 = 0x2000028


def probe_gpus() -> Gpus | NvmlUnavailable:
    """The driver and its GPUs; which of NVML's refusals it was where it answers nothing at all."""
    if refused := nvml.start():
        return refused
    try:
        return _gpus()
    finally:
        nvml.stop()


def _gpus() -> Gpus | NvmlUnavailable:
    count = query("nvmlDeviceGetCount")
    if count.refusal:
        return nvml.unavailable(count)
    seen = [_gpu(index) for index in range(min(int(count.value), _MAXIMUM_GPUS))]
    devices = tuple(gpu for gpu in seen if isinstance(gpu, Gpu))
    hidden = [gpu for gpu in seen if isinstance(gpu, Answer)]
    if hidden and not devices:
        return nvml.unavailable(hidden[0])
    return Gpus(
        driver_version=query("nvmlSystemGetDriverVersion").fact(),
        cuda_version=_cuda_version(),
        devices=devices,
    )


def _cuda_version() -> str | Unknown:
    answer = query("nvmlSystemGetCudaDriverVersion_v2")
    if answer.refusal:
        return Unknown(f"NVML: {answer.text}")
    return f"{answer.value // 1000}.{answer.value % 1000 // 10}"


def _gpu(index: int) -> Gpu | Answer:
    """The GPU of that index; the refusal where this user or container may not see it."""
    handle = query("nvmlDeviceGetHandleByIndex", index)
    # A GPU that fell off the bus answers "GPU is lost" or, on many drivers, "Unknown Error" for its handle.
    if handle.lost or handle.refusal == nvml.UNKNOWN_ERROR:
        return _lost(index, handle.text)
    if handle.refusal:
        return handle
    name, memory = query("nvmlDeviceGetName", handle.value), _memory(handle.value)
    if name.lost or memory.lost:
        return _lost(index, (name if name.lost else memory).text, handle.value)
    return _answering(index, handle.value, name, memory)


def _answering(index: int, handle: Any, name: Answer, memory: Answer) -> Gpu:
    mig = query("nvmlDeviceGetMigMode", handle)
    rows = query("nvmlDeviceGetRemappedRows", handle).if_supported()
    known_rows = not isinstance(rows, Unknown) and rows is not None
    return Gpu(
        index=index,
        name=_text(name) or f"GPU {index}",
        uuid=_text(query("nvmlDeviceGetUUID", handle)),
        lost=None,
        compute_capability=_capability(handle),
        memory_total_bytes=_field(memory, "total"),
        memory_used_bytes=_field(memory, "used"),
        memory_free_bytes=_field(memory, "free"),
        mig_enabled=_first_true(mig),
        mig_devices=_instances(handle) if not mig.refusal and mig.value[0] else (),
        ecc_uncorrected=query("nvmlDeviceGetTotalEccErrors", handle, _UNCORRECTED, _VOLATILE).if_supported(),
        remapped_rows_pending=bool(rows[2]) if known_rows else rows,
        remapped_rows_failed=bool(rows[3]) if known_rows else rows,
        persistence=_switch(query("nvmlDeviceGetPersistenceMode", handle)),
        compute_mode=_named(query("nvmlDeviceGetComputeMode", handle), _COMPUTE_MODES).fact(),
        pcie_generation=query("nvmlDeviceGetCurrPcieLinkGeneration", handle).fact(),
        pcie_generation_max=query("nvmlDeviceGetMaxPcieLinkGeneration", handle).fact(),
        pcie_width=query("nvmlDeviceGetCurrPcieLinkWidth", handle).fact(),
        pcie_width_max=query("nvmlDeviceGetMaxPcieLinkWidth", handle).fact(),
        nvlinks_active=_active_links(handle),
        processes=_processes(handle),
        fabric_state=_fabric_state(handle),
    )


def _lost(index: int, text: str, handle: Any = None) -> Gpu:
    unknown = Unknown(f"the GPU does not answer: {text}")
    return Gpu(
        index=index,
        name=_text(query("nvmlDeviceGetName", handle)) or f"GPU {index}" if handle is not None else f"GPU {index}",
        uuid=_text(query("nvmlDeviceGetUUID", handle)) if handle is not None else "",
        lost=text,
        compute_capability=unknown,
        memory_total_bytes=unknown,
        memory_used_bytes=unknown,
        memory_free_bytes=unknown,
        mig_enabled=unknown,
        mig_devices=(),
        ecc_uncorrected=unknown,
        remapped_rows_pending=unknown,
        remapped_rows_failed=unknown,
        persistence=unknown,
        compute_mode=unknown,
        pcie_generation=unknown,
        pcie_generation_max=unknown,
        pcie_width=unknown,
        pcie_width_max=unknown,
        nvlinks_active=unknown,
        processes=unknown,
        fabric_state=unknown,
    )


def _memory(handle: Any) -> Answer:
    """Version 2 tells what the driver reserves from what is used; drivers before 510 know version 1 only."""
    return first(("nvmlDeviceGetMemoryInfo", handle, _MEMORY_V2), ("nvmlDeviceGetMemoryInfo", handle))


def _field(memory: Answer, name: str) -> int | Unknown:
    # Unified memory (GB10, Thor, Orin): NOT_SUPPORTED, or a total of 0.
    if memory.refusal:
        return Unknown(f"NVML: {memory.text}")
    if not memory.value.total:
        return Unknown("NVML names no memory of its own for this GPU")
    return int(getattr(memory.value, name))


def _capability(handle: Any) -> str | Unknown:
    answer = query("nvmlDeviceGetCudaComputeCapability", handle)
    return Unknown(f"NVML: {answer.text}") if answer.refusal else f"{answer.value[0]}.{answer.value[1]}"


def _instances(handle: Any) -> tuple[MigDevice, ...]:
    count = query("nvmlDeviceGetMaxMigDeviceCount", handle)
    found = []
    for index in range(0 if count.refusal else min(int(count.value), _MAXIMUM_INSTANCES)):
        instance = query("nvmlDeviceGetMigDeviceHandleByIndex", handle, index)
        if instance.refusal:
            continue
        memory = _memory(instance.value)
        found.append(
            MigDevice(
                name=_text(query("nvmlDeviceGetName", instance.value)).rpartition("MIG ")[2] or f"instance {index}",
                uuid=_text(query("nvmlDeviceGetUUID", instance.value)),
                memory_total_bytes=_field(memory, "total"),
                memory_free_bytes=_field(memory, "free"),
            )
        )
    return tuple(found)


def _active_links(handle: Any) -> int | Unknown | None:
    """The number of NVLinks that are up; None where the board has none."""
    active = 0
    for link in range(_MAXIMUM_LINKS):
        answer = query("nvmlDeviceGetNvLinkState", handle, link)
        if answer.refusal:
            # A link beyond the last is INVALID_ARGUMENT (2) or NOT_SUPPORTED.
            if answer.refusal not in (2, nvml.NOT_SUPPORTED):
                return Unknown(f"NVML: {answer.text}")
            return active if link else None
        active += bool(answer.value)
    return active


def _fabric_state(handle: Any) -> str | Unknown | None:
    """Whether the fabric manager has registered this GPU (Hopper and later); None where there is no fabric.

    nvmlDeviceGetGpuFabricInfo: a CUDA context fails with error 802 until the state is "completed".
    """
    import ctypes

    import pynvml

    structure = getattr(pynvml, "c_nvmlGpuFabricInfo_t", None)
    if structure is None:
        return Unknown("this binding cannot ask for the fabric")
    info = structure()
    # The binding hands on what it is given: by value the library would write through a wild pointer.
    answer = query("nvmlDeviceGetGpuFabricInfo", handle, ctypes.byref(info))
    if answer.refusal == nvml.FUNCTION_NOT_FOUND:
        return None
    if answer.refusal:
        unsupported: str | Unknown | None = answer.if_supported()
        return unsupported
    return _FABRIC_STATES.get(int(info.state) & 0xFF)


def _processes(handle: Any) -> tuple[GpuProcess, ...] | Unknown:
    """Compute processes, and those of graphics: both hold memory. A process that is both is named once."""
    held: dict[int, int | None] = {}
    for kind in ("Compute", "Graphics"):
        name = f"nvmlDeviceGet{kind}RunningProcesses"
        # The unversioned name is version 3 in this binding; drivers before 510 know version 2.
        answer = first((f"{name}_v3", handle), (f"{name}_v2", handle))
        if answer.refusal and kind == "Compute":
            return Unknown(f"NVML: {answer.text}")
        for process in (answer.value or [])[:_MAXIMUM_PROCESSES]:
            held[process.pid] = max(held.get(process.pid) or 0, process.usedGpuMemory or 0) or None
    return tuple(gpu_processes.describe(pid, used) for pid, used in held.items())


def _text(answer: Answer) -> str:
    return "" if answer.refusal else str(answer.value)


def _switch(answer: Answer) -> bool | Unknown:
    return Unknown(f"NVML: {answer.text}") if answer.refusal else bool(answer.value)


def _first_true(answer: Answer) -> bool | Unknown | None:
    pair: Any = answer.if_supported()
    return pair if pair is None or isinstance(pair, Unknown) else bool(pair[0])


def _named(answer: Answer, names: dict[int, str]) -> Answer:
    return answer if answer.refusal else answer._replace(value=names.get(answer.value, f"mode {answer.value}"))
