"""The report as Markdown, ready to be pasted into an issue."""

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from vllm_doctor import __version__
from vllm_doctor.diagnose import Diagnosis, Status
from vllm_doctor.finding import Finding, Fix, Severity
from vllm_doctor.reports import summary, words

if TYPE_CHECKING:
    from vllm_doctor.reports.memory import Table

SIGNS = {Severity.ERROR: "❌", Severity.WARNING: "⚠️", Severity.INFO: "ℹ️"}  # noqa: RUF001 - the sign for a note

# A code block of GitHub holds so many columns without a scroll bar, beside its sidebar too.
BAR_WIDTH = 76

_SPECIAL = re.compile(r"([\\`*_\[\]<>|~$])")
# A mention or a reference to an issue would notify people and link where nothing is meant.
_REFERENCE = re.compile(r"(?<![A-Za-z0-9])([@#])(?=[A-Za-z0-9])")
_FENCE = re.compile(r"`{3,}")


def render(diagnosis: Diagnosis) -> str:
    """The document; every foreign string is escaped or fenced."""
    return "\n".join(_lines(diagnosis))


def escape(text: str) -> str:
    """Foreign text as Markdown that shows the same characters and nothing else."""
    return _REFERENCE.sub(r"\1<!-- -->", _SPECIAL.sub(r"\\\1", words.line(text)))


def _lines(diagnosis: Diagnosis) -> Iterator[str]:
    yield "## vllm-doctor"
    yield ""
    yield f"**{escape(words.verdict_sentence(diagnosis))}**"
    yield ""
    yield "| | |"
    yield "|---|---|"
    for label, value in summary.rows(diagnosis.snapshot):
        yield f"| {label} | {_code(value, in_table=True) if label == 'Launch' else escape(value)} |"
    for finding in diagnosis.findings:
        yield ""
        yield from _finding(finding)
    yield from _memory(diagnosis)
    yield from _corrected(diagnosis)
    yield from _crashed(diagnosis)
    yield from _not_evaluated(diagnosis)
    yield ""
    yield f"{escape(words.counts(diagnosis))} (vllm-doctor {__version__})"


def _finding(finding: Finding) -> Iterator[str]:
    yield f"### {SIGNS[finding.severity]} {escape(finding.title)}"
    yield ""
    check = f", check {_code(finding.check)}" if finding.check else ""
    yield f"{finding.severity.value.capitalize()}, {finding.confidence.value}: {_code(finding.cause)}{check}"
    yield ""
    yield from (f"- {escape(seen)}" for seen in finding.evidence)
    for fix in finding.fixes:
        yield from _fix(fix)


def _fix(fix: Fix) -> Iterator[str]:
    yield ""
    yield f"**Fix:** {escape(fix.title)}"
    changes = words.fix_lines(fix)
    if changes:
        yield ""
        yield from (f"- {escape(change)}" for change in changes)
    if fix.command is not None:
        yield from _fenced(words.command_line(fix.command))


def _memory(diagnosis: Diagnosis) -> Iterator[str]:
    if (planned := diagnosis.plan) is None:
        return
    from vllm_doctor.memory import drawing
    from vllm_doctor.reports import memory

    yield ""
    yield f"### {memory.HEADING}"
    yield ""
    yield escape(memory.sentence(diagnosis, planned))
    yield ""
    yield "```text"
    yield drawing.bar(planned.plan, BAR_WIDTH)[0].strip()
    yield "```"
    yield ""
    yield "| part | size | |"
    yield "|---|--:|---|"
    signs = {part.name: part.sign for part in drawing.parts(planned.plan)}
    for part in memory.parts(planned):
        yield f"| {signs.get(part.name, '·')} {part.name} | {part.size} | {escape(part.told)} |"
    yield ""
    yield escape(memory.cache_sentence(planned))
    yield from _table(memory.table(planned))


def _table(table: "Table") -> Iterator[str]:
    if not table.rows:
        return
    yield ""
    yield f"| context | {' | '.join(table.headings)} |"
    yield f"|--:{'|--:' * len(table.headings)}|"
    for length, cells, asked in table.rows:
        shown = (length, *cells)
        yield f"| {' | '.join(f'**{cell}**' if asked else cell for cell in shown)} |"


def _corrected(diagnosis: Diagnosis) -> Iterator[str]:
    if diagnosis.corrected is None:
        return
    yield ""
    yield "### Corrected launch"
    yield ""
    yield words.PROVED
    yield from _fenced(words.one_line(diagnosis.corrected))
    for note in (words.masked_note(diagnosis.corrected), words.remaining_note(diagnosis)):
        if note is not None:
            yield ""
            yield escape(note)


def _crashed(diagnosis: Diagnosis) -> Iterator[str]:
    failed = [f"the {words.line(name)} probe" for name in diagnosis.snapshot.failed_probes]
    failed += [f"{c.id}: {c.reason}" for c in words.of_status(diagnosis, Status.CRASHED)]
    if failed:
        yield ""
        yield "### Failed in the doctor itself"
        yield ""
        yield from (f"- {escape(one)}" for one in failed)


def _not_evaluated(diagnosis: Diagnosis) -> Iterator[str]:
    groups = words.not_evaluated(diagnosis)
    if not groups:
        return
    yield ""
    yield f"<details><summary>Not evaluated ({sum(len(g.ids) for g in groups)})</summary>"
    yield ""
    for group in groups:
        yield f"- {group.status.value}: {escape(group.reason)} ({', '.join(_code(i) for i in group.ids)})"
    yield ""
    yield "</details>"


def _fenced(command: str) -> Iterator[str]:
    longest = max((len(run) for run in _FENCE.findall(command)), default=2)
    fence = "`" * max(3, longest + 1)
    yield ""
    yield f"{fence}sh"
    yield command
    yield fence


def _code(text: str, *, in_table: bool = False) -> str:
    """A code span; in a table a `|` would end the cell even there, unless it is escaped (GFM)."""
    text = words.line(text)
    if in_table:
        text = text.replace("|", "\\|")
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    ticks = "`" * (longest + 1)
    space = " " if text.startswith("`") or text.endswith("`") or not text else ""
    return f"{ticks}{space}{text}{space}{ticks}"
