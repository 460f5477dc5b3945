"""The proof that nothing of a job is left: processes, its port, GPU memory, shared memory, sockets."""

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from msgspec import Struct

from vllm_doctor.facts import Unknown
from vllm_doctor.probes.servers import listeners
from vllm_doctor.trial import gpu_memory
from vllm_doctor.trial.guardian import folder as folders
from vllm_doctor.trial.guardian import ours, teardown
from vllm_doctor.trial.guardian.segments import Segments


class LeftBehind(Struct, frozen=True, kw_only=True):
    """What is left of a job: all of it 0, False or empty where nothing is.

    `processes` live, `zombies` only hold their number until somebody takes their exit code. `gpu_bytes` is None where
    NVML says nothing; `folder`: the job's own could not be removed. `what` says each thing in a line, and what had to
    be done (a process killed, a segment removed).
    """

    processes: int = 0
    zombies: int = 0
    port_open: bool = False
    gpu_bytes: int | None = None
    shared_memory: tuple[str, ...] = ()
    sockets: tuple[str, ...] = ()
    folder: bool = False
    what: tuple[str, ...] = ()

    @property
    def nothing(self) -> bool:
        """Whether nothing is left at all."""
        files = (self.shared_memory, self.sockets, self.folder)
        return not any((self.processes, self.zombies, self.port_open, self.gpu_bytes, *files))


class Before(Struct, frozen=True):
    """How it was before the job: who listened on its port, the shared memory, the GPUs (None: NVML says nothing)."""

    port: int
    listening: frozenset[int]
    gpus: gpu_memory.Held | None
    segments: Segments


class Report(Struct, frozen=True, kw_only=True):
    """What the taking down was: how many had to be killed, the segments removed and those still in use."""

    killed: int = 0
    removed: tuple[str, ...] = ()
    in_use: tuple[str, ...] = ()

    @staticmethod
    def read(message: Sequence[bytes]) -> "Report":
        """The guardian's message; that it started nothing is an empty report."""
        if message[0] != b"down":
            return Report()
        removed, in_use = (tuple(os.fsdecode(part).splitlines()) for part in message[2:4])
        return Report(killed=int(message[1]), removed=removed, in_use=in_use)


def before(port: int) -> Before:
    """How it is now."""
    return Before(port, _listening(port), gpu_memory.held(), Segments())


class _Unguarded(teardown.Job):
    """A job whose guardian is gone."""

    def __init__(self, members: Callable[[], list[ours.Process]]) -> None:
        self._members = members

    def members(self) -> list[ours.Process]:
        """As the job sees them."""
        return self._members()

    def pause(self, seconds: float) -> bool:
        """Wait; nobody is in a hurry."""
        time.sleep(seconds)
        return False


def take_down(members: Callable[[], list[ours.Process]], segments: Segments) -> Report:
    """Do the guardian's work where it is gone."""
    segments.note([process.pid for process in members()])
    killed = teardown.kill(_Unguarded(members))
    removed, in_use = segments.remove()
    return Report(killed=killed, removed=tuple(removed), in_use=tuple(in_use))


def examine(was: Before, report: Report, remaining: Sequence[ours.Process], folder: str) -> LeftBehind:
    """Look at everything that a server leaves."""
    living = [process for process in remaining if not process.ended]
    zombies = len(remaining) - len(living)
    port_open = bool(_listening(was.port) - was.listening)
    gpu_bytes = gpu_memory.left(was.gpus)
    sockets = tuple(folders.sockets(folder))
    return LeftBehind(
        processes=len(living),
        zombies=zombies,
        port_open=port_open,
        gpu_bytes=gpu_bytes,
        shared_memory=report.in_use,
        sockets=sockets,
        folder=Path(folder).exists(),
        what=tuple(
            _lines(was, report, living, zombies=zombies, port_open=port_open, gpu_bytes=gpu_bytes, folder=folder)
        ),
    )


def _lines(
    was: Before,
    report: Report,
    living: Sequence[ours.Process],
    *,
    zombies: int,
    port_open: bool,
    gpu_bytes: int | None,
    folder: str,
) -> list[str]:
    lines = [f"process {p.pid} ({p.name}, state {p.state}) does not end" for p in living]
    if zombies:
        lines.append(f"{zombies} ended, and init has not taken their exit codes: they hold nothing but their numbers")
    if report.killed:
        lines.append(
            "1 process did not end by itself and was killed"
            if report.killed == 1
            else f"{report.killed} processes did not end by themselves and were killed"
        )
    if port_open:
        lines.append(f"port {was.port} is still open")
    if gpu_bytes:
        lines.append(f"{gpu_bytes / 2**20:.0f} MiB of GPU memory are held that were free before")
    lines += [f"{path}: shared memory of the server, removed" for path in report.removed]
    lines += [f"{path}: shared memory of the server that another process holds" for path in report.in_use]
    if Path(folder).exists():
        lines.append(f"{folder}: the job's folder could not be removed")
    return lines


def _listening(port: int) -> frozenset[int]:
    """The sockets that listen on that port, by inode."""
    found = listeners.listening()
    return frozenset() if isinstance(found, Unknown) else frozenset(s.inode for s in found if s.port == port)
