"""What is said to be left: GPU memory by NVML before and after, and the shared memory of other programs untouched."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.nvml_stub import nvml_environment
from tests.trial.jobs import free_port
from vllm_doctor.trial.gpu_memory import TOLERANCE_BYTES, Held, growth
from vllm_doctor.trial.leftovers import LeftBehind, Report

ROOT = Path(__file__).parents[2]
MIB = 2**20

GPU = """driver 580.159.03
cuda 13000

gpu NVIDIA H100 80GB HBM3
uuid GPU-00000000-5a1e-4c0d-9b7f-000000989d21
capability 9.0
memory 81559 {used} 551
{processes}
"""

# A job whose scenario changes while it runs: what NVML says before, then after it has ended.
CODE = """
import json, os, sys
from pathlib import Path
from vllm_doctor.trial import gpu_memory
from vllm_doctor.trial.job import start
gpu_memory.RELEASE_SECONDS = 1.5
before, *after = sys.argv[2:]
scenario = Path(os.environ["NVML_STUB_SCENARIO"])
scenario.write_text(before)
job = start(["sleep", "60"], environment=os.environ, folder=None, port=int(sys.argv[1]))
scenario.write_text(after[0].replace("{pid}", str(job.pid)))
if len(after) > 1:
    looks = []
    probe = gpu_memory.probe_gpus
    def later():
        looks.append(1)
        if len(looks) == 3:
            scenario.write_text(after[1])
        return probe()
    gpu_memory.probe_gpus = later
left = job.stop()
print(json.dumps([left.gpu_bytes, list(left.what), left.nothing]))
"""


def scenario(used: int, *processes: str) -> str:
    return GPU.format(used=used, processes="\n".join(f"process {each}" for each in processes))


def left(*scenarios: str) -> tuple[int | None, list[str], bool]:
    """What a job leaves of GPU memory where NVML says these one after the other."""
    import os

    variables = {**os.environ, **nvml_environment(scenarios[0]), "PYTHONPATH": f"{ROOT}:{ROOT / 'checks'}"}
    argv = [sys.executable, "-c", CODE, str(free_port()), *scenarios]
    done = subprocess.run(argv, env=variables, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    gpu_bytes, what, nothing = json.loads(done.stdout)
    return gpu_bytes, what, nothing


def test_memory_that_is_given_back() -> None:
    assert left(scenario(4), scenario(4)) == (0, [], True)


def test_memory_that_is_given_back_after_a_moment() -> None:
    assert left(scenario(4), scenario(71_000, "{pid} 70900"), scenario(4)) == (0, [], True)


def test_memory_that_stays() -> None:
    gpu_bytes, what, nothing = left(scenario(4), scenario(4004))
    assert gpu_bytes == 4000 * MIB
    assert what == ["4000 MiB of GPU memory are held that were free before"]
    assert not nothing


def test_what_another_program_took_meanwhile_is_not_the_jobs() -> None:
    before, after = scenario(1004, "77 1000"), scenario(9004, "77 4000", "78 5000")
    assert left(before, after) == (0, [], True)


def test_without_nvml_nothing_is_claimed() -> None:
    from vllm_doctor.trial import gpu_memory

    assert gpu_memory.left(None) is None
    assert LeftBehind(gpu_bytes=None).nothing


held = st.integers(0, 81_559 * MIB)


@given(held, held)
def test_growth_is_never_negative_and_nothing_where_less_is_held(before: int, now: int) -> None:
    grown = growth(Held({"a": before}, {}), Held({"a": now}, {}))
    assert grown == (now - before if now - before > TOLERANCE_BYTES else 0)


def test_a_gpu_that_was_not_there_before_says_nothing() -> None:
    assert growth(Held({}, {}), Held({"a": 5000 * MIB}, {})) == 0


@given(st.lists(st.binary().map(lambda b: b.replace(b"\0", b"")), min_size=2, max_size=2))
def test_the_guardians_report_may_name_any_file(parts: list[bytes]) -> None:
    report = Report.read([b"down", b"3", *parts])
    assert report.killed == 3


@pytest.mark.parametrize(
    "left_behind",
    [
        LeftBehind(processes=1),
        LeftBehind(zombies=1),
        LeftBehind(port_open=True),
        LeftBehind(gpu_bytes=1),
        LeftBehind(shared_memory=("/dev/shm/x",)),
        LeftBehind(sockets=("x",)),
        LeftBehind(folder=True),
    ],
)
def test_anything_left_is_something(left_behind: LeftBehind) -> None:
    assert not left_behind.nothing
    assert LeftBehind(gpu_bytes=0, what=("1 process was killed",)).nothing
