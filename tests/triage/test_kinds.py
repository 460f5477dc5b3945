"""Every kind of a cause on its own test lines: it is the one that is found, and what it says reaches the finding."""

import re
from collections.abc import Mapping

import pytest

from tests.triage.test_signatures import SMALL_NAMES
from vllm_doctor.causes import catalogue
from vllm_doctor.finding import Finding
from vllm_doctor.triage import explain_text
from vllm_doctor.triage.filling import values
from vllm_doctor.triage.kinds import Kind, kind_of, kinds
from vllm_doctor.triage.signature import book

KINDS = [kind for of_cause in kinds().values() for kind in of_cause]


def found(kind: Kind, line: str) -> str | None:
    """The id of the kind that is found on a line of this one's cause."""
    signature = kind.of[0] if kind.of else ""
    captures = explain_captures(line)
    result = kind_of(kind.cause, signature, [line], lambda more: values({**captures, **more}))
    return result[0].id if result else None


def explain_captures(line: str) -> Mapping[str, str]:
    """What the signatures of a line capture."""
    from vllm_doctor.triage.matcher import Matcher

    matcher = Matcher()
    matcher.feed(line.encode())
    matcher.finish()
    return {name: value for match in matcher.matches for name, value in match.captures.items()}


def named(line: str) -> Finding | None:
    """What the text of this one line is explained by."""
    findings = explain_text(line).findings
    return findings[0].finding if findings else None


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.id)
def test_is_found_on_its_lines_and_not_on_its_near_misses(kind: Kind) -> None:
    assert [line for line in kind.match if found(kind, line) != kind.id] == []
    assert [line for line in kind.miss if found(kind, line) == kind.id] == []
    assert kind.match
    assert kind.miss or not kind.line


@pytest.mark.parametrize("kind", [kind for kind in KINDS if not kind.of], ids=lambda kind: kind.id)
def test_its_lines_are_explained_by_it(kind: Kind) -> None:
    for line in kind.match:
        finding = named(line)
        assert finding is not None, line
        assert finding.cause == kind.cause, line
        shapes = [re.sub(r"\\\{\w+\\\}", ".+", re.escape(fix.title)) for fix in kind.fix]
        assert any(re.fullmatch(shape, fix.title) for shape in shapes for fix in finding.fixes), finding.fixes


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.id)
def test_names_a_cause_signatures_and_a_fix_that_needs_no_value(kind: Kind) -> None:
    assert kind.cause in catalogue()
    assert set(kind.of) <= book().keys()
    assert kind.source
    filled = {*re.findall(r"\{(\w+)\}", kind.title), *re.findall(r"\(\?P<(\w+)>", kind.line)}
    always = [fix for fix in kind.fix if filled.issuperset(re.findall(r"\{(\w+)\}", repr(fix)))]
    assert always


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.id)
def test_titles_are_sentences_without_a_stop(kind: Kind) -> None:
    for title in filter(None, (kind.title, *(fix.title for fix in kind.fix))):
        first = title.split(" ")[0]
        assert not first.isalpha() or not first.islower() or first in SMALL_NAMES, title
        assert title[-1] not in ".:;,"
