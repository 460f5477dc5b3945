"""Facts that NVML tells: the driver, the GPUs, and the processes that hold their memory."""

from enum import Enum

from vllm_doctor.facts.base import Bytes, Count, Facts, Section, Unknown


class NvmlFailure(str, Enum):
    """Why NVML answers nothing (NVML's return codes: nvml.h, nvmlReturn_t)."""

    NO_LIBRARY = "no-library"
    DRIVER_NOT_LOADED = "driver-not-loaded"
    VERSION_MISMATCH = "version-mismatch"
    NO_PERMISSION = "no-permission"
    GPU_LOST = "gpu-lost"
    OTHER = "other"


class NvmlUnavailable(Section, frozen=True):
    """NVML could be asked nothing; `library_version` is that of the user-space library where it can be read."""

    failure: NvmlFailure
    detail: str
    library_version: str | None = None


class ProcessRole(str, Enum):
    """What a process that holds GPU memory is to vLLM.

    An orphan is a vLLM engine core or worker whose parent is gone (adopted by init or a subreaper that is no vLLM).
    """

    VLLM_SERVER = "vllm-server"
    VLLM_WORKER = "vllm-worker"
    VLLM_ORPHAN = "vllm-orphan"
    DOCTOR = "doctor"
    OTHER = "other"


class GpuProcess(Facts, frozen=True):
    """A process with memory on a GPU.

    `visible` is False where the pid belongs to another pid namespace (a container's host): nothing but the pid is then
    known. `parent_pid` 1 or a dead parent makes an orphan.
    """

    pid: Count
    used_bytes: Bytes | Unknown
    visible: bool
    role: ProcessRole
    user: str | Unknown
    command: str | Unknown
    age_seconds: float | Unknown
    parent_pid: Count | Unknown
    container: str | Unknown | None


class MigDevice(Facts, frozen=True):
    """One MIG instance: its profile name (`1g.10gb`), UUID and memory."""

    name: str
    uuid: str
    memory_total_bytes: Bytes | Unknown
    memory_free_bytes: Bytes | Unknown


class Gpu(Facts, frozen=True):
    """One GPU as NVML shows it; `index` is NVML's. `lost` holds NVML's text where the GPU does not answer any more.

    `ecc_uncorrected` is the volatile count; None where the board has no ECC. `mig_enabled` is None where it has no MIG.
    `compute_capability` is `MAJOR.MINOR`. `fabric_state` (NVSwitch machines from Hopper on) is completed, in-progress
    or not-started; None where there is no fabric.
    """

    index: Count
    name: str
    uuid: str
    lost: str | None
    compute_capability: str | Unknown
    memory_total_bytes: Bytes | Unknown
    memory_used_bytes: Bytes | Unknown
    memory_free_bytes: Bytes | Unknown
    mig_enabled: bool | Unknown | None
    mig_devices: tuple[MigDevice, ...]
    ecc_uncorrected: Count | Unknown | None
    remapped_rows_pending: bool | Unknown | None
    remapped_rows_failed: bool | Unknown | None
    persistence: bool | Unknown
    compute_mode: str | Unknown
    pcie_generation: Count | Unknown
    pcie_generation_max: Count | Unknown
    pcie_width: Count | Unknown
    pcie_width_max: Count | Unknown
    nvlinks_active: Count | Unknown | None
    processes: tuple[GpuProcess, ...] | Unknown
    fabric_state: str | Unknown | None = None


class Gpus(Section, frozen=True):
    """The NVIDIA GPUs; `cuda_version` is the highest CUDA that the driver supports, not what is installed."""

    driver_version: str | Unknown
    cuda_version: str | Unknown
    devices: tuple[Gpu, ...]
