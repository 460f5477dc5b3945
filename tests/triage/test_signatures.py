"""Every signature on its own test lines, and on everybody else's."""

import re

import pytest

from vllm_doctor.triage import explain_text
from vllm_doctor.triage.literals import literals
from vllm_doctor.triage.matcher import Match, Matcher
from vllm_doctor.triage.ranking import rank
from vllm_doctor.triage.signature import Role, Signature, book

SMALL_NAMES = frozenset({"bfloat16", "docker", "flashinfer", "pydantic", "torch", "torchvision", "transformers"})

NAMING = [s for s in book().values() if s.role not in (Role.MARKER, Role.FACT)]


def matches(text: str) -> list[Match]:
    """The matches of a text."""
    matcher = Matcher()
    matcher.feed(text.encode())
    matcher.finish()
    return matcher.matches


def ids(text: str) -> set[str]:
    """The ids of the signatures that match."""
    return {m.signature.id for m in matches(text)}


@pytest.mark.parametrize("signature", book().values(), ids=lambda s: s.id)
def test_matches_its_lines_and_not_its_near_misses(signature: Signature) -> None:
    assert [line for line in signature.match if signature.id not in ids(line)] == []
    assert [line for line in signature.miss if signature.id in ids(line)] == []


@pytest.mark.parametrize("signature", NAMING, ids=lambda s: s.id)
def test_has_a_near_miss_a_fix_and_a_source(signature: Signature) -> None:
    assert signature.miss
    assert signature.fix
    assert signature.source


@pytest.mark.parametrize("signature", [s for s in NAMING if not s.needs], ids=lambda s: s.id)
def test_no_other_cause_comes_first_on_its_lines(signature: Signature) -> None:
    named = {line: [r.cause for r in rank(matches(line))][:1] for line in signature.match}
    assert {line: first for line, first in named.items() if not signature.causes.issuperset(first) or not first} == {}


@pytest.mark.parametrize("signature", book().values(), ids=lambda s: s.id)
def test_every_expression_has_literals_that_its_matches_contain(signature: Signature) -> None:
    for expression in signature.patterns:
        found = literals(expression)
        assert found
        for line in signature.match:
            if re.search(re.sub(r"\(\?P<\w+>", "(", expression), line, re.IGNORECASE):
                assert any(literal in line.lower() for literal in found)


@pytest.mark.parametrize("signature", book().values(), ids=lambda s: s.id)
def test_names_that_a_signature_refers_to_exist(signature: Signature) -> None:
    causes = {cause for s in book().values() for cause in s.causes}
    assert set(signature.needs) | set(signature.not_with) <= book().keys()
    assert set(signature.outranks) <= book().keys() | causes


def test_every_cause_has_a_signature() -> None:
    from vllm_doctor.causes import catalogue

    assert catalogue().keys() == {cause for s in book().values() for cause in s.causes}


def test_the_estimate_of_the_message_becomes_the_fix() -> None:
    text = book()["oom-kv-max-len"].match[1]
    fixes = explain_text(text).findings[0].finding.fixes
    assert fixes[0].launch is not None
    assert dict(fixes[0].launch.set) == {"--max-model-len": "23552"}


def test_the_free_share_becomes_the_fix() -> None:
    fixes = explain_text(book()["gpu-busy"].match[0]).findings[0].finding.fixes
    assert [dict(f.launch.set) for f in fixes if f.launch] == [{"--gpu-memory-utilization": "0.66"}]


@pytest.mark.parametrize("signature", NAMING, ids=lambda s: s.id)
def test_a_title_with_holes_has_a_bare_one(signature: Signature) -> None:
    holes = set(re.findall(r"\{(\w+)\}", signature.title)) - {"name_of", "when_of"}
    assert bool(holes) == bool(signature.bare_title)
    assert "{" not in signature.bare_title


@pytest.mark.parametrize("signature", book().values(), ids=lambda signature: signature.id)
def test_titles_are_sentences_without_a_stop(signature: Signature) -> None:
    """A capital first, unless a title begins with a value or with a name that is written small."""
    for title in (signature.title, signature.bare_title, *(fix.title for fix in signature.fix)):
        first = title.split(" ")[0]
        assert not first.isalpha() or not first.islower() or first in SMALL_NAMES, title
        assert title[-1:] not in (".", ":", ";", ",")
