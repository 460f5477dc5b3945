"""What the GPUs hold before a job and after it, and how much of the difference is the job's."""

import time

from msgspec import Struct

from vllm_doctor.facts import Gpu, Gpus, Unknown
from vllm_doctor.probes.gpus import probe_gpus
from vllm_doctor.probes.running import Running

# A driver that hangs is not waited for any longer.
NVML_SECONDS = 20.0

# The driver gives back the memory of a process that died within a second or two; so long is it waited for.
RELEASE_SECONDS = 6.0
_LOOK_SECONDS = 0.3

# The driver itself, loaded and unloaded with its first and last client, or a desktop moves this much.
TOLERANCE_BYTES = 32 * 2**20


class Held(Struct, frozen=True):
    """The bytes in use of each GPU by its UUID, and of each process on it by its number."""

    used: dict[str, int]
    processes: dict[tuple[str, int], int]


def held() -> Held | None:
    """What is held now; None where NVML is not there, does not answer, or counts no memory (unified memory)."""
    found = Running("gpus", probe_gpus).result(NVML_SECONDS)
    if not isinstance(found, Gpus):
        return None
    used = {_name(gpu): gpu.memory_used_bytes for gpu in found.devices if isinstance(gpu.memory_used_bytes, int)}
    return Held(used, _of_processes(found)) if used else None


def left(before: Held | None) -> int | None:
    """The bytes that are still held and were not before, without what other programs took meanwhile; None: unknown."""
    if before is None:
        return None
    end = time.monotonic() + RELEASE_SECONDS
    while (now := held()) is not None:
        grown = growth(before, now)
        if not grown or time.monotonic() > end:
            return grown
        time.sleep(_LOOK_SECONDS)
    return None


def growth(before: Held, now: Held) -> int:
    """The growth of all GPUs, less that of the processes which NVML names: the job's are dead, so those are others'."""
    total = 0
    for gpu, used in now.used.items():
        others = sum(
            max(0, taken - before.processes.get((of, pid), 0))
            for (of, pid), taken in now.processes.items()
            if of == gpu
        )
        grown = used - before.used.get(gpu, used) - others
        total += grown if grown > TOLERANCE_BYTES else 0
    return total


def _of_processes(found: Gpus) -> dict[tuple[str, int], int]:
    return {
        (_name(gpu), process.pid): process.used_bytes
        for gpu in found.devices
        if not isinstance(gpu.processes, Unknown)
        for process in gpu.processes
        if isinstance(process.used_bytes, int)
    }


def _name(gpu: Gpu) -> str:
    return gpu.uuid or str(gpu.index)
