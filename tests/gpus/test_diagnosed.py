"""Every NVML scenario, read by the real probe, put into a healthy host with vLLM 0.20.2 (CUDA 13), and diagnosed."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec import structs

from tests.gpus.probing import probed
from tests.nvml_stub import compiler
from vllm_doctor import registry, snapshot
from vllm_doctor.diagnose import Status, diagnose
from vllm_doctor.launch.parse import parse_line

pytestmark = pytest.mark.skipif(compiler() is None, reason="no C compiler: the stub NVML cannot be built")

FIXTURES = Path(__file__).parents[2] / "fixtures"
HEALTHY = snapshot.read(FIXTURES / "snapshots" / "healthy-h100.json")
REGISTRY = registry.load()
LAUNCH = parse_line("vllm serve Qwen/Qwen2.5-7B-Instruct")

# Scenario -> the errors that a launch on that host must bring, root cause first. This vLLM needs driver 580; some of
# the scenarios have an older one.
ERRORS = {
    "h100-1": [],
    "h100-8": ["driver-too-old"],
    "h200-1": [],
    "b200-8": [],
    "a100-8": ["driver-too-old"],
    "l4-1": ["driver-too-old"],
    "t4-1": ["driver-too-old", "oom-activation"],
    "rtx-pro-6000": [],
    "v100-4": ["driver-too-old", "arch-unsupported"],
    "a10-driver-525": ["driver-too-old"],
    "a100-driver-470": ["driver-too-old"],
    "version-mismatch": ["driver-library-mismatch"],
    "driver-not-loaded": ["gpu-not-visible"],
    "no-gpus": ["gpu-not-visible"],
    "no-permission": ["gpu-not-visible"],
    "lost": ["gpu-hardware-fault"],
    "fabric-in-progress": ["driver-too-old", "fabric-manager"],
}


@pytest.mark.parametrize(("scenario", "causes"), ERRORS.items())
def test_the_errors_of_a_launch_there(scenario: str, causes: list[str]) -> None:
    facts = structs.replace(HEALTHY, gpus=probed(scenario), launch=LAUNCH)
    made = diagnose(facts, REGISTRY)
    assert [f.cause for f in made.findings if f.severity.value == "error"] == causes, made.findings
    assert [c for c in made.checks if c.status is Status.CRASHED] == []


@pytest.fixture
def process() -> Iterator[int]:
    """A process of ours that holds GPU memory and is no vLLM."""
    import subprocess

    running = subprocess.Popen(["sleep", "60"])
    yield running.pid
    running.kill()
    running.wait()


def test_a_gpu_that_others_hold_is_busy_and_they_are_named(process: int) -> None:
    gpus = probed("stray", orphan=process, other=process, foreign=4194303)
    made = diagnose(structs.replace(HEALTHY, gpus=gpus, launch=LAUNCH), REGISTRY)
    busy = [f for f in made.findings if f.cause == "gpu-busy" and f.severity.value == "error"]
    assert len(busy) == 1
    assert f"pid {process}" in " ".join(busy[0].evidence)
    assert "sleep 60" in " ".join(busy[0].evidence)
    assert "4194303" in " ".join(busy[0].evidence)
