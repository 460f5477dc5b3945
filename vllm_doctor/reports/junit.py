"""The report as JUnit XML: one test case per check, so that a pre-flight shows up in any CI's list of tests."""

import re
from collections.abc import Iterator

from vllm_doctor import __version__, redact
from vllm_doctor.diagnose import CheckResult, Diagnosis, Status
from vllm_doctor.finding import Finding, Severity
from vllm_doctor.reports import words

# What XML 1.0 cannot hold, not even as a reference (https://www.w3.org/TR/xml/#charsets).
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

_ENTITIES = str.maketrans(
    {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "\n": "&#10;", "\t": "&#9;", "\r": "&#13;"}
)
_CONTENT = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", "\r": "&#13;"})


def render(diagnosis: Diagnosis, fail_on: Severity | None = Severity.ERROR) -> str:
    """The XML document, valid against the schema that Jenkins' xUnit plugin (junit-10.xsd) and GitLab read.

    A check that found something at or above `fail_on` fails, as the exit code does (None: nothing fails); what it found
    below that stands in `system-out` of a case that passes. A crash is an `error`; what was not evaluated is `skipped`
    with its reason, never passed.
    """
    cases = [_Case(check, diagnosis, fail_on) for check in diagnosis.checks]
    head = _attributes(
        name="vllm-doctor",
        tests=str(len(cases)),
        failures=str(sum(c.fails for c in cases)),
        errors=str(sum(c.check.status is Status.CRASHED for c in cases)),
        time=f"{sum(c.check.seconds for c in cases):.3f}",
    )
    suite = head + _attributes(skipped=str(sum(c.skipped for c in cases)), timestamp=diagnosis.snapshot.taken_at[:19])
    rows = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        f"<testsuites{head}>",
        f"  <testsuite{suite}>",
        "    <properties>",
        f"      <property{_attributes(name='vllm-doctor', value=__version__)}/>",
        f"      <property{_attributes(name='verdict', value=words.verdict(diagnosis))}/>",
        *_memory(diagnosis),
        "    </properties>",
        *(row for case in cases for row in case.rows()),
        "  </testsuite>",
        "</testsuites>",
    ]
    return "\n".join(rows)


def _memory(diagnosis: Diagnosis) -> Iterator[str]:
    """The memory plan as a property of the suite, where there is one."""
    if diagnosis.plan is not None:
        from vllm_doctor.reports import memory

        told = f"{memory.sentence(diagnosis, diagnosis.plan)} {memory.cache_sentence(diagnosis.plan)}"
        yield f"      <property{_attributes(name='memory', value=told)}/>"


class _Case:
    """One check as a test case."""

    def __init__(self, check: CheckResult, diagnosis: Diagnosis, fail_on: Severity | None) -> None:
        self.check = check
        self._findings = tuple(f for f in diagnosis.findings if f.check == check.id)
        self._failing = tuple(f for f in self._findings if _at_or_above(f, fail_on))
        self.fails = bool(self._failing) and check.status is not Status.CRASHED
        self.skipped = check.status in (Status.UNKNOWN, Status.SKIPPED)

    def rows(self) -> Iterator[str]:
        """The lines of the `testcase` element."""
        package = self.check.package or "vllm_doctor"
        head = _attributes(name=self.check.id, classname=package, time=f"{self.check.seconds:.3f}")
        body = list(self._body())
        if not body:
            yield f"    <testcase{head}/>"
            return
        yield f"    <testcase{head}>"
        yield from (f"      {row}" for row in body)
        yield "    </testcase>"

    def _body(self) -> Iterator[str]:
        if self.check.status is Status.CRASHED:
            yield f"<error{_attributes(type='crashed', message=words.line(self.check.reason))}/>"
        if self.fails:
            title = "; ".join(words.line(f.title) for f in self._failing)
            head = _attributes(type=self._failing[0].cause, message=title)
            yield f"<failure{head}>{_content(_bodies(self._failing))}</failure>"
        if self.skipped:
            reason = f"{self.check.status.value}: {words.line(self.check.reason)}"
            yield f"<skipped{_attributes(message=reason)}/>"
        rest = tuple(f for f in self._findings if not (self.fails and f in self._failing))
        if rest:
            yield f"<system-out>{_content(_bodies(rest))}</system-out>"


def _at_or_above(finding: Finding, fail_on: Severity | None) -> bool:
    return fail_on is not None and finding.severity.rank <= fail_on.rank


def _bodies(findings: tuple[Finding, ...]) -> str:
    return "\n\n".join(f"{f.severity.value} {words.line(f.cause)}: {words.plain_finding(f)}" for f in findings)


def _attributes(**values: str) -> str:
    return "".join(f' {name}="{_clean(value).translate(_ENTITIES)}"' for name, value in values.items() if value)


def _content(text: str) -> str:
    return _clean(text).translate(_CONTENT)


def _clean(text: str) -> str:
    return _NOT_XML.sub("", redact.text(text))
