"""Starts the pretended server as a job, and looks by itself at what is left of it."""

import os
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

from vllm_doctor.trial.job import Job, start

PRETEND = Path(__file__).with_name("pretend.py")
WAIT_SECONDS = 20


def words(notes: Path, port: int, *acts: str) -> list[str]:
    """The command line."""
    return [sys.executable, "-I", "-S", str(PRETEND), str(notes), str(port), *acts]


def started(notes: Path, *acts: str, port: int | None = None) -> Job:
    """The job that does these."""
    port = free_port() if port is None else port
    return start(words(notes, port, *acts), environment=os.environ, folder=notes, port=port)


def free_port() -> int:
    """A port that nobody has."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(true: Callable[[], object], seconds: float = WAIT_SECONDS) -> None:
    """Wait for something that is about to happen."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


def noted(notes: Path, count: int) -> list[tuple[int, int]]:
    """The processes that have noted themselves, once there are so many: number and time of start."""
    until(lambda: len(list(notes.glob("pid-*"))) >= count)
    return [(int(path.name[4:]), int(path.read_text())) for path in notes.glob("pid-*")]


def living(processes: list[tuple[int, int]]) -> list[int]:
    """Those of them that still run, read from /proc anew; a zombie of init's does not."""
    found = []
    for pid, started_ticks in processes:
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
        except OSError:
            continue
        fields = stat.rpartition(")")[2].split()
        if int(fields[19]) == started_ticks and fields[0] != "Z":
            found.append(pid)
    return found


def segments(notes: Path) -> list[Path]:
    """The segments that were made and are still there."""
    return [path for each in notes.glob("segment-*") if (path := Path(each.read_text())).exists()]
