"""What `connect` found, as text, as JSON (`vllm-doctor/connection/1`), and as a diagnosis for the other formats."""

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from vllm_doctor import redact
from vllm_doctor.client.health import Health
from vllm_doctor.client.visit import Step
from vllm_doctor.client.walk import Connection
from vllm_doctor.diagnose import CheckResult, Diagnosis, Status
from vllm_doctor.facts import Unknown
from vllm_doctor.finding import Finding, Severity
from vllm_doctor.reports import words
from vllm_doctor.reports.document import finding_lines
from vllm_doctor.reports.json import finding_document
from vllm_doctor.reports.layout import BLANK, Line, Span, Style
from vllm_doctor.snapshot import Snapshot

SCHEMA = "vllm-doctor/connection/1"

SIGNS = {
    "passed": Span("✓", Style.GOOD),
    "failed": Span("✗", Style.ERROR),
    "skipped": Span("·", Style.MUTED),
}
WARNED = Span("!", Style.WARNING)
NAME_COLUMN = 18

Watched = tuple[str, Health]


def document(
    connections: Sequence[Connection], findings: Sequence[Finding], watched: Watched | None = None
) -> dict[str, Any]:
    """The public document; with several URLs each step says which it belongs to."""
    several = len(connections) > 1
    found: dict[str, Any] = {
        "schema": SCHEMA,
        "steps": [_step(each, one.url if several else None) for one in connections for each in one.steps],
        "findings": [finding_document(finding) for finding in findings],
        "servers": [_server(each) for each in connections],
    }
    if watched is not None:
        found["health"] = _health(watched[1])
    return found


def render(connections: Sequence[Connection], findings: Sequence[Finding], watched: Watched | None = None) -> str:
    """The document as indented JSON."""
    encoded = msgspec.json.encode(document(connections, findings, watched))
    return msgspec.json.format(encoded, indent=2).decode()


def _step(step: Step, url: str | None) -> dict[str, Any]:
    found = {"step": step.name, "status": step.status, "seconds": step.seconds, "detail": redact.text(step.detail)}
    return found if url is None else found | {"url": redact.text(url)}


def _server(one: Connection) -> dict[str, Any]:
    return {
        "url": redact.text(one.url),
        "server": one.server,
        "version": one.version,
        "models": [
            {"id": redact.text(m.name), "root": m.root, "parent": m.parent, "max_model_len": m.max_model_len}
            for m in one.served
        ],
    }


def _health(health: Health) -> dict[str, Any]:
    return {
        "samples": health.samples,
        "figures": msgspec.to_builtins(health.figures),
        "not_evaluated": dict(health.not_evaluated),
    }


def lines(
    connections: Sequence[Connection],
    findings: Sequence[Finding],
    watched: Watched | None = None,
    *,
    quiet: bool = False,
) -> Iterator[Line]:
    """The report: the steps of each URL, the findings, the verdict; quiet: errors and the verdict."""
    if not quiet:
        for one in connections:
            yield from walked(one)
        if watched is not None:
            yield Line(words=(Span("Watched  ", Style.MUTED), Span(watched[0])))
            yield BLANK
    for finding in findings:
        if not quiet or finding.severity is Severity.ERROR:
            yield from finding_lines(finding)
            yield BLANK
    yield _verdict(connections, findings)


def walked(one: Connection) -> Iterator[Line]:
    """The steps of one URL, a line each."""
    yield Line(words=(Span(words.line(one.url), Style.STRONG),))
    mild = {f.check for f in one.findings} - {f.check for f in one.findings if f.severity is Severity.ERROR}
    after = tuple(step for step in one.steps if step.status == "skipped" and step.detail.startswith("the step "))
    for step in one.steps:
        if step in after:
            continue
        sign = WARNED if step.status == "failed" and step.name in mild else SIGNS[step.status]
        style = Style.MUTED if step.status == "skipped" else Style.PLAIN
        seconds = f"{step.seconds:5.2f} s  " if step.status != "skipped" else ""
        text = (Span(step.name.ljust(NAME_COLUMN - 4)), Span(f"{seconds}{words.line(step.detail)}", style))
        yield Line(label=Span(f"  {sign.text}", sign.style), words=_kept(text), hang=4)
    if after:
        names = ", ".join(step.name for step in after)
        told = Span(f"not taken, as {words.line(after[0].detail)}: {names}", Style.MUTED)
        yield Line(label=Span("  ·", Style.MUTED), words=(told,), hang=4)
    yield BLANK


def _kept(spans: tuple[Span, ...]) -> tuple[Span, ...]:
    """The spans with the name's padding kept: layout breaks at spaces and joins with one."""
    name, rest = spans
    return (Span(name.text.replace(" ", "\N{NO-BREAK SPACE}"), name.style), Span(" "), rest)


def _verdict(connections: Sequence[Connection], findings: Sequence[Finding]) -> Line:
    errors, warnings = (sum(f.severity is s for f in findings) for s in (Severity.ERROR, Severity.WARNING))
    if errors:
        stopped = next((s.name for one in connections for s in one.steps if s.status == "failed"), "")
        return Line(words=(Span(f"The client will fail at the step {stopped!r}.", Style.ERROR),))
    if warnings:
        told = f"The client will work; {words.counted(warnings, 'warning')}."
        return Line(words=(Span(told, Style.WARNING),))
    return Line(words=(Span("Every step that was taken works.", Style.GOOD),))


def diagnosis(connections: Sequence[Connection], findings: Sequence[Finding]) -> Diagnosis:
    """The same as a diagnosis: one check per step, so that every format of `run` can print it."""
    nothing = Unknown("connect looks at the server only")
    several = len(connections) > 1
    checks = tuple(
        _checked(each, findings, number if several else None)
        for number, one in enumerate(connections, 1)
        for each in one.steps
    )
    empty = Snapshot(host=nothing, gpus=nothing, environment=nothing, servers=nothing)
    return Diagnosis(snapshot=empty, findings=tuple(findings), checks=checks)


def _checked(step: Step, findings: Sequence[Finding], number: int | None) -> CheckResult:
    status = {"passed": Status.PASSED, "failed": Status.FOUND, "skipped": Status.SKIPPED}[step.status]
    name = step.name if number is None else f"{step.name}@{number}"
    if status is Status.FOUND and not any(f.check == step.name for f in findings):
        status = Status.SKIPPED
    return CheckResult(id=name, status=status, reason=step.detail, seconds=step.seconds, package="vllm_doctor")
