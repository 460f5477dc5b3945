"""The report as JSON, schema `vllm-doctor/report/1`: public API, built key by key and never dumped from the types."""

from typing import Any

import msgspec

from vllm_doctor import __version__, redact
from vllm_doctor.diagnose import CheckResult, Diagnosis
from vllm_doctor.finding import Finding, Fix, LaunchEdit
from vllm_doctor.reports.words import verdict

SCHEMA = "vllm-doctor/report/1"


def render(diagnosis: Diagnosis) -> str:
    """One JSON object, indented, alone."""
    return msgspec.json.format(msgspec.json.encode(document(diagnosis)), indent=2).decode()


def document(diagnosis: Diagnosis) -> dict[str, Any]:
    """The report as plain values; `failed_probes` is there only where a probe of the doctor failed."""
    found: dict[str, Any] = {
        "schema": SCHEMA,
        "doctor": {"version": __version__},
        "verdict": verdict(diagnosis),
        "findings": [finding_document(f) for f in diagnosis.findings],
        "checks": [_check(c) for c in diagnosis.checks],
        "launch": _launch(diagnosis),
        "plan": _plan(diagnosis),
    }
    if diagnosis.snapshot.failed_probes:
        found["failed_probes"] = [redact.text(name) for name in diagnosis.snapshot.failed_probes]
    return found


def finding_document(finding: Finding) -> dict[str, Any]:
    """A FINDING of the public documents."""
    return {
        "cause": redact.text(finding.cause),
        "check": redact.text(finding.check),
        "severity": finding.severity.value,
        "confidence": finding.confidence.value,
        "title": redact.text(finding.title),
        "evidence": [redact.text(seen) for seen in finding.evidence],
        "fixes": [_fix(fix) for fix in finding.fixes],
    }


def _fix(fix: Fix) -> dict[str, Any]:
    return {
        "title": redact.text(fix.title),
        "command": None if fix.command is None else [redact.text(word) for word in fix.command],
        "launch": None if fix.launch is None else _edit(fix.launch),
        "settings": None if fix.settings is None else {redact.text(n): redact.text(v) for n, v in fix.settings.items()},
        "automatic": fix.automatic,
    }


def _edit(edit: LaunchEdit) -> dict[str, Any]:
    """An edit of the launch: null in `set` is a switch, null in `env` a variable to unset.

    `positional` (the model to name instead) and `drop` (stray words to take out) are there only where they are used.
    """
    found: dict[str, Any] = {
        "set": {redact.text(name): _text_or_none(value) for name, value in edit.set.items()},
        "unset": [redact.text(name) for name in edit.unset],
        "env": {redact.text(name): _text_or_none(value) for name, value in edit.env.items()},
    }
    if edit.positional is not None:
        found["positional"] = redact.text(edit.positional)
    if edit.drop_words:
        found["drop"] = [redact.text(word) for word in edit.drop_words]
    return found


def _check(check: CheckResult) -> dict[str, Any]:
    return {
        "id": redact.text(check.id),
        "status": check.status.value,
        "reason": redact.text(check.reason),
        "seconds": round(check.seconds, 6),
    }


def _launch(diagnosis: Diagnosis) -> dict[str, Any] | None:
    launch = diagnosis.snapshot.launch
    if launch is None:
        return None
    return {"given": redact.text(launch.given), "corrected": _text_or_none(diagnosis.corrected)}


def _plan(diagnosis: Diagnosis) -> dict[str, Any] | None:
    if (planned := diagnosis.plan) is None:
        return None
    from vllm_doctor.memory.document import document

    given = redact.text(planned.launch.given)
    return document(planned.plan, redact.text(planned.name), given, _text_or_none(planned.corrected(planned.advice())))


def _text_or_none(value: str | None) -> str | None:
    return None if value is None else redact.text(value)
