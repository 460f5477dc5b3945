"""The report as workflow commands of GitHub Actions (annotations), and the step summary."""

from collections.abc import Iterator

from vllm_doctor.diagnose import Diagnosis, Status
from vllm_doctor.finding import Finding, Severity
from vllm_doctor.reports import markdown, words

# https://docs.github.com/actions/reference/workflow-commands-for-github-actions
COMMANDS = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.INFO: "notice"}

# A step summary may hold 1 MiB; a larger one is refused whole.
MAXIMUM_SUMMARY_BYTES = 1_000_000


def render(diagnosis: Diagnosis) -> str:
    """An annotation per finding, what was not evaluated in a folded group, and the verdict last."""
    rows = [_annotation(finding) for finding in diagnosis.findings]
    rows += [
        f"::error title={_property('vllm-doctor: a check crashed')}::{_data(words.line(f'{c.id}: {c.reason}'))}"
        for c in words.of_status(diagnosis, Status.CRASHED)
    ]
    rows += _group("Memory of each GPU", _memory(diagnosis))
    rows += _group("Corrected launch", _corrected(diagnosis))
    rows += _group("Not evaluated", _not_evaluated(diagnosis))
    rows.append(_printed(f"vllm-doctor: {words.verdict_sentence(diagnosis)} ({words.counts(diagnosis)})"))
    return "\n".join(rows)


def step_summary(diagnosis: Diagnosis) -> str:
    """What to append to the file that $GITHUB_STEP_SUMMARY names: Markdown, within the size that GitHub takes."""
    document = markdown.render(diagnosis)
    if len(document.encode()) <= MAXIMUM_SUMMARY_BYTES:
        return document
    return f"## vllm-doctor\n\n{markdown.escape(words.verdict_sentence(diagnosis))}"


def _annotation(finding: Finding) -> str:
    title = _property(f"{words.line(finding.cause)} ({words.line(finding.check)})")
    return f"::{COMMANDS[finding.severity]} title={title}::{_data(words.plain_finding(finding))}"


def _memory(diagnosis: Diagnosis) -> Iterator[str]:
    if (planned := diagnosis.plan) is not None:
        from vllm_doctor.reports import memory

        yield memory.sentence(diagnosis, planned)
        for part in memory.parts(planned):
            yield f"{part.name}: {part.size}{f' ({part.told})' if part.told else ''}"
        yield memory.cache_sentence(planned)


def _corrected(diagnosis: Diagnosis) -> Iterator[str]:
    if diagnosis.corrected is not None:
        yield words.one_line(diagnosis.corrected)
        notes = (words.masked_note(diagnosis.corrected), words.remaining_note(diagnosis))
        yield from (note for note in notes if note is not None)


def _not_evaluated(diagnosis: Diagnosis) -> Iterator[str]:
    for group in words.not_evaluated(diagnosis):
        yield f"{group.status.value}: {group.reason} ({', '.join(group.ids)})"


def _group(title: str, lines: Iterator[str]) -> list[str]:
    # The sign keeps foreign text from standing first in a line, where "::" would make it a workflow command.
    rows = [f"- {_printed(line)}" for line in lines]
    return [f"::group::{title}", *rows, "::endgroup::"] if rows else []


def _printed(line: str) -> str:
    # The runner's older commands, ##[error] and the like, are found anywhere in a line (actions/runner, ActionCommand).
    return line.replace("##[", "# #[")


def _data(text: str) -> str:
    return _printed(text).replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
