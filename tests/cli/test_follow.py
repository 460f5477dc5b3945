"""`vllm-doctor explain --follow` as a process: the log is cut off, replaced, removed, or grows by very long lines."""

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cli.calling import ROOT

OOM = "RuntimeError: NCCL error: unhandled system error\n"
HEADS = "ValueError: Total number of attention heads (12) must be divisible by tensor parallel size (8).\n"

SECONDS = 30


class Following:
    """The process, and what it has said."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self._process = process
        self.said = ""

    def hears(self, word: str) -> bool:
        """Whether it says that before long."""
        assert self._process.stdout is not None
        end = time.monotonic() + SECONDS
        while word not in self.said and time.monotonic() < end:
            if select.select([self._process.stdout], [], [], 0.2)[0]:
                self.said += os.read(self._process.stdout.fileno(), 65536).decode()
        return word in self.said

    def forget(self) -> None:
        """Leave what was said so far aside."""
        self.said = ""

    @property
    def peak_mib(self) -> float:
        """The most memory it has had."""
        status = Path(f"/proc/{self._process.pid}/status").read_text(encoding="utf-8")
        return int(status.partition("VmHWM:")[2].split()[0]) / 1024


@contextmanager
def following(path: Path) -> Iterator[Following]:
    process = subprocess.Popen(
        [sys.executable, "-m", "vllm_doctor", "explain", "--follow", str(path)],
        env=os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'checks'}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        yield Following(process)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=SECONDS)
        assert process.returncode == 130
        assert b"Traceback" not in errors
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "server.log"
    path.write_text(OOM, encoding="utf-8")
    return path


def test_a_log_that_is_cut_off_is_read_anew(path: Path) -> None:
    with following(path) as doctor:
        assert doctor.hears("nccl-failure")
        path.write_text("", encoding="utf-8")
        time.sleep(1)
        doctor.forget()
        path.write_text(HEADS, encoding="utf-8")
        assert doctor.hears("tp-divisibility")
        assert "nccl-failure" not in doctor.said


def test_a_log_that_is_rotated_is_read_anew(path: Path) -> None:
    with following(path) as doctor:
        assert doctor.hears("nccl-failure")
        doctor.forget()
        path.rename(path.with_suffix(".1"))
        new = path.with_suffix(".new")
        new.write_text("INFO starting\n" * 1000 + HEADS, encoding="utf-8")
        new.rename(path)
        assert doctor.hears("tp-divisibility")
        assert "nccl-failure" not in doctor.said


def test_a_log_that_is_gone_is_waited_for(path: Path) -> None:
    with following(path) as doctor:
        assert doctor.hears("nccl-failure")
        doctor.forget()
        path.unlink()
        time.sleep(1.5)
        path.write_text(HEADS, encoding="utf-8")
        assert doctor.hears("tp-divisibility")


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc here")
def test_a_log_that_grows_by_very_long_lines_stays_small(path: Path) -> None:
    with following(path) as doctor:
        assert doctor.hears("nccl-failure")
        doctor.forget()
        with path.open("a", encoding="utf-8") as file:
            for _ in range(6):
                file.write("x" * 8_000_000)
                file.flush()
                time.sleep(0.1)
            file.write("\n" + HEADS)
        assert doctor.hears("tp-divisibility")
        assert doctor.peak_mib < 120


def test_a_line_that_is_written_in_pieces_is_found(path: Path) -> None:
    with following(path) as doctor:
        assert doctor.hears("nccl-failure")
        with path.open("a", encoding="utf-8") as file:
            for piece in (HEADS[:30], HEADS[30:60], HEADS[60:]):
                file.write(piece)
                file.flush()
                time.sleep(0.7)
        assert doctor.hears("tp-divisibility")
