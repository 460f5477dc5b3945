"""The canary's runs and the plan beside what was reported, with nothing started."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec import structs

from tests.cli.calling import FIXTURES
from vllm_doctor import registry
from vllm_doctor.collect import Progress, Request
from vllm_doctor.diagnose import Selection
from vllm_doctor.launch.parse import parse_launch
from vllm_doctor.registry import Registry
from vllm_doctor.snapshot import Snapshot, read
from vllm_doctor.trial import canary, matrix, verifying
from vllm_doctor.trial.leftovers import LeftBehind
from vllm_doctor.trial.progress import Limits, Stage
from vllm_doctor.trial.reported import GIB, Reported
from vllm_doctor.trial.target import Target
from vllm_doctor.trial.trial import Outcome, Told, Walk
from vllm_doctor.trial.verifying import Wanted, verify


class Machine:
    """A host as in a fixture, on which every start succeeds."""

    def __init__(self, fixture: str) -> None:
        self.snapshot = read(FIXTURES / "snapshots" / f"{fixture}.json")
        self.started: list[Target] = []

    def collect(self, request: Request, _progress: Progress) -> Snapshot:
        return structs.replace(self.snapshot, launch=parse_launch(request.launch_words))

    def trial(self, target: Target, _folder: Path, _limits: Limits, _walk: Walk, told: Told) -> Outcome:
        self.started.append(target)
        for name, detail in (("import", ""), ("load", ""), ("load", "1/2"), ("ready", "")):
            told.stage(Stage(name=name, seconds=0.0, detail=detail))
        figures = Reported(weights_bytes=15 * GIB, kv_cache_bytes=50 * GIB)
        return Outcome(findings=(), left_behind=LeftBehind(), seconds=2.0, ready_seconds=1.0, reported=figures)


@pytest.fixture
def cpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    yield from _machine("healthy-cpu", monkeypatch)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    yield from _machine("model-llama-h100", monkeypatch)


def _machine(fixture: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    machine = Machine(fixture)
    monkeypatch.setattr(verifying, "collect", machine.collect)
    monkeypatch.setattr(verifying, "trial", machine.trial)
    yield machine


def wanted(*words: str, **more: object) -> Wanted:
    request = Request(launch_words=words, folder=Path("/"), offline=True)
    made = Wanted(
        request=request, registry=Registry(()), selection=Selection(), inherited={"PATH": "/bin"}, limits=Limits()
    )
    return structs.replace(made, **more)


def ignored(_name: str, _state: str) -> None:
    """Nobody watches."""


def test_the_canary_is_one_run_on_a_free_port(cpu: Machine) -> None:
    found = verify(wanted(), ignored)
    assert found.ok
    assert found.canary
    (target,) = cpu.started
    assert str(canary.folder()) in target.argv
    assert target.environment["VLLM_CPU_KVCACHE_SPACE"] == "1"
    assert target.url == f"http://127.0.0.1:{target.port}/v1"
    assert target.port != 8000


def test_the_matrix_walks_every_configuration_after_the_plain_one(cpu: Machine) -> None:
    found = verify(wanted(matrix=True), ignored)
    configurations = matrix.configurations(cpu.snapshot)
    assert [run.name for run in found.runs] == ["plain", *(each.name for each in configurations)]
    assert len(configurations) > 1
    assert len({target.argv for target in cpu.started}) == len(cpu.started)
    assert found.left_out == matrix.left_out(cpu.snapshot)


def test_the_ranks_are_passed_on(gpu: Machine) -> None:
    verify(wanted(tp=2), ignored)
    argv = gpu.started[0].argv
    assert argv[argv.index("--tensor-parallel-size") + 1] == "2"


def test_the_checks_are_asked_before_the_canary_is_started(cpu: Machine) -> None:
    cpu.snapshot = read(FIXTURES / "snapshots" / "install-empty.json")
    found = verify(wanted(registry=registry.load()), ignored)
    assert not found.ok
    assert found.attempts[0].cause == "broken-install"
    assert " vllm serve " in found.attempts[0].command
    assert cpu.started == []


def test_what_was_reported_stands_beside_the_plan(gpu: Machine) -> None:
    assert gpu.snapshot.launch is not None
    found = verify(wanted("vllm", "serve", str(gpu.snapshot.launch.model)), ignored)
    rows = {row.name: row for row in found.rows}
    assert rows["KV cache"].reported == 50 * GIB
    assert (rows["KV cache"].planned or 0) > 40 * GIB


def test_the_port_asked_for_is_the_one_that_is_started_and_told(cpu: Machine) -> None:
    found = verify(wanted("vllm", "serve", "m", "--port", "1", port=4321), ignored)
    assert cpu.started[0].port == 4321
    assert found.good is not None
    assert found.good.command.endswith("serve m --port 4321")
    assert found.given == "vllm serve m --port 1"


def test_each_stage_ends_where_the_next_begins(cpu: Machine) -> None:
    told: list[tuple[str, str]] = []
    verify(wanted(), lambda name, state: told.append((name, state)))
    assert told == [
        ("import vLLM", "started"),
        ("import vLLM", "done"),
        ("load the weights", "started"),
        ("load the weights", "started 1/2"),
        ("load the weights", "done"),
    ]
