"""The example plugin, installed into a real virtual environment beside the doctor."""

import json
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.cli.calling import HEALTHY, ROOT

PLUGIN = ROOT / "tests" / "example_plugin"


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a new environment that sees this one's packages, with the plugin installed."""
    folder = tmp_path_factory.mktemp("plugin")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True)
    python = folder / "venv" / "bin" / "python"
    script = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = Path(subprocess.run([python, "-c", script], capture_output=True, text=True, check=True).stdout.strip())
    (site / "outer.pth").write_text(f"{sysconfig.get_path('purelib')}\n{ROOT}\n{ROOT / 'checks'}\n", encoding="utf-8")
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "-q", "--no-deps", "--no-index"]
    done = subprocess.run(
        [*install, "--no-build-isolation", str(PLUGIN)], capture_output=True, text=True, cwd=folder, check=False
    )
    assert done.returncode == 0, done.stderr
    return python


def doctor(python: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`vllm-doctor` of that environment."""
    return subprocess.run(
        [python, "-m", "vllm_doctor", *arguments], capture_output=True, text=True, cwd="/", check=False, timeout=60
    )


def test_the_plugin_is_listed_and_its_broken_module_is_named(python: Path) -> None:
    done = doctor(python, "checks")
    assert "acme.kernel  " in done.stdout
    named = "plugin acme_broken of acme-vllm-checks could not be loaded: "
    assert done.stderr == f"{named}RuntimeError: acme's licence server does not answer\n"
    assert done.returncode == 3


def test_its_page_is_printed(python: Path) -> None:
    done = doctor(python, "checks", "acme.kernel")
    assert done.returncode == 0
    assert "The host runs a kernel that Acme does not support." in done.stdout
    assert "From: acme_vllm_checks.rules" in done.stdout


def test_its_check_runs_its_crash_is_a_result_and_the_rest_runs(python: Path) -> None:
    done = doctor(python, "run", "--snapshot", str(HEALTHY), "--format", "json")
    report = json.loads(done.stdout)
    assert [(f["cause"], f["check"]) for f in report["findings"]] == [("acme.old-kernel", "acme.kernel")]
    crashed = {c["id"]: c["reason"] for c in report["checks"] if c["status"] == "crashed"}
    assert crashed == {
        "acme.crash": "AttributeError: 'Snapshot' object has no attribute 'no_such_fact' (acme_vllm_checks)",
        "plugin:acme_broken": "RuntimeError: acme's licence server does not answer",
    }
    assert sum(c["status"] == "passed" for c in report["checks"]) > 10
    assert done.returncode == 0


def test_its_cause_can_be_ignored_and_then_the_crash_decides(python: Path) -> None:
    done = doctor(python, "run", "--snapshot", str(HEALTHY), "--format", "json", "--ignore", "acme.old-kernel")
    assert json.loads(done.stdout)["findings"] == []
    assert done.returncode == 3
