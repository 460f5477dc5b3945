"""`vllm-doctor run` as a process on hosts whose NVML is the stub's, with environments that hold a CUDA vLLM."""

import json
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.calling import doctor
from tests.environment.builders import make_environment, write_distribution
from tests.gpus.test_processes import Tree
from tests.nvml_stub import SCENARIOS, compiler, nvml_environment

pytestmark = pytest.mark.skipif(compiler() is None, reason="no C compiler: the stub NVML cannot be built")

SERVE = ("--", "vllm", "serve", "Qwen/Qwen2.5-7B-Instruct")
CAUSES = (
    "driver-too-old,driver-library-mismatch,gpu-not-visible,fabric-manager,arch-unsupported,feature-needs-newer-gpu,"
    "gpu-hardware-fault,gpu-busy,gpu-count,torch-vllm-mismatch,cuda-wheel-mismatch"
)
# The release -> its torch, as the wheels on the package index pin and tag them.
TORCH = {"0.10.2": ("2.8.0", "12.8"), "0.19.1": ("2.10.0", "12.8"), "0.20.2": ("2.11.0", "13.0")}


@pytest.fixture(scope="module")
def environments(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """An environment of each release: metadata, version files and a compiled module that lacks nothing."""
    folder = tmp_path_factory.mktemp("gpu-hosts")
    return {release: _environment(folder / release, release) for release in TORCH}


def _environment(folder: Path, release: str) -> Path:
    site = make_environment(folder)
    torch, cuda = TORCH[release]
    tag = "cu" + cuda.replace(".", "")
    code = "import msgspec._core as module; print(module.__file__)"
    module = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()
    sources: dict[str, str | bytes] = {
        "vllm/__init__.py": "",
        "vllm/_version.py": f"__version__ = version = '{release}'\n",
        "vllm/_C.abi3.so": Path(module).read_bytes(),
    }
    write_distribution(site, "vllm", release, sources, f"Requires-Dist: torch=={torch}", "Requires-Python: >=3.10")
    version = f"__version__ = '{torch}+{tag}'\ncuda: Optional[str] = '{cuda}'\nhip: Optional[str] = None\n"
    write_distribution(site, "torch", torch, {"torch/__init__.py": "", "torch/version.py": version})
    return folder / "bin" / "python"


def told(python: Path, scenario: str, *launch: str, **values: object) -> list[tuple[str, str, str]]:
    """Severity, cause and title of every error and warning about GPUs there; nothing crashed.

    Without what is only worth knowing: servers that run on the machine of the tests are among it.
    """
    report = _report(python, scenario, *launch, **values)
    return [(f["severity"], f["cause"], f["title"]) for f in report["findings"] if f["severity"] != "info"]


def _report(python: Path, scenario: str, *launch: str, **values: object) -> dict[str, Any]:
    done = doctor(
        "run",
        "--python",
        python,
        "--format",
        "json",
        "--select",
        CAUSES,
        *launch,
        variables=nvml_environment(scenario, **values),
    )
    assert done.returncode in (0, 1), done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    assert [c for c in report["checks"] if c["status"] == "crashed"] == []
    assert done.returncode == int(any(f["severity"] == "error" for f in report["findings"]))
    return report


def driven(scenario: str, driver: str, cuda: int) -> str:
    """The scenario with another driver."""
    text = (SCENARIOS / f"{scenario}.scenario").read_text(encoding="utf-8")
    return re.sub(r"(?m)^cuda .*$", f"cuda {cuda}", re.sub(r"(?m)^driver .*$", f"driver {driver}", text))


OLD, NEW = "0.19.1", "0.20.2"

# Scenario and driver -> what a plain launch of vLLM 0.19.1 (CUDA 12) and 0.20.2 (CUDA 13) must be told, in this order.
TOO_OLD = ("error", "driver-too-old")
NO_KERNELS = ("error", "arch-unsupported")
HOSTS = [
    ("a100-driver-470", "470.82.01", 11040, [TOO_OLD], [TOO_OLD]),
    ("a10-driver-525", "525.60.13", 12000, [], [TOO_OLD]),
    ("v100-4", "535.247.01", 12020, [], [TOO_OLD, NO_KERNELS]),
    ("v100-4", "580.159.03", 13000, [], [NO_KERNELS]),
    ("t4-1", "535.183.01", 12020, [], [TOO_OLD]),
    ("t4-1", "580.159.03", 13000, [], []),
    ("a100-8", "535.183.01", 12020, [], [TOO_OLD]),
    ("a100-8", "580.159.03", 13000, [], []),
    ("l4-1", "550.90.07", 12040, [], [TOO_OLD]),
    ("l4-1", "580.159.03", 13000, [], []),
    ("h100-1", "525.60.13", 12000, [], [TOO_OLD]),
    ("h100-8", "570.124.06", 12080, [], [TOO_OLD]),
    ("h100-1", "580.65.06", 13000, [], []),
    ("h100-1", "580.65.05", 13000, [], [TOO_OLD]),
    ("h200-1", "580.159.03", 13000, [], []),
    ("b200-8", "570.211.01", 12080, [], [TOO_OLD]),
    ("b200-8", "580.95.05", 13000, [], []),
    ("rtx-pro-6000", "575.57.08", 12090, [], [TOO_OLD]),
    ("rtx-pro-6000", "580.95.05", 13000, [], []),
]


@pytest.mark.parametrize(("scenario", "driver", "cuda", "old", "new"), HOSTS)
def test_the_driver_and_the_board_against_two_releases(
    environments: dict[str, Path],
    scenario: str,
    driver: str,
    cuda: int,
    old: list[tuple[str, str]],
    new: list[tuple[str, str]],
) -> None:
    text = driven(scenario, driver, cuda)
    found = {release: told(environments[release], text, *SERVE) for release in (OLD, NEW)}
    assert {release: [f[:2] for f in rows] for release, rows in found.items()} == {OLD: old, NEW: new}
    assert all(driver in title for rows in found.values() for _, cause, title in rows if cause == "driver-too-old")


def test_without_a_launch_a_sound_host_is_quiet_and_an_old_driver_is_named(environments: dict[str, Path]) -> None:
    assert told(environments[NEW], "h100-1") == []
    assert [f[:2] for f in told(environments[NEW], "a100-8")] == [TOO_OLD]


def test_a_blackwell_board_compiles_flash_attention_which_an_older_driver_cannot(environments: dict[str, Path]) -> None:
    found = told(environments["0.19.1"], driven("rtx-pro-6000", "570.211.01", 12080), *SERVE)
    assert [f[:2] for f in found] == [("warning", "driver-too-old")]


def test_the_fix_for_an_old_driver_names_the_last_release_that_runs(environments: dict[str, Path]) -> None:
    report = _report(environments[NEW], "a100-8", *SERVE)
    commands = [" ".join(fix["command"]) for f in report["findings"] for fix in f["fixes"] if fix["command"]]
    assert any("vllm==0.19.1" in command for command in commands), commands


# Scenario -> what is wrong there, whatever the release.
FAULTS = {
    "version-mismatch": [("error", "driver-library-mismatch")],
    "no-permission": [("error", "gpu-not-visible")],
    "no-gpus": [("error", "gpu-not-visible")],
    "driver-not-loaded": [("error", "gpu-not-visible")],
    "lost": [("error", "gpu-hardware-fault")],
    "sick": [("warning", "gpu-hardware-fault")],
    "fabric-in-progress": [("error", "fabric-manager")],
    "mig-without-instances": [("error", "gpu-not-visible")],
    "a100-mig": [],
}


@pytest.mark.parametrize(("scenario", "expected"), FAULTS.items())
def test_a_faulty_host_is_told_its_one_fault(
    environments: dict[str, Path], scenario: str, expected: list[tuple[str, str]]
) -> None:
    assert [f[:2] for f in told(environments[OLD], scenario, *SERVE)] == expected


@pytest.fixture
def orphans(tmp_path: Path) -> Iterator[Tree]:
    if shutil.which("bash") is None or not Path("/proc/self/stat").exists():
        pytest.skip("needs bash and /proc")
    tree = Tree(tmp_path)
    tree.orphan()
    yield tree
    tree.end()


def test_an_orphaned_worker_is_named_with_the_kill_and_left_alive(environments: dict[str, Path], orphans: Tree) -> None:
    other = subprocess.Popen(["sleep", "300"])
    try:
        report = _report(environments[NEW], "stray", *SERVE, orphan=orphans.worker, other=other.pid, foreign=2**22 - 1)
    finally:
        other.kill()
        other.wait()
    assert {f["cause"] for f in report["findings"]} == {"gpu-busy"}
    commands = [fix["command"] for f in report["findings"] for fix in f["fixes"] if fix["command"]]
    assert ["kill", str(orphans.worker)] in commands
    # The other program is no stray one: its end is not proposed.
    assert not any(str(other.pid) in command for command in commands)
    assert f"pid {other.pid}" in json.dumps(report["findings"])
    assert Path(f"/proc/{orphans.worker}").exists()
    assert other.returncode == -signal.SIGKILL


def test_a_process_that_is_gone_leaves_the_findings_with_the_gpu(environments: dict[str, Path]) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    found = told(environments[NEW], "stray", *SERVE, orphan=gone.pid, other=gone.pid, foreign=2**22 - 1)
    assert {f[:2] for f in found} == {("error", "gpu-busy")}
