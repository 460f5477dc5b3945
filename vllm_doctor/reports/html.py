"""The report as one self-contained HTML page: no scripts, nothing fetched, light and dark, fit to be printed."""

from pathlib import Path
from typing import Any

from vllm_doctor import __version__
from vllm_doctor.diagnose import Diagnosis, Status
from vllm_doctor.finding import Severity
from vllm_doctor.reports import summary, words

TEMPLATE = Path(__file__).with_name("page.html.jinja")

HEADINGS = {Severity.ERROR: "Errors", Severity.WARNING: "Warnings", Severity.INFO: "Notes"}


def render(diagnosis: Diagnosis) -> str:
    """The page; every foreign string is escaped by Jinja."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {
        "line": words.line,
        "one_line": words.one_line,
        "masked_note": words.masked_note,
        "remaining_note": words.remaining_note,
        "command": words.command_line,
        "changes": words.fix_lines,
    }
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        diagnosis=diagnosis,
        version=__version__,
        verdict=words.verdict(diagnosis),
        sentence=words.verdict_sentence(diagnosis),
        proved=words.PROVED,
        counts=words.counts(diagnosis),
        rows=summary.rows(diagnosis.snapshot),
        groups=[(HEADINGS[s], s.value, words.of_severity(diagnosis, s)) for s in Severity],
        memory=_memory(diagnosis),
        passed=words.of_status(diagnosis, Status.PASSED),
        crashed=words.of_status(diagnosis, Status.CRASHED),
        not_evaluated=words.not_evaluated(diagnosis),
    )


def _memory(diagnosis: Diagnosis) -> dict[str, Any] | None:
    """The memory plan, where there is one."""
    if (planned := diagnosis.plan) is None:
        return None
    from vllm_doctor.reports import memory

    return {
        "heading": memory.HEADING,
        "sentence": memory.sentence(diagnosis, planned),
        "cache": memory.cache_sentence(planned),
        "parts": memory.parts(planned),
        "edge": memory.edge(planned),
        "table": memory.table(planned),
    }
