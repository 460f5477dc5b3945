"""The wait for a server: its stages, its limits, its end, and a port that is another's."""

import itertools
import sys
from pathlib import Path

import pytest

from tests.trial.jobs import free_port, noted, started, until
from vllm_doctor.trial import progress
from vllm_doctor.trial.job import Job
from vllm_doctor.trial.progress import Limits, NotReady, Ready, Stage, wait_ready

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the process table is read from /proc")


def waited(job: Job, told: list[Stage] | None = None, **limits: float) -> Ready | NotReady:
    told = [] if told is None else told
    given = {"total_seconds": 30.0} | limits
    return wait_ready(job, f"http://127.0.0.1:{job.port}/v1", Limits(**given), told.append)


def test_the_stages_are_told_in_their_order_with_their_counters(tmp_path: Path) -> None:
    acts = ["start", "init", "wait=0.4", "load", "wait=0.4", "shard", "wait=0.4", "profile", "kv", "capture", "serve"]
    told: list[Stage] = []
    with started(tmp_path, *acts, "stay") as job:
        outcome = waited(job, told)
    assert isinstance(outcome, Ready)
    assert [(stage.name, stage.detail) for stage in told] == [
        ("import", ""),
        ("init", ""),
        ("load", ""),
        ("load", "0/2"),
        ("load", "1/2"),
        ("profile", ""),
        ("kv", ""),
        ("capture", ""),
        ("capture", "28/67"),
        ("ready", ""),
    ]
    assert all(a.seconds <= b.seconds for a, b in itertools.pairwise(told))


def test_a_server_that_ends_is_explained_by_its_log(tmp_path: Path) -> None:
    with started(tmp_path, "start", "flag", "exit=2") as job:
        outcome = waited(job)
    assert isinstance(outcome, NotReady)
    assert (outcome.stage, outcome.reason, outcome.exit_code) == ("init", "exited", 2)
    assert [found.finding.cause for found in outcome.explanation.findings] == ["bad-flag"]


def test_a_server_that_is_killed(tmp_path: Path) -> None:
    with started(tmp_path, "start", "load", "kill") as job:
        outcome = waited(job)
    assert isinstance(outcome, NotReady)
    assert (outcome.stage, outcome.reason, outcome.exit_code) == ("load", "exited", -9)


def test_a_stage_that_takes_too_long(tmp_path: Path) -> None:
    with started(tmp_path, "start", "init", "profile", "stay") as job:
        outcome = waited(job, profile_seconds=1.0)
    assert isinstance(outcome, NotReady)
    assert (outcome.stage, outcome.reason, outcome.exit_code) == ("profile", "stage limit", None)
    assert outcome.seconds < 10


def test_a_start_that_takes_too_long_in_all(tmp_path: Path) -> None:
    with started(tmp_path, "start", "stay") as job:
        outcome = waited(job, total_seconds=1.0)
    assert isinstance(outcome, NotReady)
    assert (outcome.stage, outcome.reason) == ("init", "total limit")


def test_bytes_that_flow_are_no_hang(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vllm_doctor.trial.activity.LOOK_SECONDS", 0.3)
    code = (
        "import os, sys, time\nprint('vLLM API server version 0.32.0', flush=True)\n"
        "end = time.monotonic() + 4\nfile = open(os.environ['TMPDIR'] + '/weights', 'wb')\n"
        "while time.monotonic() < end:\n    file.seek(0); file.write(bytes(2**20)); file.flush(); time.sleep(0.05)\n"
        "print('ended', flush=True)\ntime.sleep(60)"
    )
    from vllm_doctor.trial.job import start

    with start([sys.executable, "-c", code], environment={}, folder=None, port=free_port()) as job:
        outcome = waited(job, init_seconds=1.5)
    assert isinstance(outcome, NotReady)
    assert outcome.reason == "stage limit"
    assert "ended" in job.output.tail()
    assert 4 < outcome.seconds < 15


def test_another_server_on_the_port_is_not_taken_for_the_jobs(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "own").mkdir()
    with started(tmp_path / "other", "serve", "stay") as other:
        until(lambda: isinstance(waited(other), Ready))
        with started(tmp_path / "own", "until=late", "exit=1", port=other.port) as job:
            noted(tmp_path / "own", 1)
            outcome = waited(job, total_seconds=2.0)
            assert isinstance(outcome, NotReady)
            assert outcome.reason == "total limit"


def test_a_server_whose_worker_serves_is_ready(tmp_path: Path) -> None:
    code = "import os, sys\nif os.fork(): os.wait()\nelse: os.execv(sys.argv[1], sys.argv[1:])"
    from tests.trial.jobs import words
    from vllm_doctor.trial.job import start

    port = free_port()
    argv = [sys.executable, "-c", code, *words(tmp_path, port, "serve", "stay")]
    with start(argv, environment={}, folder=None, port=port) as job:
        assert isinstance(waited(job), Ready)


def test_a_flood_costs_no_disk_and_hides_nothing(tmp_path: Path) -> None:
    with started(tmp_path, "secret", "start", "flood=400", "flag", "note=flooded", "wait=2", "serve", "stay") as job:
        assert isinstance(waited(job), Ready)
        assert job.log.stat().st_size < 400 * 2**20
        until(lambda: job.log.stat().st_size <= 64 * 2**20)
        found = job.output.explanation().findings
    assert [each.finding.cause for each in found] == ["bad-flag"]


def test_what_is_shown_of_a_log_has_no_secrets_and_no_escapes(tmp_path: Path) -> None:
    with started(tmp_path, "secret", "exit=0") as job:
        until(lambda: job.exit_code() is not None)
    (line,) = job.output.tail()
    assert "sk-of-the-server" not in line
    assert "sk-of-the-server" in job.output.beginning()


@pytest.mark.parametrize("stage", [s for s in progress.STAGES if s != "ready"])
def test_every_stage_has_a_limit_within_that_of_all(stage: str) -> None:
    assert 0 < Limits().of(stage) < Limits().total_seconds
