"""The attempts: checks first, then the launch, then its cheapest change, until one serves or nothing is left to try."""

from collections.abc import Callable, Iterator

from msgspec import Struct

from vllm_doctor.correct import correct, edited
from vllm_doctor.diagnose import Diagnosis, Selection, diagnose
from vllm_doctor.facts import Launch
from vllm_doctor.finding import Confidence, Finding, Severity
from vllm_doctor.launch import render
from vllm_doctor.registry import Registry
from vllm_doctor.snapshot import Snapshot
from vllm_doctor.trial.mending import Remedy, remedies
from vllm_doctor.trial.trial import Outcome

# One correction may uncover the next; so many are made, one after the other, before anything is started.
MAXIMUM_ROUNDS = 12

# Starts the launch and tells what became of it.
Start = Callable[[Launch], Outcome]


class Attempt(Struct, frozen=True, kw_only=True):
    """One command, and what became of it: `outcome` is None where the checks were certain that it fails.

    `changes` are the titles of what was changed since the attempt before. `findings` are empty where it serves.
    """

    launch: Launch
    command: str
    findings: tuple[Finding, ...]
    changes: tuple[str, ...] = ()
    outcome: Outcome | None = None

    @property
    def serves(self) -> bool:
        """Whether it was started and every step of the walk works."""
        return self.outcome is not None and self.outcome.serves

    @property
    def cause(self) -> str | None:
        """The root cause of the failure; None where there is none."""
        return None if self.serves else self.findings[0].cause


class Doctor(Struct, frozen=True):
    """Whom the attempts ask: the checks, those that are wanted, and how to start a launch."""

    registry: Registry
    selection: Selection
    start: Start
    asked: Callable[[Finding], Remedy | None] = lambda _finding: None


def attempts(snapshot: Snapshot, doctor: Doctor, maximum: int) -> Iterator[Attempt]:
    """Every attempt as it ends, the given launch first; the last one serves, or nothing more can be tried."""
    tried: set[str] = set()
    changes: tuple[str, ...] = ()
    for _ in range(maximum):
        assert snapshot.launch is not None
        tried.add(render.command_line(snapshot.launch))
        diagnosis = correct(diagnose(snapshot, doctor.registry, doctor.selection), doctor.registry, doctor.selection)
        attempt = _attempt(diagnosis, changes, doctor)
        yield attempt
        if attempt.serves or (step := _next(attempt, diagnosis, doctor, tried)) is None:
            return
        snapshot, changes = step


def _attempt(diagnosis: Diagnosis, changes: tuple[str, ...], doctor: Doctor) -> Attempt:
    launch = diagnosis.snapshot.launch
    assert launch is not None
    command = render.command_line(launch) if changes else launch.given
    doomed = certain(diagnosis.findings)
    if doomed:
        return Attempt(launch=launch, command=command, findings=doomed, changes=changes)
    outcome = doctor.start(launch)
    return Attempt(launch=launch, command=command, findings=outcome.findings, changes=changes, outcome=outcome)


def certain(findings: tuple[Finding, ...]) -> tuple[Finding, ...]:
    """The findings that no start can survive."""
    return tuple(f for f in findings if f.severity is Severity.ERROR and f.confidence is Confidence.CERTAIN)


def _next(
    attempt: Attempt, diagnosis: Diagnosis, doctor: Doctor, tried: set[str]
) -> tuple[Snapshot, tuple[str, ...]] | None:
    """The launch to try next, and what was changed; None where there is none."""
    snapshot = diagnosis.snapshot
    if attempt.outcome is None:
        return _corrected(snapshot, attempt.findings, doctor, tried)
    root = attempt.findings[0]
    agreeing = tuple(f for f in diagnosis.findings if f.cause == root.cause)
    for remedy in (*remedies((root, *agreeing), snapshot), *_after_yes(root, doctor)):
        changed = edited(snapshot, remedy.edit)
        doomed = _doomed(changed, doctor)
        if not doomed and _is_new(changed, tried):
            return changed, (remedy.title,)
        if doomed and (further := _corrected(changed, doomed, doctor, tried)) is not None:
            return further[0], (remedy.title, *further[1])
    return None


def _after_yes(finding: Finding, doctor: Doctor) -> Iterator[Remedy]:
    if (remedy := doctor.asked(finding)) is not None:
        yield remedy


def _doomed(snapshot: Snapshot, doctor: Doctor) -> tuple[Finding, ...]:
    return certain(diagnose(snapshot, doctor.registry, doctor.selection).findings)


def _corrected(
    snapshot: Snapshot, doomed: tuple[Finding, ...], doctor: Doctor, tried: set[str]
) -> tuple[Snapshot, tuple[str, ...]] | None:
    """The launch with a change for each thing that is certain to fail, round after round; None where one has none."""
    done: list[Remedy] = []
    while doomed and len(done) < MAXIMUM_ROUNDS:
        remedy = next(iter((*remedies(doomed[:1], snapshot), *_after_yes(doomed[0], doctor))), None)
        if remedy is None:
            return None
        snapshot = edited(snapshot, remedy.edit)
        done.append(remedy)
        doomed = _doomed(snapshot, doctor)
    if not done or doomed or not _is_new(snapshot, tried):
        return None
    return snapshot, tuple(remedy.title for remedy in done if edited(snapshot, remedy.edit) == snapshot)


def _is_new(snapshot: Snapshot, tried: set[str]) -> bool:
    return snapshot.launch is not None and render.command_line(snapshot.launch) not in tried
