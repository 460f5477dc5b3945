"""Memory outside of torch's allocator: kernels' modules, cuBLAS, NCCL and the buffers of all-reduce."""

from vllm_doctor.memory import coefficients
from vllm_doctor.memory.defaults import NEWEST
from vllm_doctor.memory.estimate import GIB, Estimate
from vllm_doctor.memory.facts import Device, LaunchSettings, Release

# Ranks that exchange over NVLink get large all-reduce buffers (symmetric memory, FlashInfer's fused all-reduce):
# 2.1 GiB measured on H100 with 0.19.0. Logged on other cards and with older releases: 0.2 to 1.0 GiB.
_LARGE_BUFFERS_FROM: Release = (0, 14, 0)
_LARGE_BUFFERS_CAPABILITY = 90
# Before, 2.4 GiB were logged on 4 H100 too (vLLM issue 21348, 0.9.2): NCCL's own buffers for NVLink switches.
_SWITCH_HIGH = int(2.5 * GIB)

# Logged for one GPU: 0.05 to 0.46 GiB.
_SINGLE_LOW, _SINGLE_HIGH = GIB // 20, GIB // 2


def non_torch(settings: LaunchSettings, device: Device, release: Release | None) -> Estimate:
    """What a rank holds beyond torch's own allocations after the profile run."""
    found = _plain(settings, device, release or NEWEST)
    if settings.expert_parallel and settings.tensor_parallel_size * settings.data_parallel_size > 1:
        # All-to-all buffers of the expert parallel backends: 1 to 4 GiB (vllm/distributed/device_communicators).
        return Estimate(found.low, found.typical + GIB, found.high + 4 * GIB)
    return found


def _plain(settings: LaunchSettings, device: Device, release: Release) -> Estimate:
    if settings.tensor_parallel_size > 1:
        large = release >= _LARGE_BUFFERS_FROM and (device.capability or 0) in (_LARGE_BUFFERS_CAPABILITY, 100, 103)
        if large:
            typical = coefficients.NON_TORCH_TENSOR_PARALLEL_BYTES
            return Estimate(GIB // 5, typical, typical + GIB // 4)
        high = _SWITCH_HIGH if (device.capability or 0) == _LARGE_BUFFERS_CAPABILITY else GIB
        return Estimate(GIB // 5, int(0.4 * GIB), high)
    if settings.pipeline_parallel_size > 1:
        typical = coefficients.NON_TORCH_PIPELINE_BYTES
        return Estimate(GIB // 20, typical, GIB // 2)
    return Estimate(_SINGLE_LOW, coefficients.NON_TORCH_SINGLE_BYTES, _SINGLE_HIGH)


def counted_of_others(device: Device, release: Release | None) -> int:
    """What other processes hold of the GPU, in the releases that count it as their own.

    They took all that is not free for theirs (`total_allocated_bytes`: v1/worker/gpu_worker.py of 0.8.0 to 0.9.0, and
    worker/worker.py of 0.6.4): vLLM issues 10439, 17431.
    """
    version = release or NEWEST
    if device.free_bytes is None or not ((0, 8, 0) <= version <= (0, 9, 0) or version == (0, 6, 4)):
        return 0
    # Less than this an idle card holds back itself.
    held = device.total_bytes - device.free_bytes
    return held if held > GIB else 0


def context(settings: LaunchSettings, device: Device, release: Release | None) -> Estimate:
    """What of an idle card is never free at the baseline: the CUDA context, and NCCL's groups with several ranks."""
    version = release or NEWEST
    single = coefficients.CONTEXT_BYTES
    ranks = settings.tensor_parallel_size * settings.pipeline_parallel_size
    if device.total_bytes < 20 * GIB:
        single //= 4
    if ranks == 1 or version < (0, 9, 0):
        return Estimate(GIB // 10, single, int(0.65 * GIB))
    if (device.capability or 0) >= _LARGE_BUFFERS_CAPABILITY:
        # Measured on H100 with NVLink: 1.4 to 2.0 GiB.
        return Estimate(GIB // 2, coefficients.CONTEXT_GROUPS_BYTES, 2 * GIB)
    return Estimate(GIB // 4, single * 5 // 4, int(0.9 * GIB))
