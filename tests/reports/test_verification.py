"""The report of a verification: text, the public document, and the same as a diagnosis."""

import pytest
from msgspec import structs

from tests.cli.calling import HEALTHY
from vllm_doctor.client.visit import Step
from vllm_doctor.client.walk import Connection
from vllm_doctor.diagnose import Selection, Status
from vllm_doctor.finding import Finding, Fix, LaunchEdit, error, warning
from vllm_doctor.launch.parse import parse_line
from vllm_doctor.reports import verification as report
from vllm_doctor.reports.text import plain_lines
from vllm_doctor.snapshot import read
from vllm_doctor.trial.attempts import Attempt
from vllm_doctor.trial.calibration import Row
from vllm_doctor.trial.leftovers import LeftBehind
from vllm_doctor.trial.trial import Outcome
from vllm_doctor.trial.verification import Run, Verification

GIVEN = "HF_TOKEN=*** vllm serve m --max-model-len 9000"
GOOD = "HF_TOKEN=*** vllm serve m --max-model-len 4096"
FIX = Fix(title="Ask for less", launch=LaunchEdit(set={"--max-model-len": "4096"}))
TOO_LONG = error("oom-kv", "The KV cache is too small", evidence=("line 7: needed 4 GiB",), fixes=(FIX,))
SLOW = warning("engine-hang", "It is slow", evidence=("9 s",))
NOTHING = LeftBehind(gpu_bytes=0)


def steps(*statuses: str) -> Connection:
    made = (Step(name=f"step-{n}", status=s, seconds=0.5, detail="seen") for n, s in enumerate(statuses))
    return Connection(url="http://127.0.0.1:8000/v1", steps=tuple(made), findings=())


def attempt(line: str, outcome: Outcome | None, *findings: Finding, changes: tuple[str, ...] = ()) -> Attempt:
    return Attempt(launch=parse_line(line), command=line, findings=findings, changes=changes, outcome=outcome)


def served(left: LeftBehind = NOTHING) -> Outcome:
    connection = steps("passed", "skipped")
    return Outcome(findings=(), left_behind=left, seconds=14.0, ready_seconds=12.5, connection=connection)


BROKEN = steps("passed", "failed")
FAILED = Outcome(findings=(TOO_LONG,), left_behind=NOTHING, seconds=9.0, stage="kv", exit_code=1, tail=("last",))
SERVED = attempt(GOOD, served())
MENDED = (attempt(GIVEN, FAILED, TOO_LONG), attempt(GOOD, served(), SLOW, changes=("Ask for less",)))


def of(*attempts: Attempt, **more: object) -> Verification:
    made = Verification(given=attempts[0].command, runs=(Run(attempts=attempts),), snapshot=read(HEALTHY))
    return structs.replace(made, **more)


def text(found: Verification, **how: bool) -> str:
    return plain_lines(tuple(report.lines(found, found.findings(Selection()), **how)))


def test_a_mended_launch_is_told_whole() -> None:
    rows = (Row(name="weights", unit="bytes", planned=2**30, reported=1.1 * 2**30),)
    assert text(of(*MENDED, rows=rows)).splitlines()[6:] == [
        "Attempts",
        "  ✗ 1 oom-kv: ended with exit code 1 while allocating the KV cache after 9 s",
        "  ✓ 2 serves: ready after 12.5 s, every step works",
        "      changed Ask for less",
        f"      {GOOD}",
        "",
        "Walked  step-0",
        "skipped step-1",
        "",
        "✗ The KV cache is too small",
        "  oom-kv (check attempt-1)",
        "  seen  line 7: needed 4 GiB",
        "  fix   Ask for less",
        "          set --max-model-len 4096",
        "",
        "! It is slow",
        "  engine-hang, likely (check attempt-2)",
        "  seen  9 s",
        "",
        "Memory of each GPU, planned and reported",
        "  weights                            1.00 GiB         1.10 GiB  +10.0%",
        "",
        "Known to be good",
        f"  {GOOD}",
        "",
        "  or as a file, vllm serve --config FILE.yaml (with HF_TOKEN set)",
        "    model: m",
        "    max-model-len: 4096",
        "  *** stands for a secret that is not shown: put your own value there.",
        "",
        "Left behind  nothing: no process, no port, no shared memory, no socket, the GPUs' memory as before.",
        "",
        "The launch fails as given; what serves was found in 2 attempts.",
    ]


def test_quiet_is_what_fails_what_serves_and_the_verdict() -> None:
    assert text(of(*MENDED), quiet=True).splitlines()[5:] == [
        "",
        "Known to be good",
        f"  {GOOD}",
        "  *** stands for a secret that is not shown: put your own value there.",
        "",
        "The launch fails as given; what serves was found in 2 attempts.",
    ]


def test_the_end_of_the_log_is_shown_where_nothing_explains_it() -> None:
    dead = error("engine-dead", "It ended", evidence=("exit code 3",))
    found = of(attempt(GIVEN, structs.replace(FAILED, findings=(dead,)), dead))
    assert "The end of its log\n  last\n" in text(found)
    assert "The end of its log" not in text(of(*MENDED))
    assert "The end of its log\n  last\n" in text(of(*MENDED), verbose=True)


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        (of(SERVED), "The launch serves."),
        (of(attempt(GIVEN, FAILED, TOO_LONG)), "The launch fails, and no change of it serves."),
        (of(SERVED, canary=True), "This environment serves and computes right."),
        (of(attempt(GIVEN, None, TOO_LONG), canary=True), "This environment does not serve."),
    ],
)
def test_the_verdict_is_one_sentence(found: Verification, verdict: str) -> None:
    assert text(found).splitlines()[-1] == verdict


@pytest.mark.parametrize(
    ("one", "told"),
    [
        (attempt(GIVEN, None, TOO_LONG), "not started: the checks are certain that it fails"),
        (attempt(GIVEN, structs.replace(FAILED, exit_code=None, stage="load"), TOO_LONG),
         "stopped while loading the weights after 9 s"),
        (attempt(GIVEN, structs.replace(served(), findings=(TOO_LONG,), connection=BROKEN), TOO_LONG),
         "ready after 12.5 s, then broken at the step 'step-1'"),
    ],
)  # fmt: skip
def test_how_far_an_attempt_came(one: Attempt, told: str) -> None:
    assert report.how(one) == told


def test_the_document_has_the_keys_of_the_contract() -> None:
    found = of(*MENDED)
    document = report.document(found, found.findings(Selection()))
    assert list(document)[:9] == [
        "schema", "verdict", "command", "ready_seconds", "steps", "attempts", "known_good", "left_behind", "findings"
    ]  # fmt: skip
    assert document["schema"] == "vllm-doctor/verification/1"
    assert (document["verdict"], document["command"], document["known_good"]) == ("error", GIVEN, GOOD)
    assert [(each["command"], each["outcome"]) for each in document["attempts"]] == [(GIVEN, "oom-kv"), (GOOD, "ok")]
    assert document["left_behind"] == {"processes": 0, "gpu_bytes": 0}
    assert [each["cause"] for each in document["findings"]] == ["oom-kv", "engine-hang"]


def test_what_is_left_behind_is_an_error_however_well_it_served() -> None:
    rest = LeftBehind(processes=2, gpu_bytes=5, what=("process 7: VLLM::Worker",))
    found = of(attempt(GOOD, served(rest)))
    (finding,) = found.findings(Selection())
    assert not found.ok
    assert (finding.cause, finding.check, finding.evidence) == ("gpu-busy", "left-behind", rest.what)
    assert report.document(found, (finding,))["left_behind"] == {"processes": 2, "gpu_bytes": 5}


def test_as_a_diagnosis_every_failed_attempt_is_a_check_that_found_something() -> None:
    found = of(*MENDED)
    diagnosis = report.diagnosis(found, found.findings(Selection()))
    assert [(check.id, check.status) for check in diagnosis.checks] == [
        ("attempt-1", Status.FOUND), ("attempt-2", Status.PASSED), ("step-0", Status.PASSED),
        ("step-1", Status.SKIPPED), ("left-behind", Status.PASSED),
    ]  # fmt: skip
    assert [finding.check for finding in diagnosis.findings] == ["attempt-1", "attempt-2"]
    assert diagnosis.corrected == GOOD
    assert report.diagnosis(of(SERVED), ()).corrected is None


def test_memory_that_nvml_does_not_tell_of_is_not_called_as_before() -> None:
    found = text(of(attempt(GOOD, served(structs.replace(NOTHING, gpu_bytes=None)))))
    told = " ".join(found.split())
    assert "memory as before" not in told
    assert "The GPUs' memory was not evaluated: NVML says nothing." in told
