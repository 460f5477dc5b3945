"""What `verify` proved, as text, as JSON (`vllm-doctor/verification/1`), and as a diagnosis for the other formats."""

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
from msgspec import structs

from vllm_doctor import __version__, redact
from vllm_doctor.client.visit import Step
from vllm_doctor.diagnose import CheckResult, Diagnosis, Status
from vllm_doctor.finding import Finding, Severity
from vllm_doctor.reports import connection, summary, words
from vllm_doctor.reports.document import finding_lines
from vllm_doctor.reports.json import finding_document
from vllm_doctor.reports.layout import BLANK, Line, Span, Style
from vllm_doctor.trial import known_good
from vllm_doctor.trial.attempts import Attempt
from vllm_doctor.trial.reported import GIB
from vllm_doctor.trial.trial import WHILE, Outcome
from vllm_doctor.trial.verification import Verification, is_clean

SCHEMA = "vllm-doctor/verification/1"

# Causes that only say that it failed.
UNEXPLAINED = ("engine-dead", "engine-hang")

GOOD, BAD = Span("✓", Style.GOOD), Span("✗", Style.ERROR)


def document(found: Verification, findings: Sequence[Finding]) -> dict[str, Any]:
    """The public document: the contract's keys, and after them what else is known."""
    good, last = found.good, found.last
    walked = last.connection if last is not None else None
    file = known_good.config_file(good.launch) if good is not None else None
    return {
        "schema": SCHEMA,
        "verdict": "ok" if found.ok else "error",
        "command": redact.text(found.given),
        "ready_seconds": good.outcome.ready_seconds if good is not None and good.outcome is not None else None,
        "steps": [_step(step) for step in walked.steps] if walked is not None else [],
        "attempts": [_attempt(attempt, run.name) for run in found.runs for attempt in run.attempts],
        "known_good": redact.text(good.command) if good is not None else None,
        "left_behind": _left(found.outcomes),
        "findings": [finding_document(finding) for finding in findings],
        "doctor": {"version": __version__},
        "known_good_config": None if file is None else redact.text(file),
        "left_out": [{"configuration": name, "reason": redact.text(why)} for name, why in found.left_out],
        "calibration": None if found.kept is None else redact.text(found.kept),
        "memory": [structs.asdict(row) for row in found.rows],
        "teardown": [_teardown(outcome) for outcome in found.outcomes],
    }


def render(found: Verification, findings: Sequence[Finding]) -> str:
    """The document as indented JSON."""
    return msgspec.json.format(msgspec.json.encode(document(found, findings)), indent=2).decode()


def _step(step: Step) -> dict[str, Any]:
    return {"step": step.name, "status": step.status, "seconds": step.seconds, "detail": redact.text(step.detail)}


def _attempt(attempt: Attempt, name: str) -> dict[str, Any]:
    outcome = attempt.outcome
    found = {
        "command": redact.text(attempt.command),
        "outcome": attempt.cause or "ok",
        "started": outcome is not None,
        "changes": [redact.text(change) for change in attempt.changes],
        "title": None if attempt.serves else redact.text(attempt.findings[0].title),
        "stage": None if outcome is None else outcome.stage,
        "exit_code": None if outcome is None else outcome.exit_code,
        "ready_seconds": None if outcome is None else outcome.ready_seconds,
        "seconds": 0.0 if outcome is None else outcome.seconds,
        "log_tail": [] if outcome is None else [redact.text(line) for line in outcome.tail],
    }
    return found | ({"configuration": name} if name else {})


def _left(outcomes: Sequence[Outcome]) -> dict[str, int]:
    """The sums over all starts; without NVML there is no GPU whose memory could be held."""
    rests = [outcome.left_behind for outcome in outcomes]
    return {"processes": sum(r.processes for r in rests), "gpu_bytes": sum(r.gpu_bytes or 0 for r in rests)}


def _teardown(outcome: Outcome) -> dict[str, Any]:
    rest = outcome.left_behind
    return {
        "clean": is_clean(rest),
        "processes": rest.processes,
        "gpu_bytes": rest.gpu_bytes,
        "port_open": rest.port_open,
        "shared_memory": [redact.text(name) for name in rest.shared_memory],
        "sockets": [redact.text(name) for name in rest.sockets],
        "zombies": rest.zombies,
        "what": [redact.text(line) for line in rest.what],
    }


def lines(
    found: Verification, findings: Sequence[Finding], *, quiet: bool = False, verbose: bool = False
) -> Iterator[Line]:
    """The report; quiet: what fails, the command that serves, and the verdict; verbose: also every step."""
    if not quiet:
        yield from _head(found)
        yield from _tried(found)
        yield from _walked(found, verbose=verbose)
    for finding in findings:
        if not quiet or finding.severity is Severity.ERROR:
            yield from finding_lines(finding)
            yield BLANK
    if not quiet:
        yield from _tail(found, verbose=verbose)
        yield from _memory(found)
    if found.good is not None and not found.canary:
        yield from _known_good(found.good, quiet=quiet)
    if not quiet:
        yield from _gone(found.outcomes, found.snapshot.platform)
    yield _verdict(found)


def _head(found: Verification) -> Iterator[Line]:
    yield Line(words=(Span("vllm-doctor", Style.STRONG), Span(f" {__version__}", Style.MUTED)))
    yield BLANK
    rows = {label: value for label, value in summary.rows(found.snapshot) if label in ("GPUs", "vLLM")}
    for label, value in rows.items():
        yield _row(label, value)
    yield _row("Canary" if found.canary else "Launch", words.one_line(found.given), Style.COMMAND)
    yield BLANK


def _row(label: str, value: str, style: Style = Style.PLAIN) -> Line:
    head = Span(label, Style.MUTED)
    return Line(label=head, words=(Span(value, style),), indent=2, hang=10, whole=style is Style.COMMAND)


def _tried(found: Verification) -> Iterator[Line]:
    several = len(found.runs) > 1
    yield _heading("Configurations" if several else "Attempts")
    number = 0
    for run in found.runs:
        for attempt in run.attempts:
            number += 1
            yield from _told(attempt, f"{run.name}:" if several else str(number), first=number == 1 or several)
    for name, why in found.left_out:
        told = (Span(words.line(name), Style.MUTED), Span(f" left out: {words.line(why)}", Style.MUTED))
        yield Line(label=Span("  ·", Style.MUTED), words=told, hang=4)
    yield BLANK


def _told(attempt: Attempt, label: str, *, first: bool) -> Iterator[Line]:
    sign = GOOD if attempt.serves else BAD
    told = [Span(f"{words.line(label)} ", Style.STRONG)]
    if not attempt.serves:
        told.append(Span(f"{words.line(attempt.findings[0].cause)}: ", Style.ERROR))
    told.append(Span(how(attempt)))
    yield Line(label=Span(f"  {sign.text}", sign.style), words=tuple(told), hang=4)
    for change in attempt.changes:
        yield Line(label=Span("changed", Style.MUTED), words=(Span(words.line(change)),), indent=6, hang=14)
    if not first:
        yield Line(words=(Span(words.one_line(attempt.command), Style.COMMAND),), hang=6, whole=True)


def how(attempt: Attempt) -> str:
    """How far an attempt came, in a few words."""
    outcome = attempt.outcome
    if outcome is None:
        return "not started: the checks are certain that it fails"
    if outcome.ready_seconds is None:
        stage = WHILE.get(outcome.stage or "", "")
        ended = "stopped" if outcome.exit_code is None else f"ended with exit code {outcome.exit_code}"
        return f"{ended} {stage} after {outcome.seconds:.0f} s".replace("  ", " ")
    if attempt.serves:
        return f"serves: ready after {outcome.ready_seconds:.1f} s, every step works"
    failed = [step.name for step in outcome.connection.steps if step.status == "failed"] if outcome.connection else []
    at = f" at the step {failed[0]!r}" if failed else ""
    return f"ready after {outcome.ready_seconds:.1f} s, then broken{at}"


def _walked(found: Verification, *, verbose: bool) -> Iterator[Line]:
    walked = found.last.connection if found.last is not None else None
    if walked is None:
        return
    failed = any(step.status == "failed" for step in walked.steps)
    if verbose or failed:
        yield from connection.walked(walked)
        return
    passed = ", ".join(step.name for step in walked.steps if step.status == "passed")
    skipped = ", ".join(step.name for step in walked.steps if step.status == "skipped")
    yield Line(label=Span("Walked", Style.STRONG), words=(Span(passed),), hang=8)
    if skipped:
        yield Line(label=Span("skipped", Style.MUTED), words=(Span(skipped, Style.MUTED),), hang=8)
    yield BLANK


def _tail(found: Verification, *, verbose: bool) -> Iterator[Line]:
    """The end of the log of the last attempt that failed: where nothing explains it, or on request."""
    failed = [attempt for attempt in found.attempts if attempt.outcome is not None and not attempt.serves]
    outcome = failed[-1].outcome if failed else None
    if outcome is None or not outcome.tail or not (verbose or failed[-1].cause in UNEXPLAINED):
        return
    yield _heading("The end of its log")
    for row in outcome.tail if verbose else outcome.tail[-8:]:
        yield Line(words=(Span(words.line(row), Style.MUTED),), hang=2)
    yield BLANK


def _memory(found: Verification) -> Iterator[Line]:
    if not found.rows:
        if found.kept is not None:
            yield Line(words=(Span(words.line(found.kept), Style.MUTED),))
            yield BLANK
        return
    planned = any(row.planned is not None for row in found.rows)
    yield _heading("Memory of each GPU, planned and reported" if planned else "Memory, as vLLM reported it")
    for row in found.rows:
        figures = f"{_figure(row.planned, row.unit):>15}" if planned else ""
        off = f"{(row.reported - row.planned) / row.planned:+8.1%}" if row.planned else ""
        text = f"{row.name:28}{figures}{_figure(row.reported, row.unit):>17}{off}"
        yield Line(words=(Span(text.rstrip()),), hang=2, whole=True)
    if found.kept is not None:
        yield Line(words=(Span(words.line(found.kept), Style.MUTED),), hang=2)
    yield BLANK


def _figure(value: float | None, unit: str) -> str:
    if value is None:
        return "-"
    if unit == "bytes":
        return f"{value / GIB:.2f} GiB"
    return f"{value:,.0f} tokens" if unit == "tokens" else f"{value:.2f}"


def _known_good(good: Attempt, *, quiet: bool) -> Iterator[Line]:
    yield _heading("Known to be good", Style.GOOD)
    yield Line(words=(Span(words.one_line(good.command), Style.COMMAND),), hang=2, whole=True)
    file = known_good.config_file(good.launch)
    if file is not None and not quiet:
        yield BLANK
        program = " ".join(good.launch.program)
        variables = " ".join(good.launch.environment)
        told = f"or as a file, {program} --config FILE.yaml" + (f" (with {variables} set)" if variables else "")
        yield Line(words=(Span(words.line(told), Style.MUTED),), hang=2)
        for row in redact.text(file).splitlines():
            yield Line(words=(Span(row, Style.COMMAND),), hang=4, whole=True)
    if (note := words.masked_note(good.command)) is not None:
        yield Line(words=(Span(note, Style.MUTED),), hang=2)
    yield BLANK


def _gone(outcomes: Sequence[Outcome], platform: str | None) -> Iterator[Line]:
    if not outcomes or not all(is_clean(outcome.left_behind) for outcome in outcomes):
        return
    proofs = ["no process", "no port", "no shared memory", "no socket"]
    unknown = ""
    if all(outcome.left_behind.gpu_bytes is not None for outcome in outcomes):
        proofs.append("the GPUs' memory as before")
    elif platform != "cpu":
        unknown = " The GPUs' memory was not evaluated: NVML says nothing."
    told = Span(f"nothing: {', '.join(proofs)}.{unknown}")
    yield Line(label=Span("Left behind", Style.STRONG), words=(told,), hang=13)
    yield BLANK


def _verdict(found: Verification) -> Line:
    if found.ok and found.canary:
        told = "This environment serves and computes right."
        return Line(words=(Span(told, Style.GOOD),))
    if found.ok:
        return Line(words=(Span("The launch serves.", Style.GOOD),))
    if found.good is not None and not found.canary:
        count = words.counted(len(found.attempts), "attempt")
        return Line(words=(Span(f"The launch fails as given; what serves was found in {count}.", Style.ERROR),))
    subject = "This environment does not serve" if found.canary else "The launch fails, and no change of it serves"
    return Line(words=(Span(f"{subject}.", Style.ERROR),))


def _heading(text: str, style: Style = Style.STRONG) -> Line:
    return Line(words=(Span(text, style),))


def diagnosis(found: Verification, findings: Sequence[Finding]) -> Diagnosis:
    """The same as a diagnosis, for every format of `run`: one check per attempt and per step that was taken.

    A command that serves in place of the given one is the corrected one.
    """
    owners = {id(f): f"attempt-{n}" for n, a in enumerate(found.attempts, 1) for f in a.findings}
    titles = {(f.cause, f.title): owners[id(f)] for a in reversed(found.attempts) for f in a.findings}
    told = tuple(structs.replace(f, check=titles.get((f.cause, f.title), f.check)) for f in findings)
    corrected = found.good.command if found.good is not None and not found.ok else None
    return Diagnosis(snapshot=found.snapshot, findings=told, checks=tuple(_checks(found)), corrected=corrected)


def _checks(found: Verification) -> Iterator[CheckResult]:
    for number, attempt in enumerate(found.attempts, 1):
        seconds = attempt.outcome.seconds if attempt.outcome is not None else 0.0
        status = Status.PASSED if attempt.serves else Status.FOUND
        yield CheckResult(
            id=f"attempt-{number}", status=status, reason=how(attempt), seconds=seconds, package="vllm_doctor"
        )
    walked = found.last.connection if found.last is not None else None
    for step in walked.steps if walked is not None else ():
        if step.status != "failed":
            status = Status.PASSED if step.status == "passed" else Status.SKIPPED
            yield CheckResult(
                id=step.name, status=status, reason=step.detail, seconds=step.seconds, package="vllm_doctor"
            )
    if found.outcomes:
        clean = all(is_clean(outcome.left_behind) for outcome in found.outcomes)
        yield CheckResult(id="left-behind", status=Status.PASSED if clean else Status.FOUND, package="vllm_doctor")
