"""Builds small, real environments with a vLLM that lacks nothing, and asks the checks about them."""

import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

from msgspec import structs

from tests.environment.builders import write_distribution
from vllm_doctor import registry, snapshot
from vllm_doctor.diagnose import Diagnosis, Status, diagnose
from vllm_doctor.facts import Environment, Launch
from vllm_doctor.launch.parse import parse_line
from vllm_doctor.probes.environment import probe_environment

ROOT = Path(__file__).parent.parent.parent
MODULES = (
    "install",
    "installed_files",
    "torch_family",
    "kernels",
    "libraries",
    "cloud",
    "platform_support",
    "import_trials",
)
CHECKS = registry.load([EntryPoint(m, f"vllm_doctor_checks.{m}", registry.GROUP) for m in MODULES])
LAUNCH = "vllm serve /srv/models/m"

REQUIRES = (
    "transformers<5.20.0,>=5.16.1",
    "tokenizers>=0.23.2",
    "numpy",
    'torch==2.13.0+cpu; platform_machine == "x86_64" or platform_machine == "aarch64"',
    'not-for-linux; platform_system == "Windows"',
    'pandas; extra == "bench"',
)


def write_stack(site: Path, *, distribution: str = "vllm", version: str = "0.32.0+cpu") -> None:
    """vLLM 0.32.0 for CPUs with torch, transformers, tokenizers and numpy, as far as metadata and names go."""
    kernels = Path(_a_compiled_module()).read_bytes()
    write_distribution(
        site,
        distribution,
        version,
        {
            "vllm/__init__.py": "",
            "vllm/_version.py": "__version__ = version = '0.32.0'\n",
            "vllm/_C.abi3.so": kernels,
        },
        # The real one wants 3.11; these environments have the Python that runs the tests.
        "Requires-Python: >=3.10",
        *(f"Requires-Dist: {r}" for r in REQUIRES),
    )
    write_torch(site, "2.13.0+cpu")
    write_transformers(site, "5.19.0")
    write_distribution(site, "tokenizers", "0.23.3", {"tokenizers/__init__.py": ""})
    write_distribution(site, "numpy", "2.3.5", {"numpy/__init__.py": "", "numpy/linalg.py": ""})


def write_torch(site: Path, version: str) -> None:
    text = f"__version__ = '{version}'\ndebug = False\ncuda: Optional[str] = None\nhip: Optional[str] = None\n"
    write_distribution(site, "torch", version, {"torch/__init__.py": "", "torch/version.py": text})


def write_transformers(site: Path, version: str) -> None:
    requires = ("tokenizers<0.24.0,>=0.23.1", "numpy>=1.17")
    headers = tuple(f"Requires-Dist: {r}" for r in requires)
    write_distribution(site, "transformers", version, {"transformers/__init__.py": ""}, *headers)


def _a_compiled_module() -> str:
    """Any extension module of CPython: it lacks nothing but what the interpreter brings."""
    code = "import msgspec._core as m; print(m.__file__)"
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()


def probed(folder: Path, launch: Launch | None = None) -> Environment:
    environment = probe_environment(folder / "bin" / "python", launch=launch)
    assert isinstance(environment, Environment), environment
    return environment


def diagnosed(folder: Path, line: str | None = LAUNCH) -> Diagnosis:
    """What the checks say of the environment in that folder."""
    launch = parse_line(line) if line is not None else None
    base = snapshot.read(ROOT / "fixtures" / "snapshots" / "healthy-cpu.json")
    taken = structs.replace(base, environment=probed(folder, launch), launch=launch)
    diagnosis = diagnose(taken, CHECKS)
    assert CHECKS.broken == ()
    assert [c for c in diagnosis.checks if c.status is Status.CRASHED] == []
    return diagnosis
