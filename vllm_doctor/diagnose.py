"""Runs the checks over a snapshot and orders what they found."""

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from enum import Enum
from types import FrameType

from msgspec import Struct, structs

from vllm_doctor import causes
from vllm_doctor.check import Check, NotApplicable, NotKnown
from vllm_doctor.facts import Unknown
from vllm_doctor.finding import Finding, Severity
from vllm_doctor.registry import Registry
from vllm_doctor.snapshot import Snapshot, platform_name

# What one check finds more often than this nobody reads; a foreign snapshot may hold it a million times.
MAXIMUM_FINDINGS = 50

# A check takes milliseconds; on facts made to hurt, or in somebody's plugin, it may take for ever.
MAXIMUM_SECONDS = 10.0


class Status(str, Enum):
    """What became of a check."""

    PASSED = "passed"
    FOUND = "found"
    UNKNOWN = "unknown"
    SKIPPED = "skipped"
    CRASHED = "crashed"


class CheckResult(Struct, frozen=True, kw_only=True):
    """One check's outcome; `reason` says why it is unknown, skipped or crashed."""

    id: str
    status: Status
    reason: str = ""
    seconds: float = 0.0
    package: str = ""


class Diagnosis(Struct, frozen=True, kw_only=True):
    """Everything the checks said of one snapshot, most severe first, root causes before their consequences.

    `corrected` is a launch command that was proved to come out clean, None where there is none; `remaining` is what no
    command mends, and what is still to be done with the corrected one.
    """

    snapshot: Snapshot
    findings: tuple[Finding, ...]
    checks: tuple[CheckResult, ...]
    corrected: str | None = None
    remaining: tuple[Finding, ...] = ()

    @property
    def worst(self) -> Severity | None:
        """The worst severity found."""
        return self.findings[0].severity if self.findings else None


class Selection(Struct, frozen=True):
    """Which checks and causes are wanted: ids of either kind; an empty `select` selects all."""

    select: frozenset[str] = frozenset()
    ignore: frozenset[str] = frozenset()

    def wants_check(self, check: Check) -> bool:
        """Whether the check can say anything that is wanted."""
        if check.id in self.ignore or self.ignore.issuperset(check.causes):
            return False
        return not self.select or check.id in self.select or not self.select.isdisjoint(check.causes)

    def wants_finding(self, finding: Finding) -> bool:
        """Whether this finding is wanted."""
        if finding.cause in self.ignore or finding.check in self.ignore:
            return False
        return not self.select or finding.cause in self.select or finding.check in self.select


def diagnose(snapshot: Snapshot, registry: Registry, selection: Selection | None = None) -> Diagnosis:
    """Run every check that applies; a crash of one is a result, and the others run."""
    wanted = selection or Selection()
    findings: list[Finding] = []
    results: list[CheckResult] = []
    for check in registry.checks:
        if not wanted.wants_check(check):
            results.append(_result(check, Status.SKIPPED, "deselected"))
            continue
        found, result = run_check(check, snapshot)
        findings.extend(f for f in found if wanted.wants_finding(f))
        results.append(result)
    results.extend(
        CheckResult(id=f"plugin:{b.name}", status=Status.CRASHED, reason=b.problem, package=b.package)
        for b in registry.broken
    )
    return Diagnosis(snapshot=snapshot, findings=tuple(sorted(findings, key=_rank)), checks=tuple(results))


def run_check(check: Check, snapshot: Snapshot) -> tuple[list[Finding], CheckResult]:
    """Run one check; what it found before a fact was missing stays found."""
    if why_not := _not_called(check, snapshot):
        return [], why_not
    found: list[Finding] = []
    started = time.perf_counter()
    status, reason = Status.PASSED, ""
    try:
        with _limited(MAXIMUM_SECONDS):
            for finding in check.function(snapshot):
                found.append(structs.replace(finding, check=check.id))
                if len(found) >= MAXIMUM_FINDINGS:
                    break
    except _TooSlow:
        status, reason = Status.UNKNOWN, f"the check did not end within {MAXIMUM_SECONDS:g} s"
    except NotKnown as problem:
        status, reason = Status.UNKNOWN, str(problem)
    except NotApplicable as problem:
        status, reason = Status.SKIPPED, str(problem)
    except Exception as problem:  # noqa: BLE001 - a check's crash is a result
        status, reason = Status.CRASHED, f"{type(problem).__name__}: {problem} ({check.package})"
    if found and status is not Status.CRASHED:
        status = Status.FOUND
    return found, _result(check, status, reason, time.perf_counter() - started)


class _TooSlow(Exception):
    """A check took longer than any check does."""


@contextlib.contextmanager
def _limited(seconds: float) -> Iterator[None]:
    """End what takes longer with _TooSlow; in another thread than the main one, where no alarm rings, do nothing."""
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        yield
        return
    before = signal.signal(signal.SIGALRM, _ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _ring(_number: int, _frame: FrameType | None) -> None:
    raise _TooSlow


def _result(check: Check, status: Status, reason: str, seconds: float = 0.0) -> CheckResult:
    return CheckResult(id=check.id, status=status, reason=reason, seconds=seconds, package=check.package)


def _not_called(check: Check, snapshot: Snapshot) -> CheckResult | None:
    platform = snapshot.platform
    if check.platforms and platform is not None and platform not in check.platforms:
        held = " and ".join(platform_name(p) for p in check.platforms)
        return _result(check, Status.SKIPPED, f"for {held} builds only; this vLLM is a {platform_name(platform)} build")
    for name in check.needs:
        section = getattr(snapshot, name)
        if section is None:
            return _result(check, Status.SKIPPED, ABSENT[name])
        if isinstance(section, Unknown):
            return _result(check, Status.UNKNOWN, section.reason)
    return None


ABSENT = {
    "launch": "no launch command was given",
    "model": "no launch command names a model",
}


def _rank(finding: Finding) -> tuple[int, int, str]:
    return finding.severity.rank, causes.order(finding.cause), finding.title
