"""The text report as styled lines, from the head to the verdict; two painters print them."""

from collections.abc import Iterator

from vllm_doctor import __version__
from vllm_doctor.diagnose import Diagnosis, Status
from vllm_doctor.finding import Confidence, Finding, Fix, Severity
from vllm_doctor.reports import summary, words
from vllm_doctor.reports.layout import BLANK, Line, Span, Style

HEADINGS = {Severity.ERROR: "Errors", Severity.WARNING: "Warnings", Severity.INFO: "Notes"}
SIGNS = {Severity.ERROR: "✗", Severity.WARNING: "!", Severity.INFO: "i"}
STYLES = {Severity.ERROR: Style.ERROR, Severity.WARNING: Style.WARNING, Severity.INFO: Style.INFO}

# More ids than this under one reason are counted, and listed only when everything is asked for.
MAXIMUM_IDS = 6

# The bar of the memory plan is as wide as this on every terminal.
PLAN_WIDTH = 76

# A check that took less than this does not have its time told.
WORTH_TELLING_SECONDS = 0.01

# Columns: of a finding, its evidence and fixes, a command, the head, and the reasons of what was not evaluated.
FINDING_COLUMN = 2
DETAIL_COLUMN = 8
COMMAND_COLUMN = 10
HEAD_COLUMN = 10
STATUS_COLUMN = 11


def lines(diagnosis: Diagnosis, *, quiet: bool = False, verbose: bool = False) -> Iterator[Line]:
    """The whole report; quiet: the errors and the verdict; verbose: also what passed, and every id."""
    if not quiet:
        yield from _head(diagnosis)
    for severity in (Severity.ERROR,) if quiet else tuple(Severity):
        yield from _findings(diagnosis, severity)
    if not quiet:
        yield from _plan(diagnosis)
        yield from _corrected(diagnosis)
        yield from _troubles(diagnosis)
        yield from _not_evaluated(diagnosis, verbose=verbose)
        if verbose:
            yield from _passed(diagnosis)
        yield _paragraph(words.counts(diagnosis), Style.MUTED)
    yield _verdict(diagnosis)


def _head(diagnosis: Diagnosis) -> Iterator[Line]:
    yield Line(words=(Span("vllm-doctor", Style.STRONG), Span(f" {__version__}", Style.MUTED)))
    yield BLANK
    for label, value in summary.rows(diagnosis.snapshot):
        style = Style.COMMAND if label == "Launch" else Style.PLAIN
        head = Span(label, Style.MUTED)
        yield Line(label=head, words=(Span(value, style),), indent=2, hang=HEAD_COLUMN, whole=label == "Launch")
    yield BLANK


def _findings(diagnosis: Diagnosis, severity: Severity) -> Iterator[Line]:
    found = words.of_severity(diagnosis, severity)
    if not found:
        return
    yield _heading(f"{HEADINGS[severity]} ({len(found)})", STYLES[severity])
    yield BLANK
    for finding in found:
        yield from finding_lines(finding)
        yield BLANK


def finding_lines(finding: Finding) -> Iterator[Line]:
    """One finding: its title, its cause, what was seen, and the fixes."""
    sign = Span(SIGNS[finding.severity], STYLES[finding.severity])
    yield Line(label=sign, words=(Span(words.line(finding.title), Style.STRONG),), hang=FINDING_COLUMN)
    origin = [Span(words.line(finding.cause), STYLES[finding.severity])]
    if finding.confidence is Confidence.LIKELY:
        origin.append(Span(", likely", Style.MUTED))
    if finding.check:
        origin.append(Span(f" (check {words.line(finding.check)})", Style.MUTED))
    yield Line(words=tuple(origin), hang=FINDING_COLUMN)
    for number, seen in enumerate(finding.evidence):
        yield _detail("" if number else "seen", words.line(seen))
    for fix in finding.fixes:
        yield from _fix(fix)


def _fix(fix: Fix) -> Iterator[Line]:
    yield _detail("fix", words.line(fix.title), Style.GOOD)
    for change in words.fix_lines(fix):
        yield Line(words=(Span(change, Style.COMMAND),), hang=COMMAND_COLUMN)
    if fix.command is not None:
        yield _command(words.command_line(fix.command), COMMAND_COLUMN)


def _plan(diagnosis: Diagnosis) -> Iterator[Line]:
    if diagnosis.plan is None:
        return
    from vllm_doctor.memory import drawing
    from vllm_doctor.reports import memory

    yield _heading(memory.HEADING, Style.STRONG)
    yield _paragraph(memory.sentence(diagnosis, diagnosis.plan), Style.MUTED)
    for row in drawing.bar(diagnosis.plan.plan, PLAN_WIDTH):
        yield Line(words=(Span(row),), whole=True)
    yield BLANK


def _corrected(diagnosis: Diagnosis) -> Iterator[Line]:
    if diagnosis.corrected is None:
        return
    yield _heading("Corrected launch", Style.GOOD)
    yield _paragraph(words.PROVED, Style.MUTED)
    yield BLANK
    yield _command(words.one_line(diagnosis.corrected), FINDING_COLUMN)
    for note in (words.masked_note(diagnosis.corrected), words.remaining_note(diagnosis)):
        if note is not None:
            yield BLANK
            yield _paragraph(note, Style.MUTED)
    yield BLANK


def _troubles(diagnosis: Diagnosis) -> Iterator[Line]:
    crashed = words.of_status(diagnosis, Status.CRASHED)
    failed = diagnosis.snapshot.failed_probes
    if not crashed and not failed:
        return
    yield _heading("Failed in the doctor itself", Style.ERROR)
    for name in failed:
        yield _listed("✗", f"the {words.line(name)} probe", Style.ERROR)
    for check in crashed:
        yield _listed("✗", f"{words.line(check.id)}: {words.line(check.reason)}", Style.ERROR)
    yield BLANK


def _not_evaluated(diagnosis: Diagnosis, *, verbose: bool) -> Iterator[Line]:
    groups = words.not_evaluated(diagnosis)
    if not groups:
        return
    yield _heading(f"Not evaluated ({sum(len(g.ids) for g in groups)})", Style.STRONG)
    for group in groups if verbose else words.folded(groups):
        style = Style.WARNING if group.status is Status.UNKNOWN else Style.MUTED
        ids = Span(f" ({_ids(group.ids, verbose=verbose)})", Style.MUTED)
        status = Span(group.status.value, style)
        yield Line(label=status, words=(Span(group.reason), ids), indent=FINDING_COLUMN, hang=STATUS_COLUMN)
    yield BLANK


def _ids(ids: tuple[str, ...], *, verbose: bool) -> str:
    if verbose or len(ids) <= MAXIMUM_IDS + 1:
        return ", ".join(ids)
    return f"{', '.join(ids[:MAXIMUM_IDS])} and {len(ids) - MAXIMUM_IDS} more"


def _passed(diagnosis: Diagnosis) -> Iterator[Line]:
    passed = words.of_status(diagnosis, Status.PASSED)
    if not passed:
        return
    yield _heading(f"Passed ({len(passed)})", Style.GOOD)
    for check in passed:
        yield _listed("✓", f"{words.line(check.id)}{_duration(check.seconds)}", Style.GOOD)
    yield BLANK


def _duration(seconds: float) -> str:
    return f" ({seconds:.2f} s)" if seconds >= WORTH_TELLING_SECONDS else ""


def _verdict(diagnosis: Diagnosis) -> Line:
    style = {"ok": Style.GOOD, "warning": Style.WARNING, "error": Style.ERROR}[words.verdict(diagnosis)]
    return Line(words=(Span(words.verdict_sentence(diagnosis), style),))


def _heading(text: str, style: Style) -> Line:
    return Line(words=(Span(text, style),))


def _paragraph(text: str, style: Style) -> Line:
    return Line(words=(Span(text, style),))


def _detail(label: str, text: str, label_style: Style = Style.MUTED) -> Line:
    return Line(label=Span(f"{label:4}", label_style), words=(Span(text),), indent=FINDING_COLUMN, hang=DETAIL_COLUMN)


def _listed(sign: str, text: str, style: Style) -> Line:
    return Line(label=Span(sign, style), words=(Span(text),), hang=FINDING_COLUMN)


def _command(command: str, column: int) -> Line:
    return Line(words=(Span(command, Style.COMMAND),), hang=column, whole=True)
