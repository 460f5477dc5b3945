"""Runs the real GPU probe in a child that finds the stub NVML, and reads what it brought."""

import sys
from pathlib import Path

import msgspec

from tests.nvml_stub import run_with_nvml
from vllm_doctor.facts import Gpus, NvmlUnavailable

ROOT = Path(__file__).parents[2]
PROBE = (
    "import sys, msgspec; from vllm_doctor.probes.gpus import probe_gpus;"
    " sys.stdout.buffer.write(msgspec.json.encode(probe_gpus()))"
)


def probed(scenario: str, **values: object) -> Gpus | NvmlUnavailable:
    """What the probe says of that scenario."""
    done = run_with_nvml(scenario, [sys.executable, "-c", PROBE], {"PYTHONPATH": str(ROOT)}, **values)
    assert done.returncode == 0, done.stderr[-2000:]
    return msgspec.json.decode(done.stdout, type=Gpus | NvmlUnavailable)


def gpus(scenario: str, **values: object) -> Gpus:
    """The same, where NVML answers."""
    found = probed(scenario, **values)
    assert isinstance(found, Gpus), found
    return found
