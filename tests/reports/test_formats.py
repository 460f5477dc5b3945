"""The documents for machines: valid whatever the findings say, and true to the public schema."""

import html.parser
import json
import re
import xml.etree.ElementTree as ET
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from tests.reports import builders
from vllm_doctor.diagnose import Diagnosis, Status
from vllm_doctor.finding import Fix, LaunchEdit, Severity
from vllm_doctor.reports import FORMATS, github, junit, markdown, text


class LaunchDocument(msgspec.Struct, forbid_unknown_fields=True):
    set: dict[str, str | None]
    unset: list[str]
    env: dict[str, str | None]
    positional: str | msgspec.UnsetType = msgspec.UNSET
    drop: list[str] | msgspec.UnsetType = msgspec.UNSET


class FixDocument(msgspec.Struct, forbid_unknown_fields=True):
    title: str
    command: list[str] | None
    launch: LaunchDocument | None
    settings: dict[str, str] | None
    automatic: bool


class FindingDocument(msgspec.Struct, forbid_unknown_fields=True):
    cause: str
    check: str
    severity: Severity
    confidence: str
    title: str
    evidence: list[str]
    fixes: list[FixDocument]


class CheckDocument(msgspec.Struct, forbid_unknown_fields=True):
    id: str
    status: Status
    reason: str
    seconds: float


class GivenDocument(msgspec.Struct, forbid_unknown_fields=True):
    given: str
    corrected: str | None


class ReportDocument(msgspec.Struct, forbid_unknown_fields=True):
    """The contract of `vllm-doctor/report/1`, key by key."""

    schema: str
    doctor: dict[str, str]
    verdict: str
    findings: list[FindingDocument]
    checks: list[CheckDocument]
    launch: GivenDocument | None
    plan: None
    failed_probes: list[str] | msgspec.UnsetType = msgspec.UNSET


@pytest.mark.parametrize("diagnosis", [builders.diagnosis(), builders.healthy(), builders.bare()])
def test_json_keeps_the_contract(diagnosis: Diagnosis) -> None:
    found = msgspec.json.decode(FORMATS["json"](diagnosis), type=ReportDocument)
    assert found.schema == "vllm-doctor/report/1"
    assert found.verdict in ("ok", "warning", "error")
    assert (found.launch is None) == (diagnosis.snapshot.launch is None)
    assert len(found.checks) == len(diagnosis.checks)


# What Jenkins' xUnit plugin (junit-10.xsd) allows: element -> its attributes and children.
ALLOWED = {
    "testsuites": ({"name", "time", "tests", "failures", "errors"}, {"testsuite"}),
    "testsuite": (
        {"name", "tests", "failures", "errors", "time", "skipped", "timestamp"},
        {"properties", "testcase"},
    ),
    "properties": (set(), {"property"}),
    "property": ({"name", "value"}, set()),
    "testcase": ({"name", "time", "classname"}, {"skipped", "error", "failure", "system-out"}),
    "skipped": ({"message"}, set()),
    "error": ({"type", "message"}, set()),
    "failure": ({"type", "message"}, set()),
    "system-out": (set(), set()),
}


def conforming(document: str) -> ET.Element:
    root = ET.fromstring(document.encode())
    for element in root.iter():
        attributes, children = ALLOWED[element.tag]
        assert set(element.attrib) <= attributes, element.tag
        assert {child.tag for child in element} <= children, element.tag
        assert re.fullmatch(r"\d+\.\d{3}", element.attrib.get("time", "0.000"))
    return root


@pytest.mark.parametrize("diagnosis", [builders.diagnosis(), builders.healthy(), builders.bare()])
def test_junit_counts_what_it_holds(diagnosis: Diagnosis) -> None:
    suite = conforming(FORMATS["junit"](diagnosis)).find("testsuite")
    assert suite is not None
    for attribute, tag in (("tests", "testcase"), ("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        assert int(suite.attrib[attribute]) == len(list(suite.iter(tag)))
    assert int(suite.attrib["tests"]) == len(diagnosis.checks)


@pytest.mark.parametrize(
    ("fail_on", "failing"),
    [
        (Severity.ERROR, {"driver-cuda", "tensor-parallel-heads"}),
        (Severity.WARNING, {"driver-cuda", "tensor-parallel-heads", "shm-size"}),
        (None, set()),
    ],
)
def test_junit_fails_what_the_exit_code_fails(fail_on: Severity | None, failing: set[str]) -> None:
    root = conforming(junit.render(builders.diagnosis(), fail_on))
    found = {case.attrib["name"] for case in root.iter("testcase") if case.find("failure") is not None}
    told = {case.attrib["name"] for case in root.iter("testcase") if case.find("system-out") is not None}
    assert found == failing
    assert found | told == {"driver-cuda", "tensor-parallel-heads", "shm-size", "model-name"}


def test_github_commands_cannot_be_injected() -> None:
    evil = "x\r\n::set-env name=A::b\n##[add-path]/evil, a:b %0A"
    diagnosis = structs.replace(
        builders.diagnosis(),
        findings=(builders.finding(title=evil, cause=evil, evidence=(evil,)),),
        checks=(builders.result("a", Status.UNKNOWN, evil), builders.result("b", Status.CRASHED, evil)),
        corrected=evil,
    )
    rows = FORMATS["github"](diagnosis).splitlines()
    commands = [row.split("::")[1].split(" ")[0] for row in rows if row.startswith("::")]
    assert commands == ["error", "error", "group", "endgroup", "group", "endgroup"]
    assert not [row for row in rows if "##[" in row]
    assert rows[0].partition("(driver-cuda)::")[2] == (
        "x ::set-env name=A::b # #[add-path]/evil, a:b %250A%0A"
        "seen: x ::set-env name=A::b # #[add-path]/evil, a:b %250A"
    )
    assert rows[0].startswith(
        "::error title=x %3A%3Aset-env name=A%3A%3Ab # #[add-path]/evil%2C a%3Ab %250A (driver-cuda)::"
    )


def test_the_step_summary_is_within_github_s_limit() -> None:
    finding = builders.finding(evidence=tuple("seen " * 600 for _ in range(500)))
    short = github.step_summary(structs.replace(builders.diagnosis(), findings=(finding,)))
    assert len(short.encode()) <= github.MAXIMUM_SUMMARY_BYTES
    assert "This launch will fail" in short
    assert github.step_summary(builders.diagnosis()) == markdown.render(builders.diagnosis())


def test_markdown_of_others_is_text() -> None:
    assert markdown.escape("a_b *c* <b> `d` [e](f) @someone #12 a@b") == (
        "a\\_b \\*c\\* \\<b\\> \\`d\\` \\[e\\](f) @<!-- -->someone #<!-- -->12 a@b"
    )
    fix = Fix(title="run it", command=("echo", "````"))
    shown = markdown.render(structs.replace(builders.healthy(), findings=(builders.finding(fixes=(fix,)),)))
    assert "`````sh\necho '````'\n`````" in shown


class Page(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.attributes: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def parsed(document: str) -> Page:
    page = Page()
    page.feed(document)
    assert page.open == []
    return page


def test_html_fetches_and_runs_nothing() -> None:
    page = parsed(FORMATS["html"](builders.diagnosis()))
    assert page.tags.isdisjoint({"script", "link", "img", "iframe", "object"})
    assert page.attributes.isdisjoint({"src", "href", "onclick", "style"})
    assert "url(" not in FORMATS["html"](builders.diagnosis())


FOREIGN = st.one_of(
    st.text(max_size=80),
    st.text("<>&\"'`]|%:,#@{}\\\n\r\t\x00\x1b\x9b\ufffe\ud800~-*_[", max_size=40),
    st.sampled_from(["</script>", "]]>", "{{ 7 * 7 }}", "<!--", "-->", "::error::", "\x1b[31m"]),
)


@st.composite
def foreign_diagnoses(draw: st.DrawFn) -> Diagnosis:
    """The constructed diagnosis with any text at every place where a check or a fact brings text."""
    edit = LaunchEdit(
        set={draw(FOREIGN): draw(st.none() | FOREIGN)},
        unset=(draw(FOREIGN),),
        env={draw(FOREIGN): draw(st.none() | FOREIGN)},
        positional=draw(FOREIGN),
        drop_words=(draw(FOREIGN),),
    )
    fix = Fix(title=draw(FOREIGN), command=(draw(FOREIGN),), launch=edit, settings={draw(FOREIGN): draw(FOREIGN)})
    finding = builders.finding(
        title=draw(FOREIGN), cause=draw(FOREIGN), check="a", evidence=(draw(FOREIGN), draw(FOREIGN)), fixes=(fix,)
    )
    snapshot = structs.replace(
        builders.snapshot(failed_probes=(draw(FOREIGN),)), launch=builders.launch(draw(FOREIGN)), taken_at=draw(FOREIGN)
    )
    checks = (
        builders.result("a", Status.FOUND),
        builders.result(draw(FOREIGN), Status.UNKNOWN, draw(FOREIGN)),
        builders.result(draw(FOREIGN), Status.CRASHED, draw(FOREIGN)),
    )
    return Diagnosis(snapshot=snapshot, findings=(finding,), checks=checks, corrected=draw(FOREIGN))


def controls(document: str) -> list[str]:
    return [c for c in document if (c < " " and c not in "\n\t") or "\x7f" <= c < "\xa0"]


@settings(max_examples=150, deadline=None)
@given(foreign_diagnoses())
def test_any_text_gives_valid_documents_without_escapes(diagnosis: Diagnosis) -> None:
    shown: dict[str, Any] = {name: render(diagnosis) for name, render in FORMATS.items()}
    assert {name: controls(document) for name, document in shown.items()} == {name: [] for name in FORMATS}
    msgspec.json.decode(shown["json"], type=ReportDocument)
    assert "\x1b" not in json.dumps(json.loads(shown["json"]), ensure_ascii=False)
    conforming(shown["junit"])
    assert parsed(shown["html"]).tags == parsed(FORMATS["html"](diagnosis_like(diagnosis))).tags
    commands = {row.split("::")[1].split(" ")[0] for row in shown["github"].splitlines() if row.startswith("::")}
    assert commands <= {"error", "warning", "notice", "group", "endgroup"}


SECRET = "HF_TOKEN=hf_CanaryCanaryCanary --api-key sk-CanaryCanaryCanary https://me:CanaryCanary@example.org/"


@pytest.mark.parametrize("name", ["text", *FORMATS])
def test_no_secret_of_a_finding_is_shown(name: str) -> None:
    edit = LaunchEdit(set={"--hf-token": SECRET}, env={"X": SECRET}, positional=SECRET)
    fix = Fix(title=SECRET, command=("do", SECRET), launch=edit, settings={"URL": SECRET})
    diagnosis = Diagnosis(
        snapshot=structs.replace(builders.snapshot(failed_probes=(SECRET,)), launch=builders.launch(SECRET)),
        findings=(builders.finding(title=SECRET, evidence=(SECRET,), fixes=(fix,)),),
        checks=(
            builders.result("driver-cuda", Status.FOUND),
            builders.result("a", Status.UNKNOWN, SECRET),
            builders.result("b", Status.CRASHED, SECRET),
        ),
        corrected=SECRET,
    )
    shown = text.plain(diagnosis) if name == "text" else FORMATS[name](diagnosis)
    assert "Canary" not in shown
    assert "***" in shown.replace("\\*", "*")


def diagnosis_like(diagnosis: Diagnosis) -> Diagnosis:
    """The same shape with harmless words: whatever foreign text says, the page has the same elements."""
    edit = LaunchEdit(set={"a": "b"}, unset=("a",), env={"a": "b"}, positional="a", drop_words=("a",))
    fix = Fix(title="a", command=("a",), launch=edit, settings={"a": "b"})
    return structs.replace(
        diagnosis,
        findings=(builders.finding(check="a", evidence=("a", "b"), fixes=(fix,)),),
        checks=tuple(structs.replace(c, reason="a") for c in diagnosis.checks),
        corrected="a",
    )
