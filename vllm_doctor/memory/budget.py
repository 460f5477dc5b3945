"""The budget of a launch: what vLLM may take of a GPU, what is free of it now, and who holds the rest."""

from vllm_doctor import hardware
from vllm_doctor.facts import Gpu, Unknown
from vllm_doctor.facts.base import Facts
from vllm_doctor.memory import overhead
from vllm_doctor.memory.defaults import Defaults
from vllm_doctor.memory.estimate import GIB, MIB, Estimate, exactly, gib
from vllm_doctor.memory.facts import Device, LaunchSettings, Release

# Total memory as torch (cudaMemGetInfo) reports it, in GiB, where public start-up logs show it; by words of the name.
_TORCH_TOTAL_GIB = {
    ("a100", "80"): 79.25, ("h100",): 79.19, ("h800",): 79.19, ("h200",): 139.81, ("b200",): 178.35,
    ("l40s",): 44.42, ("l20",): 44.5, ("l40",): 44.5, ("l4",): 22.05, ("a10",): 22.06, ("a10g",): 22.06,
    ("t4",): 14.65, ("rtx", "4090"): 23.55, ("rtx", "3090"): 23.56, ("rtx", "5090"): 31.36,
}  # fmt: skip

# Elsewhere torch's total is below NVML's by 0.25 % and 0.3 GiB (the points above lie within 0.3 GiB of that).
_SHARE, _CONSTANT_BYTES = 0.9975, int(0.3 * GIB)

# The test of free memory at the start exists from 0.9.0 (v1/worker/gpu_worker.py init_device); before, memory runs out
# later.
_FREE_TESTED: Release = (0, 9, 0)


class Budget(Facts, frozen=True):
    """What vLLM is told to take of one GPU (`requested_bytes`), and what it finds free at its start (`free`).

    `known_free`: the free memory was read from the card, so that only vLLM's own context is estimated.
    """

    total_bytes: int
    requested_bytes: int
    utilization: float
    free: Estimate
    known_free: bool
    tested: bool

    def refusal(self, free_bytes: int) -> str | None:
        """vLLM's message where less is free than it is told to take (v1/worker/utils.py request_memory)."""
        if not self.tested or free_bytes >= self.requested_bytes:
            return None
        found = f"{free_bytes / GIB:.2f}/{self.total_bytes / GIB:.2f} GiB"
        wanted = f"{self.utilization:g}, {self.requested_bytes / GIB:.2f} GiB"
        return (
            f"Free memory on device cuda:0 ({found}) on startup is less than desired GPU memory utilization "
            f"({wanted}). Decrease GPU memory utilization or reduce GPU memory used by other processes."
        )


def budget(settings: LaunchSettings, defaults: Defaults, device: Device, release: Release | None) -> Budget:
    """The budget on one GPU; without a card at hand all of it is taken to be free but for vLLM's context."""
    context = overhead.context(settings, device, release)
    unused = device.total_bytes if device.free_bytes is None else min(device.free_bytes, device.total_bytes)
    free = Estimate(max(0, unused - context.high), max(0, unused - context.typical), max(0, unused - context.low))
    share = defaults.gpu_memory_utilization
    return Budget(
        total_bytes=device.total_bytes,
        requested_bytes=-int(-device.total_bytes * share // 1),
        utilization=share,
        free=free if unused else exactly(0),
        known_free=device.free_bytes is not None,
        tested=release is None or release >= _FREE_TESTED,
    )


def torch_total_bytes(name: str, nvml_bytes: int) -> int:
    """What torch will report as the total of a board whose memory NVML gives as that."""
    words = set("".join(c if c.isalnum() else " " for c in name.lower().replace("80gb", "80 gb")).split())
    for wanted, size in _TORCH_TOTAL_GIB.items():
        if words.issuperset(wanted) and abs(size * GIB - nvml_bytes) < 0.025 * nvml_bytes:
            return int(size * GIB)
    return max(0, int(nvml_bytes * _SHARE) - _CONSTANT_BYTES)


def capability_number(capability: str | None) -> int | None:
    """`9.0` as 90, `12.1` as 121; None where it is not known."""
    major, _, minor = (capability or "").partition(".")
    return int(major) * 10 + int(minor) if major.isdecimal() and minor.isdecimal() and len(minor) == 1 else None


def device_of_board(board: hardware.GpuModel, memory_mib: int, count: int) -> Device:
    """A board of the catalogue that is not here: nothing on it is taken."""
    return Device(
        name=board.name,
        total_bytes=torch_total_bytes(board.name, memory_mib * MIB),
        capability=capability_number(board.compute_capability),
        count=count,
    )


def device_of_gpus(gpus: tuple[Gpu, ...]) -> Device | Unknown:
    """The GPUs at hand as one device: the memory of the smallest, the free memory of the fullest."""
    if not gpus:
        return Unknown("no GPU is visible to the launch")
    totals, frees = [], []
    for gpu in gpus:
        if isinstance(gpu.memory_total_bytes, Unknown):
            return gpu.memory_total_bytes
        total = torch_total_bytes(gpu.name, gpu.memory_total_bytes)
        totals.append(total)
        if isinstance(gpu.memory_free_bytes, Unknown):
            return gpu.memory_free_bytes
        frees.append(min(total, gpu.memory_free_bytes))
    capability = gpus[0].compute_capability
    return Device(
        name=gpus[0].name,
        total_bytes=min(totals),
        free_bytes=min(frees),
        capability=None if isinstance(capability, Unknown) else capability_number(capability),
        count=len(gpus),
    )


def holders(gpus: tuple[Gpu, ...]) -> tuple[str, ...]:
    """Who holds memory of these GPUs, the largest first; a process of another pid namespace has only its number."""
    found: list[tuple[int, str]] = []
    for gpu in gpus:
        if isinstance(gpu.processes, Unknown):
            continue
        for process in gpu.processes:
            used = 0 if isinstance(process.used_bytes, Unknown) else process.used_bytes
            command = "" if isinstance(process.command, Unknown) else f" ({process.command[:60]})"
            found.append((used, f"GPU {gpu.index}: process {process.pid}{command} holds {gib(used) if used else '?'}"))
    return tuple(text for _, text in sorted(found, key=lambda pair: -pair[0])[:8])
