"""Proves fixes that edit the launch: applied to a copy of the snapshot, the checks run again, only clean ones kept."""

import time
from collections import Counter
from collections.abc import Iterable

from msgspec import structs

from vllm_doctor.check import Check
from vllm_doctor.diagnose import Diagnosis, Selection, diagnose
from vllm_doctor.facts import Launch, Model, Unknown
from vllm_doctor.finding import Finding, Fix, LaunchEdit, Severity
from vllm_doctor.launch import edit, render
from vllm_doctor.registry import Registry
from vllm_doctor.snapshot import Snapshot

# One correction may uncover the next; more rounds than this are no correction any more.
MAXIMUM_ROUNDS = 4

# Each proof runs the checks once; what is beyond is not proved, and so told in words only.
MAXIMUM_PROOFS = 60
MAXIMUM_SECONDS = 20.0


def correct(diagnosis: Diagnosis, registry: Registry, selection: Selection | None = None) -> Diagnosis:
    """The diagnosis with unproved launch fixes dropped, and the command that comes out clean where there is one."""
    launch = diagnosis.snapshot.launch
    if launch is None or not any(f.launch for finding in diagnosis.findings for f in finding.fixes):
        return diagnosis
    judge = _Judge(diagnosis.snapshot, registry, selection)
    findings = tuple(judge.proved(finding) for finding in diagnosis.findings)
    corrected, remaining = judge.corrected(findings)
    return structs.replace(diagnosis, findings=findings, corrected=corrected, remaining=remaining)


class _Judge:
    """Asks the checks again, of the same snapshot with another launch."""

    def __init__(self, snapshot: Snapshot, registry: Registry, selection: Selection | None) -> None:
        # What is installed does not change with the command: those checks need not be asked again.
        checks = tuple(c for c in registry.checks if c.needs != ("environment",))
        self._registry = structs.replace(registry, checks=checks)
        self._launch_checks = frozenset(c.id for c in checks if _judges_launch(c))
        self._asked = frozenset(c.id for c in checks)
        self._selection = selection
        self._snapshot = snapshot
        self._proofs_left = MAXIMUM_PROOFS
        self._deadline = time.monotonic() + MAXIMUM_SECONDS
        self._before = _complaint_counts(self._findings(snapshot))

    def proved(self, finding: Finding) -> Finding:
        """The finding without the launch fixes that do not cure it or that bring a new complaint.

        Where none is left, the first that cures stays as words, which say what it uncovers; so does one that there was
        no time to prove.
        """
        kept: list[Fix] = []
        advice: list[Fix] = []
        unproved: list[Fix] = []
        for fix in finding.fixes:
            if fix.launch is not None and (self._proofs_left <= 0 or time.monotonic() > self._deadline):
                unproved.append(Fix(title=fix.title))
                continue
            self._proofs_left -= fix.launch is not None
            new = () if fix.launch is None else self._new_complaints(finding, fix.launch)
            if new == ():
                kept.append(fix)
            elif new is not None:
                advice.append(Fix(title=f"{fix.title}, then mend what that uncovers: {new[0].title}"))
        return structs.replace(finding, fixes=tuple(kept or advice[:1] or unproved[:1]))

    def corrected(self, given: tuple[Finding, ...]) -> tuple[str | None, tuple[Finding, ...]]:
        """The command with a fix for each finding, round after round, where no complaint about it remains.

        And the complaints that remain, all of something else than the command.
        """
        findings: Iterable[Finding] = given
        snapshot = self._snapshot
        for _ in range(MAXIMUM_ROUNDS):
            edits = [e for f in findings if (e := _first_edit(f)) is not None]
            if not edits:
                break
            for change in edits:
                snapshot = edited(snapshot, change)
            findings = self._findings(snapshot)
            if not self._complaints(findings):
                remaining = (*(f for f in given if f.check not in self._asked), *findings)
                line = _new_line(self._snapshot.launch, snapshot.launch)
                return line, tuple(f for f in remaining if f.severity is not Severity.INFO)
        return None, ()

    def _new_complaints(self, finding: Finding, change: LaunchEdit) -> tuple[Finding, ...] | None:
        """What is complained about with the change and was not before; None where the change does not cure."""
        findings = self._findings(edited(self._snapshot, change))
        after = _complaint_counts(findings)
        if after[_key(finding)] >= self._before[_key(finding)] and finding.severity is not Severity.INFO:
            return None
        worse = after - self._before
        return tuple(f for f in findings if _key(f) in worse and f.severity is not Severity.INFO)

    def _complaints(self, findings: Iterable[Finding]) -> list[Finding]:
        return [f for f in findings if f.check in self._launch_checks and f.severity is not Severity.INFO]

    def _findings(self, snapshot: Snapshot) -> tuple[Finding, ...]:
        return diagnose(snapshot, self._registry, self._selection).findings


def edited(snapshot: Snapshot, change: LaunchEdit) -> Snapshot:
    """The snapshot with the launch changed; another model than the examined one is not known."""
    if snapshot.launch is None:
        return snapshot
    launch = edit.apply(snapshot.launch, change)
    model = snapshot.model
    if launch.model != snapshot.launch.model and isinstance(model, Model):
        model = Unknown(f"the model {launch.model} was not examined")
    return structs.replace(snapshot, launch=launch, model=model)


def _judges_launch(check: Check) -> bool:
    return "launch" in check.needs


def _key(finding: Finding) -> tuple[str, str]:
    return finding.check, finding.cause


def _complaint_counts(findings: Iterable[Finding]) -> Counter[tuple[str, str]]:
    return Counter(_key(f) for f in findings if f.severity is not Severity.INFO)


def _first_edit(finding: Finding) -> LaunchEdit | None:
    return next((f.launch for f in finding.fixes if f.launch is not None), None)


def _new_line(before: Launch | None, after: Launch | None) -> str | None:
    if after is None or before is None or after == before:
        return None
    return render.command_line(after)
