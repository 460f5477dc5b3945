"""An explanation as a document: text, JSON (schema `vllm-doctor/explanation/1`) and the formats of a diagnosis."""

from collections.abc import Iterator
from typing import Any

import msgspec

from vllm_doctor import redact
from vllm_doctor.diagnose import CheckResult, Diagnosis, Status
from vllm_doctor.facts import Unknown
from vllm_doctor.finding import Confidence
from vllm_doctor.reports import FORMATS, words
from vllm_doctor.reports.document import SIGNS, STYLES
from vllm_doctor.reports.json import finding_document
from vllm_doctor.reports.layout import BLANK, Line, Span, Style
from vllm_doctor.snapshot import Snapshot
from vllm_doctor.triage.explain import Explained, Explanation
from vllm_doctor.triage.explain import Line as TextLine

SCHEMA = "vllm-doctor/explanation/1"

# Columns: a finding's words, its details, a command.
FINDING_COLUMN = 2
DETAIL_COLUMN = 8
COMMAND_COLUMN = 10

# How to get a text that holds the cause.
BETTER_TEXT = (
    "give the whole log from its first line: the cause stands above the last traceback, often in another process",
    "start the server again with VLLM_LOGGING_LEVEL=DEBUG, and keep standard output and standard error together",
    "add the output of `vllm collect-env`, or run `vllm-doctor run -- COMMAND` on the machine itself",
)


def render(explanation: Explanation, format_name: str) -> str:
    """The document in one of the formats other than text."""
    if format_name == "json":
        return msgspec.json.format(msgspec.json.encode(document(explanation)), indent=2).decode()
    return FORMATS[format_name](_diagnosis(explanation))


def document(explanation: Explanation) -> dict[str, Any]:
    """The explanation as plain values: the first finding is the root cause, none for a healthy text."""
    return {"schema": SCHEMA, "findings": [_finding(f) for f in explanation.findings]}


def _finding(explained: Explained) -> dict[str, Any]:
    lines = [{"number": line.number, "text": redact.text(line.text)} for line in explained.lines]
    return finding_document(explained.finding) | {"lines": lines}


def _diagnosis(explanation: Explanation) -> Diagnosis:
    unsaid = Unknown("the text does not say")
    snapshot = explanation.snapshot or Snapshot(host=unsaid, gpus=unsaid, environment=unsaid, servers=unsaid)
    findings = tuple(f.finding for f in explanation.findings)
    checks = tuple(CheckResult(id=i, status=Status.FOUND) for i in dict.fromkeys(f.check for f in findings))
    return Diagnosis(snapshot=snapshot, findings=findings, checks=checks)


def lines(explanation: Explanation, *, quiet: bool = False) -> Iterator[Line]:
    """The explanation for people; quiet: the root cause alone."""
    if not explanation.findings:
        yield from _nothing(explanation)
        return
    root, *others = explanation.findings
    yield Line(words=(Span("The root cause", Style.STRONG),))
    yield BLANK
    yield from _explained(root)
    if others and not quiet:
        yield BLANK
        yield Line(words=(Span("Also in this text", Style.STRONG),))
        for other in others:
            yield BLANK
            yield from _explained(other)
    yield BLANK
    yield Line(words=(Span(f"vllm-doctor explain {root.finding.cause}", Style.COMMAND), Span(" prints its page.")))


def _explained(explained: Explained) -> Iterator[Line]:
    finding = explained.finding
    style = STYLES[finding.severity]
    yield Line(
        label=Span(SIGNS[finding.severity], style),
        words=(Span(words.line(finding.title), Style.STRONG),),
        hang=FINDING_COLUMN,
    )
    origin = [Span(words.line(finding.cause), style)]
    if finding.confidence is Confidence.LIKELY:
        origin.append(Span(", likely", Style.MUTED))
    yield Line(words=tuple(origin), hang=FINDING_COLUMN)
    for line in explained.lines:
        yield _numbered(line)
    for seen in finding.evidence[len(explained.lines) :]:
        yield Line(label=Span("seen", Style.MUTED), words=(Span(words.line(seen)),), indent=2, hang=DETAIL_COLUMN)
    for fix in finding.fixes:
        yield Line(label=Span("fix", Style.GOOD), words=(Span(words.line(fix.title)),), indent=2, hang=DETAIL_COLUMN)
        for change in words.fix_lines(fix):
            yield Line(words=(Span(change, Style.COMMAND),), hang=COMMAND_COLUMN)
        if fix.command is not None:
            command = words.command_line(fix.command)
            yield Line(words=(Span(command, Style.COMMAND),), hang=COMMAND_COLUMN, whole=True)


def _numbered(line: TextLine) -> Line:
    number = f"{line.number:>4}"
    return Line(label=Span(number, Style.MUTED), words=(Span(words.line(line.text)),), indent=2, hang=DETAIL_COLUMN)


def _nothing(explanation: Explanation) -> Iterator[Line]:
    if not explanation.lines:
        yield Line(words=(Span("The text is empty: there is nothing to explain.", Style.STRONG),))
        return
    yield Line(words=(Span("Nothing in this text is recognised as a fault.", Style.STRONG),))
    yield BLANK
    if explanation.telling:
        yield Line(words=(Span("The lines that say most:", Style.MUTED),))
        for line in explanation.telling:
            yield _numbered(line)
        yield BLANK
    yield Line(words=(Span("Where something did fail, a better text helps:", Style.MUTED),))
    for advice in BETTER_TEXT:
        yield Line(label=Span("·", Style.MUTED), words=(Span(advice),), hang=FINDING_COLUMN)
