"""A real vLLM under a guardian: nothing of it is left, however it or the doctor ends, in every stage of its life."""

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.trial.jobs import free_port, living, until
from vllm_doctor.trial.guardian import ours, segments
from vllm_doctor.trial.job import Job, start
from vllm_doctor.trial.progress import NotReady, Ready, Stage, wait_ready

pytestmark = pytest.mark.real_vllm

ROOT = Path(__file__).parents[2]
VARIABLES = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1"}

Identities = list[tuple[int, int]]


def words(python: Path, model: Path, port: int, *flags: str) -> list[str]:
    return [str(python.parent / "vllm"), "serve", str(model), "--enforce-eager", "--max-model-len", "2048",
            "--host", "127.0.0.1", "--port", str(port), *flags]  # fmt: skip


@contextmanager
def launched(python: Path, model: Path, folder: Path, *flags: str, **variables: str) -> Iterator[Job]:
    port = free_port()
    environment = {**os.environ, **VARIABLES, **variables}
    with start(words(python, model, port, *flags), environment=environment, folder=folder, port=port) as job:
        yield job


def ready(job: Job) -> Ready | NotReady:
    return wait_ready(job, f"http://127.0.0.1:{job.port}/v1")


def held(processes: Sequence[ours.Process]) -> set[Path]:
    """The shared memory that they have mapped, as /proc shows it before the end."""
    return {Path(path) for process in processes for path, _ in segments.held_by(process.pid)}


def titles(job: Job) -> dict[str, ours.Process]:
    return {process.name: process for process in job.processes()}


def gone(processes: Identities, memory: set[Path], folder: str | Path) -> None:
    """By a look of the test's own."""
    assert living(processes) == []
    assert [path for path in memory if path.exists()] == []
    assert not Path(folder).exists()


def stopped(job: Job) -> tuple[float, tuple[str, ...]]:
    """The seconds that the stop took and what had to be done, once it is proved that nothing is left."""
    processes = job.processes()
    memory, began = held(processes), time.monotonic()
    left = job.stop()
    assert left.nothing, left
    gone([process.identity for process in processes], memory, job.folder)
    return time.monotonic() - began, left.what


def test_an_idle_server_ends_in_order(vllm_python: Path, models: Path, tmp_path: Path) -> None:
    with launched(vllm_python, models / "tiny-hello", tmp_path) as job:
        assert isinstance(ready(job), Ready)
        assert {"vllm", "VLLM::EngineCor", "VLLM::Worker"} <= set(titles(job))
        seconds, what = stopped(job)
        assert (job.exit_code(), what) == (0, ())
        assert seconds < 8


def test_two_workers_and_the_memory_that_they_forget(vllm_python: Path, models: Path, tmp_path: Path) -> None:
    flags, variable = ("--tensor-parallel-size", "2"), {"VLLM_CPU_OMP_THREADS_BIND": "0|1"}
    with launched(vllm_python, models / "tiny-hello", tmp_path, *flags, **variable) as job:
        assert isinstance(ready(job), Ready)
        memory = {path.name for path in held(job.processes()) if path.name.startswith("vllm_dist_")}
        _, what = stopped(job)
    assert memory
    assert all(line.endswith("shared memory of the server, removed") for line in what)


@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGKILL], ids=["engine hangs", "engine killed"])
def test_an_engine_that_hangs_or_dies_while_serving(
    vllm_python: Path, models: Path, tmp_path: Path, number: signal.Signals
) -> None:
    with launched(vllm_python, models / "tiny-hello", tmp_path) as job:
        assert isinstance(ready(job), Ready)
        processes = job.processes()
        memory = held(processes)
        os.kill(titles(job)["VLLM::EngineCor"].pid, number)
        if number == signal.SIGKILL:
            until(lambda: job.exit_code() is not None, 60)
            assert job.output.explanation().findings[0].finding.cause == "engine-dead"
        assert job.stop().nothing
        gone([process.identity for process in processes], memory, job.folder)


def test_a_server_that_is_killed_itself_leaves_its_engine_to_the_guardian(
    vllm_python: Path, models: Path, tmp_path: Path
) -> None:
    with launched(vllm_python, models / "tiny-hello", tmp_path) as job:
        assert isinstance(ready(job), Ready)
        processes = job.processes()
        memory = held(processes)
        os.kill(job.pid, signal.SIGKILL)
        until(lambda: job.exit_code() == -signal.SIGKILL)
        assert [process for process in job.processes() if process.name.startswith("VLLM::")]
        assert job.stop().nothing
        gone([process.identity for process in processes], memory, job.folder)


def test_a_stop_while_it_loads(vllm_python: Path, models: Path, tmp_path: Path) -> None:
    """vLLM loses a SIGTERM that comes then."""

    class Loading(Exception):
        pass

    def tell(stage: Stage) -> None:
        if stage.name == "load" or stage.detail:
            raise Loading

    with launched(vllm_python, models / "tiny-hello", tmp_path) as job:
        with pytest.raises(Loading):
            wait_ready(job, f"http://127.0.0.1:{job.port}/v1", tell=tell)
        seconds, _ = stopped(job)
        assert seconds < 10


@pytest.fixture
def driven(vllm_python: Path, models: Path, tmp_path: Path) -> Iterator["Driven"]:
    port = free_port()
    argv = [sys.executable, "-m", "tests.trial.driver", str(tmp_path), str(port), "--",
            *words(vllm_python, models / "tiny-hello", port)]  # fmt: skip
    environment = {**os.environ, **VARIABLES, "PYTHONPATH": f"{ROOT}:{ROOT / 'checks'}"}
    process = subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, cwd=ROOT, bufsize=0
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield Driven(process)
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


class Driven:
    """A doctor in a process of its own, with what it says."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self.process = process
        self.said = b""

    def until(self, *beginnings: str) -> str:
        """The next line that begins with one of these."""
        assert self.process.stdout is not None
        while True:
            line, newline, rest = self.said.partition(b"\n")
            if newline:
                self.said = rest
                if line.startswith(tuple(each.encode() for each in beginnings)):
                    return line.decode()
                continue
            assert select.select([self.process.stdout], [], [], 300)[0], beginnings
            self.said += os.read(self.process.stdout.fileno(), 4096)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM], ids=lambda each: each.name)
@pytest.mark.parametrize("stage", ["stage import", "stage init", "stage load", "Ready"])
def test_the_end_of_the_doctor_in_any_stage(driven: Driven, stage: str, number: signal.Signals) -> None:
    _, leader, guardian, folder = driven.until("job").split()
    # A model as small as this one may be loaded between two looks: its next stage will do.
    driven.until(stage, "stage profile") if stage == "stage load" else driven.until(stage)
    members = [p for p in ours.everyone().values() if p.session == int(leader)]
    memory = held(members)
    assert members
    driven.process.send_signal(number)
    assert driven.process.wait(60) == (-signal.SIGKILL if number == signal.SIGKILL else 130)
    processes = [process.identity for process in members]
    if number == signal.SIGKILL:
        until(lambda: ours.read(int(guardian)) is None or not Path(folder).exists(), 30)
    gone(processes, memory, folder)
    assert [p for p in ours.everyone().values() if p.session == int(leader) and not p.ended] == []
