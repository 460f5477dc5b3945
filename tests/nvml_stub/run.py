"""Runs a command in a child that finds the stub NVML in place of the driver's, with a scenario."""

import atexit
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import pytest

from tests.nvml_stub.build import build, compiler

SCENARIOS = Path(__file__).parents[2] / "fixtures" / "nvml"


def nvml_environment(scenario: str, **values: object) -> dict[str, str]:
    """The variables that make a child see that scenario; `values` replace its `{name}` places, such as `{pid}`.

    `scenario` is a name in fixtures/nvml, or the text of one where it holds a newline. Skips the test without a
    compiler.
    """
    if compiler() is None:
        pytest.skip("the stub NVML needs a C compiler")
    text = scenario if "\n" in scenario else (SCENARIOS / f"{scenario}.scenario").read_text(encoding="utf-8")
    for name, value in values.items():
        text = text.replace(f"{{{name}}}", str(value))
    file = _folder() / f"{abs(hash(text)):x}.scenario"
    file.write_text(text, encoding="utf-8")
    version = next((line.split()[1] for line in text.splitlines() if line.startswith("library ")), None)
    return {"NVML_STUB_SCENARIO": str(file), "LD_LIBRARY_PATH": str(_library(version))}


def run_with_nvml(
    scenario: str,
    argv: Sequence[str],
    environment: Mapping[str, str] | None = None,
    **values: object,
) -> "subprocess.CompletedProcess[str]":
    """Run the command with that scenario in place of this machine's GPUs; at most a minute."""
    variables = {**os.environ, **nvml_environment(scenario, **values), **(environment or {})}
    return subprocess.run(list(argv), env=variables, capture_output=True, text=True, timeout=60, check=False)


@lru_cache(maxsize=1)
def _folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="nvml-stub-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@lru_cache(maxsize=8)
def _library(version: str | None) -> Path:
    return build(_folder() / (version or "unversioned"), version)
