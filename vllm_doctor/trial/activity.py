"""What a job's processes do, as /proc shows it: whether bytes flow, and whether the port is theirs."""

import os
import time
from pathlib import Path

from vllm_doctor.facts import Unknown
from vllm_doctor.probes.servers import listeners
from vllm_doctor.trial.job import Job

# Less than this between two looks is a program that waits (its timers, its log), not one that reads or downloads.
FLOWING_BYTES_PER_SECOND = 64 * 1024
LOOK_SECONDS = 10.0

_COUNTERS = ("rchar", "wchar", "read_bytes")


class Flow:
    """The bytes that a job's processes have read and written, looked at now and then."""

    def __init__(self) -> None:
        self._at = 0.0
        self._bytes: dict[tuple[int, int], int] = {}
        self._moved = True

    def moves(self, job: Job) -> bool:
        """Whether bytes flowed between the last two looks; True until there are two."""
        now = time.monotonic()
        if now - self._at < LOOK_SECONDS:
            return self._moved
        seen = {process.identity: _moved_bytes(process.pid) for process in job.processes()}
        grown = sum(max(0, count - self._bytes.get(key, 0)) for key, count in seen.items())
        self._moved = not self._at or grown > FLOWING_BYTES_PER_SECOND * (now - self._at)
        self._at, self._bytes = now, seen
        return self._moved


def listens(job: Job) -> bool:
    """Whether a process of the job listens on its port; True where this system does not show who does.

    Another server may have the port: vLLM finds that out only when it has been imported, and until then /health is
    answered by the other.
    """
    found = listeners.listening()
    if isinstance(found, Unknown):
        return True
    wanted = {f"socket:[{socket.inode}]" for socket in found if socket.port == job.port}
    return any(wanted & _open_files(process.pid) for process in job.processes())


def _open_files(pid: int) -> set[str]:
    found = set()
    try:
        with os.scandir(f"/proc/{pid}/fd") as entries:
            for entry in entries:
                found.add(str(Path(entry.path).readlink()))
    except OSError:
        return found
    return found


def _moved_bytes(pid: int) -> int:
    """Bytes read and written: by system calls, and as pages of mapped files that came from the disk (proc(5))."""
    try:
        lines = Path(f"/proc/{pid}/io").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    pairs = (line.partition(": ") for line in lines)
    return sum(int(value) for name, _, value in pairs if name in _COUNTERS and value.isdecimal())
