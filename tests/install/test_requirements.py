"""Requirements are foreign text: read within bounds, compared as pip compares them, combined without loss."""

import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from tests.cases_reader import cases
from tests.install.healthy import CHECKS, ROOT
from vllm_doctor import snapshot
from vllm_doctor.diagnose import Status, diagnose, run_check
from vllm_doctor.facts import Distribution, Environment, ImportTrial
from vllm_doctor.snapshot import Snapshot
from vllm_doctor_checks import installers, requirements


def fixture(name: str) -> tuple[Snapshot, Environment]:
    taken = snapshot.read(ROOT / "fixtures" / "snapshots" / f"install-{name}.json")
    assert isinstance(taken.environment, Environment)
    return taken, taken.environment


def of(*lines: str) -> Distribution:
    return Distribution(name="asks", version="1.0", location="/site", requires=lines)


@pytest.mark.parametrize(
    ("installed", "specifier", "fits"),
    [
        ("2.13.0+cpu", "==2.13.0", True),
        ("2.13.0+cu130", "==2.13.0+cpu", False),
        ("2.13.1", "==2.13.0", False),
        ("5.0.0rc1", ">=5.0.0", False),
        ("5.1.0rc1", ">=5.0.0", True),
        ("7.36.2", "!=6.30.*,>=5.29.6", True),
        ("6.30.1", "!=6.30.*,>=5.29.6", False),
        ("unknown", "==1", True),
    ],
)
def test_versions_are_compared_as_pip_does(installed: str, specifier: str, fits: bool) -> None:
    assert requirements.satisfies(installed, specifier) is fits


@pytest.mark.parametrize(
    ("specifiers", "range_"),
    [
        ([">=1.31.0", "<3.0,>=1.5.0", ">=0.16.4"], ">=1.31.0,<3.0"),
        (["<4,>=2", "<3"], ">=2,<3"),
        (["==0.2.8", ">=0.1"], "==0.2.8"),
        (["!=5.0.*,>=4.56.0", ""], "!=5.0.*,>=4.56.0"),
        ([], ""),
    ],
)
def test_ranges_are_combined_to_the_tightest(specifiers: list[str], range_: str) -> None:
    assert requirements.combined(specifiers) == range_


def test_only_what_holds_here_is_required() -> None:
    _, environment = fixture("cpu")
    lines = (
        "plain>=1",
        'elsewhere; sys_platform == "win32"',
        'Here.Too[x]>=2; platform_machine == "x86_64" and python_version >= "3.8"',
        'unasked; extra == "dev"',
        'asked; extra == "dev" or sys_platform == "linux"',
        "not a requirement at all",
    )
    found = [(e.target, e.specifier) for e in requirements.edges_of(of(*lines), environment)]
    assert found == [("plain", ">=1"), ("here-too", ">=2"), ("asked", "")]


def test_extras_that_are_asked_for_are_followed() -> None:
    _, environment = fixture("cpu")
    root = of("middle[extra]")
    middle = Distribution(
        name="middle", version="1", location="/site", requires=('far; extra == "extra"', 'no; extra == "other"')
    )
    environment = structs.replace(environment, distributions=(root, middle))
    assert [(e.by.name, e.target) for e in requirements.walk(root, environment)] == [
        ("asks", "middle"),
        ("middle", "far"),
    ]


@settings(deadline=None, max_examples=60)
@given(st.lists(st.text(max_size=200), max_size=20), st.text(max_size=40))
def test_any_metadata_is_survived(lines: list[str], version: str) -> None:
    taken, environment = fixture("cpu")
    vllm = environment.distribution("vllm")
    assert vllm is not None
    hostile = structs.replace(vllm, requires=(*lines, *vllm.requires))
    other = Distribution(name="six", version=version, location="/site", requires=tuple(lines))
    kept = tuple(d for d in environment.distributions if d.name not in ("vllm", "six"))
    changed = structs.replace(environment, distributions=(hostile, other, *kept))
    statuses = {c.id: c for c in diagnose(structs.replace(taken, environment=changed), CHECKS).checks}
    assert [c for c in statuses.values() if c.status is Status.CRASHED] == []


def test_a_megabyte_of_exception_text_is_read_in_a_moment() -> None:
    taken, environment = fixture("cuda")
    text = "undefined " + "vllm/torchvision/flash_attn" * 20_000 + "lib" + "cudart" * 80_000 + " No module named"
    trial = ImportTrial(module="vllm", error=text, seconds=1.0)
    started = time.process_time()
    diagnosis = diagnose(structs.replace(taken, environment=structs.replace(environment, imports=(trial,))), CHECKS)
    assert time.process_time() - started < 5
    assert [f.check for f in diagnosis.findings] == ["import-trial"]


@pytest.mark.parametrize(
    "case", [c for c in cases() if c.kind == "found" and CHECKS.find(c.check)], ids=lambda c: c.name
)
def test_every_finding_has_a_way_out_and_commands_are_of_the_examined_interpreter(case) -> None:  # type: ignore[no-untyped-def]
    check = CHECKS.find(case.check)
    assert check is not None
    findings, _ = run_check(check, case.snapshot())
    for finding in findings:
        assert finding.fixes, finding.title
        for command in (f.command for f in finding.fixes if f.command is not None):
            if "pip" in command:
                assert "/opt/venv/bin/python" in command


def test_a_build_is_put_in_place_again_as_the_same_build() -> None:
    _, environment = fixture("cpu")
    torch, vllm = environment.distribution("torch"), environment.distribution("vllm")
    assert torch is not None
    assert vllm is not None
    assert installers.again(environment, torch).command == (
        *("uv", "pip", "install", "--python", "/opt/venv/bin/python", "--torch-backend", "cpu"),
        *("--reinstall", "--no-deps", "torch==2.13.0"),
    )
    shell = installers.again(environment, vllm).command
    assert shell is not None
    assert shell[0] == "sh"
    assert "vllm-0.32.0+cpu*.whl" in shell[-1]
    assert Path(environment.python).name in shell[-1]
