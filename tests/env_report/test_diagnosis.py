"""A pasted report is diagnosed like a live host: the built-in checks over every recorded one."""

import pytest

from tests.env_report.test_fixtures import FIXTURES, reported
from vllm_doctor.diagnose import Status, diagnose
from vllm_doctor.registry import Registry, load
from vllm_doctor.reports import text

# File -> what is wrong there as far as a report can tell; nothing for all others.
CAUSES = {
    "vllm-0.6-driver-too-old.txt": {"driver-too-old"},
    "vllm-0.10-no-driver.txt": {"bad-env-var", "gpu-not-visible"},
}


@pytest.fixture(scope="module")
def checks() -> Registry:
    return load()


@pytest.mark.parametrize("name", FIXTURES)
def test_diagnosis(name: str, checks: Registry) -> None:
    diagnosis = diagnose(reported(name), checks)
    assert {f.cause for f in diagnosis.findings} == CAUSES.get(name, set()), text.plain(diagnosis)
    assert [c for c in diagnosis.checks if c.status is Status.CRASHED] == []
