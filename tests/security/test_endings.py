"""Whoever interrupts or terminates the doctor finds nothing of it left, and does not wait for it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cli.calling import ROOT

# An interpreter that never answers, ignores what can be ignored, and has a child of its own.
HANGING = "#!/bin/sh\ntrap '' TERM INT HUP\n: {mark}\nsleep 300 &\nsleep 300\n"


@pytest.fixture
def hanging(tmp_path: Path) -> Path:
    path = tmp_path / "python3"
    path.write_text(HANGING.format(mark=tmp_path), encoding="utf-8")
    path.chmod(0o755)
    return path


def descendants_of(mark: str) -> list[int]:
    """The processes whose environment names the mark."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and int(entry.name) != os.getpid():
            try:
                if f"DOCTOR_TEST_MARK={mark}".encode() in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


def started(hanging: Path, *options: str) -> "subprocess.Popen[bytes]":
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'checks'}", "DOCTOR_TEST_MARK": str(hanging)}
    argv = [sys.executable, "-m", "vllm_doctor", "run", "--python", str(hanging), *options]
    return subprocess.Popen(
        argv,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def gone(mark: str) -> bool:
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        if not descendants_of(mark):
            return True
        time.sleep(0.05)
    return False


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="no /proc here")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_ended_doctor_leaves_nothing_behind(hanging: Path, number: signal.Signals) -> None:
    doctor = started(hanging, "--timeout", "120")
    deadline = time.monotonic() + 20
    while len(descendants_of(str(hanging))) < 3 and time.monotonic() < deadline:
        time.sleep(0.05)
    doctor.send_signal(number)
    _, errors = doctor.communicate(timeout=10)
    assert doctor.returncode == 130
    assert errors.decode().strip() == "vllm-doctor: interrupted"
    assert gone(str(hanging))


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="no /proc here")
def test_an_interpreter_that_hangs_costs_its_time_and_no_more(hanging: Path) -> None:
    began = time.monotonic()
    doctor = started(hanging, "--timeout", "1")
    output, errors = doctor.communicate(timeout=30)
    assert time.monotonic() - began < 8
    assert b"Traceback" not in errors
    assert b"did not answer" in output
    assert gone(str(hanging))
