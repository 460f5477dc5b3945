"""Conflicts of real packages from the package index: the import really fails, and the pair is named."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.environment.builders import make_environment
from tests.install.healthy import diagnosed, write_stack

INSTALL = ("install", "--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:", "--retries=1")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    where = tmp_path / "env"
    write_stack(make_environment(where))
    return where


def install(folder: Path, *requirements: str) -> None:
    """Install the packages; the test is skipped by name where the index cannot be reached."""
    command: list[str | Path] = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        folder / "bin" / "python",
        *INSTALL,
        *requirements,
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    if done.returncode != 0 and any(w in done.stderr for w in ("connection", "Connection", "No matching distribution")):
        pytest.skip(f"the package index does not give {', '.join(requirements)}: {done.stderr.strip()[-120:]}")
    assert done.returncode == 0, done.stderr


def imports(folder: Path, module: str) -> str:
    """What importing the module prints to standard error; empty where it goes well."""
    command: list[str | Path] = [folder / "bin" / "python", "-W", "ignore", "-c", f"import {module}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    return "" if done.returncode == 0 else done.stderr


AWS = ("python-dateutil==2.9.0.post0", "six==1.17.0", "jmespath==1.0.1")


def test_an_old_botocore_under_urllib3_2(folder: Path) -> None:
    install(folder, "urllib3==2.0.7", "botocore==1.29.76", *AWS)
    assert "DEFAULT_CIPHERS" in imports(folder, "botocore.httpsession")
    (found,) = diagnosed(folder).findings
    assert (found.cause, found.check, found.severity.value) == ("dependency-conflict", "cloud-libraries", "error")
    assert found.title == "botocore 1.29.76 cannot be imported with urllib3 2.0.7"
    install(folder, "urllib3==1.26.20")
    assert imports(folder, "botocore.httpsession") == ""
    assert diagnosed(folder).findings == ()


def test_a_violated_range_that_imports_is_a_warning(folder: Path) -> None:
    install(folder, "urllib3==2.0.7", "botocore==1.29.125", *AWS)
    assert imports(folder, "botocore.httpsession") == ""
    (found,) = diagnosed(folder).findings
    assert (found.cause, found.severity.value) == ("dependency-conflict", "warning")


def test_an_old_requests_toolbelt(folder: Path) -> None:
    packages = ("requests==2.32.3", "idna==3.10", "certifi==2025.1.31", "charset-normalizer==3.4.1")
    install(folder, "urllib3==2.0.7", "requests-toolbelt==0.10.1", *packages)
    assert "appengine" in imports(folder, "requests_toolbelt")
    (found,) = diagnosed(folder).findings
    assert found.title == "requests-toolbelt 0.10.1 cannot be imported with urllib3 2.0.7"
