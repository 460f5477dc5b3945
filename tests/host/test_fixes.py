"""Every fix of these checks that edits the launch cures what it was offered for."""

import pytest

from tests.cases_reader import Case, cases
from vllm_doctor.correct import edited
from vllm_doctor.diagnose import run_check
from vllm_doctor.finding import Fix
from vllm_doctor.registry import load

MINE = ("shm-size", "host-memory", "disk-space", "port-taken", "model-name", "tool-flags")


FOUND = tuple(case for case in cases() if case.kind == "found" and case.check in MINE)


@pytest.mark.parametrize("case", FOUND, ids=lambda case: case.name)
def test_launch_fixes_cure(case: Case) -> None:
    check = load().find(case.check)
    assert check is not None
    snapshot = case.snapshot()
    findings, _ = run_check(check, snapshot)
    for finding in findings:
        for fix in finding.fixes:
            if fix.launch is None:
                assert not fix.automatic
                continue
            after, result = run_check(check, edited(snapshot, fix.launch))
            assert _count(after, finding.cause) < _count(findings, finding.cause), (fix, result)


def _count(findings: list, cause: str) -> int:  # type: ignore[type-arg]
    return sum(1 for finding in findings if finding.cause == cause)


def test_automatic_fixes_are_offered() -> None:
    offered: dict[str, list[Fix]] = {}
    for case in FOUND:
        check = load().find(case.check)
        assert check is not None
        findings, _ = run_check(check, case.snapshot())
        offered.setdefault(case.check, []).extend(f for one in findings for f in one.fixes if f.automatic)
    assert {name for name, fixes in offered.items() if fixes} == {
        "host-memory",
        "port-taken",
        "model-name",
        "tool-flags",
    }
