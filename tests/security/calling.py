"""Calls the doctor and measures what it cost."""

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from tests.cli.calling import ROOT


class Call(NamedTuple):
    """A finished call: its exit code and output, its seconds on the wall, its peak memory in MiB (with children)."""

    code: int
    output: str
    seconds: float
    peak_mib: float


# Calls a command, and prints the peak memory of its processes.
MEASURE = """
import resource, subprocess, sys
code = subprocess.call(sys.argv[1:])
print("PEAK", resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(code)
"""


def measured(
    *arguments: str | Path,
    folder: Path | None = None,
    variables: Mapping[str, str] | None = None,
    limit_seconds: int = 90,
) -> Call:
    """Run `vllm-doctor`; fails where it shows a traceback or a terminal escape."""
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'checks'}", "HF_HUB_OFFLINE": "1", **(variables or {})}
    argv = [sys.executable, "-c", MEASURE, sys.executable, "-m", "vllm_doctor", *map(str, arguments)]
    started = time.monotonic()
    done = subprocess.run(
        argv, cwd=folder or "/", env=environment, capture_output=True, timeout=limit_seconds, check=False
    )
    seconds = time.monotonic() - started
    output = (done.stdout + done.stderr).decode("utf-8", "strict")
    head, _, tail = output.partition("PEAK ")
    output = head + tail.partition("\n")[2]
    assert "Traceback" not in output
    assert "internal error" not in output
    assert "\x1b" not in output
    return Call(done.returncode, output, seconds, int(tail.split()[0]) / 1024)
