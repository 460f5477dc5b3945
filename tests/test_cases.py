"""Every check, by data: what it must find, where it must be quiet, and what it must not pretend to know."""

import pytest

from tests.cases_reader import Case, cases
from vllm_doctor import registry
from vllm_doctor.causes import catalogue, page
from vllm_doctor.diagnose import Status, run_check
from vllm_doctor.facts import Environment

REGISTRY = registry.load()
# What a finding may be about besides the distributions of its environment, and is written small at the start too.
SMALL_NAMES = frozenset({"docker", "flashinfer", "glibc", "six", "torch", "transformers", "ulimit", "vllm", "xgrammar"})
ALL = tuple(cases())


@pytest.mark.parametrize("case", ALL, ids=lambda case: case.name)
def test_case(case: Case) -> None:
    check = REGISTRY.find(case.check)
    assert check is not None, f"tests/cases/{case.check}.toml is for a check that does not exist"
    findings, result = run_check(check, case.snapshot())
    if case.kind == "found":
        _assert_found(case, findings, result)
    elif case.kind == "quiet":
        expected = Status.SKIPPED if case.row.get("skipped") else Status.PASSED
        assert (result.status, findings) == (expected, []), result.reason
    else:
        assert result.status is Status.UNKNOWN
        assert result.reason


def _assert_found(case: Case, findings, result) -> None:  # type: ignore[no-untyped-def]
    expect = case.row["expect"]
    assert result.status is Status.FOUND, f"{result.status}: {result.reason}"
    wanted = [f for f in findings if f.cause == expect["cause"] and f.severity.value == expect.get("severity", "error")]
    assert wanted, findings
    assert expect.get("title_has", "") in " ".join(f.title for f in wanted)
    assert expect.get("evidence_has", "") in " ".join(line for f in wanted for line in f.evidence)
    assert expect.get("fix_has", "") in " ".join(fix.title for f in wanted for fix in f.fixes)
    assert all(f.evidence for f in findings), "a finding without evidence"
    assert all(f.cause in REGISTRY.find(case.check).causes for f in findings)  # type: ignore[union-attr]


@pytest.mark.parametrize("case", [c for c in ALL if c.kind == "found"], ids=lambda case: case.name)
def test_titles_are_sentences_without_a_stop(case: Case) -> None:
    """A capital first, unless a title of a finding begins with a name that is written small; a fix is imperative."""
    snapshot = case.snapshot()
    environment = snapshot.environment
    distributions = environment.distributions if isinstance(environment, Environment) else ()
    names = SMALL_NAMES | {distribution.name for distribution in distributions}
    findings, _ = run_check(REGISTRY.find(case.check), snapshot)  # type: ignore[arg-type]
    for finding in findings:
        first = finding.title.split(" ")[0].removesuffix("'s")
        assert not first.isalpha() or not first.islower() or first in names, finding.title
        for title in (finding.title, *(fix.title for fix in finding.fixes)):
            assert title.strip() == title
            assert title[-1] not in ".,:;"
        for fix in finding.fixes:
            assert not fix.title[0].islower(), fix.title


def test_every_plugin_module_loads() -> None:
    assert REGISTRY.broken == ()
    assert REGISTRY.checks


@pytest.mark.parametrize("check", REGISTRY.checks, ids=lambda check: check.id)
def test_every_check_has_a_page_and_all_three_kinds_of_case(check) -> None:  # type: ignore[no-untyped-def]
    assert len(check.page.splitlines()) >= 3
    assert "Why:" in check.page
    assert "Fix:" in check.page
    kinds = {case.kind for case in ALL if case.check == check.id}
    assert kinds == {"found", "quiet", "unknown"}


@pytest.mark.parametrize("cause", catalogue())
def test_every_cause_has_a_page(cause: str) -> None:
    text = page(cause)
    assert text.startswith(f"# {cause}\n")
    for heading in ("## What it means", "## How to be sure", "## What helps", "## Not to be confused with"):
        assert heading in text
