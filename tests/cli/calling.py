"""Calls `vllm-doctor` as a process of its own."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
FIXTURES = ROOT / "fixtures"
HEALTHY = FIXTURES / "snapshots" / "healthy-h100.json"

# The checks of the servers that are found on this host: those of other tests come and go.
MOVING_CHECKS = frozenset({"servers-running", "server-answer", "server-health"})


def doctor(
    *arguments: str | Path,
    folder: Path | None = None,
    variables: Mapping[str, str] | None = None,
    timeout_seconds: float = 60,
) -> subprocess.CompletedProcess[str]:
    """The finished process, with its output as text."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("VLLM_", "HF_", "GITHUB_"))}
    environment = inherited | {"PYTHONPATH": f"{ROOT}:{ROOT / 'checks'}", "HF_HUB_OFFLINE": "1"} | dict(variables or {})
    return subprocess.run(
        [sys.executable, "-m", "vllm_doctor", *map(str, arguments)],
        cwd=folder or "/",
        env=environment,
        capture_output=True,
        text=True,
        errors="strict",
        timeout=timeout_seconds,
        check=False,
    )
