"""The shipped data: complete, small, quick to load, and right about what is known from elsewhere."""

from __future__ import annotations

import datetime
import subprocess
import sys

import pytest
from packaging.version import Version

from vllm_doctor import releases
from vllm_doctor.releases import Span, store

MAXIMUM_BYTES = 1_000_000

IMPORTING = """
import sys
from vllm_doctor import releases
assert "vllm_doctor.releases.store" not in sys.modules
assert releases.release("0.32.0+cpu").flags
"""


def test_every_stable_release_is_there_oldest_first() -> None:
    versions = [Version(text) for text in releases.known_versions()]
    assert versions == sorted(versions)
    assert len(versions) >= 79
    assert (releases.known_versions()[0], releases.newest()) == ("0.4.0", str(versions[-1]))
    assert Version(releases.newest()) >= Version("0.33.0")


def test_data_is_dated() -> None:
    assert datetime.date.fromisoformat(releases.data_date()) >= datetime.date(2026, 11, 2)


def test_data_is_small() -> None:
    assert sum(path.stat().st_size for path in store.DATA.iterdir()) < MAXIMUM_BYTES


def test_importing_loads_no_data() -> None:
    subprocess.run([sys.executable, "-c", IMPORTING], check=True)


@pytest.mark.parametrize("version", ["0.32.0", "0.32.0+cpu", "0.32.0+cu129", "v0.32.0"])
def test_a_local_part_is_ignored(version: str) -> None:
    found = releases.release(version)
    assert found is not None
    assert found.version == "0.32.0"


def test_a_release_that_is_not_there() -> None:
    assert releases.release("99.0.0") is None
    assert releases.release("0.10.3") is None
    assert releases.torch_release("99.0") is None


def test_every_release_is_complete() -> None:
    for version in releases.known_versions():
        found = releases.release(version)
        assert found is not None
        assert len(found.flags) >= 69
        assert len(found.architectures) >= 40
        assert found.quantization
        assert found.kv_cache_dtypes
        assert found.kernel_architectures
        assert found.cuda
        assert found.date
        assert found.pins["torch"].startswith("==")
        assert found.flags["--max-model-len"].name == "--max-model-len"


@pytest.mark.parametrize(
    ("version", "flag", "default"),
    [
        pytest.param("0.19.1", "--gpu-memory-utilization", "0.9", id="before the change"),
        pytest.param("0.20.0", "--gpu-memory-utilization", "0.92", id="after the change"),
        pytest.param("0.31.0", "--allowed-origins", '["*"]', id="open to browsers"),
        pytest.param("0.32.0", "--allowed-origins", "[]", id="closed to browsers"),
        pytest.param("0.9.2", "--model", "facebook/opt-125m", id="old default model"),
        pytest.param("0.10.0", "--model", "Qwen/Qwen3-0.6B", id="new default model"),
        pytest.param("0.7.3", "--generation-config", None, id="no generation config"),
        pytest.param("0.8.0", "--generation-config", "auto", id="the model's generation config"),
    ],
)
def test_defaults_that_changed(version: str, flag: str, default: str | None) -> None:
    found = releases.release(version)
    assert found is not None
    assert found.flags[flag].default == default


def test_histories() -> None:
    assert releases.flag_history("--swap-space") == (Span("0.4.0", "0.17.1"),)
    assert releases.flag_history("--max-model-len") == (Span("0.4.0", None),)
    assert releases.flag_history("--served-models") == ()
    assert releases.env_history("VLLM_ATTENTION_BACKEND")[-1].last == "0.14.1"
    assert releases.architecture_history("GritLM")[-1].last == "0.28.0"
    assert releases.tool_parser_history("hermes") == (Span("0.6.0", None),)
    assert releases.reasoning_parser_history("GptOss") == (Span("0.10.1", "0.10.1.1"),)
    assert releases.quantization_history("gguf") == (Span("0.5.5", "0.23.0"),)


def test_least_capability_of_a_quantization_method_by_release() -> None:
    fp8 = {version: releases.release(version) for version in ("0.4.1", "0.4.2", "0.5.1", "0.14.0")}
    assert [found.quantization["fp8"] for found in fp8.values() if found] == [90, 89, 80, 75]


@pytest.mark.parametrize(
    ("version", "cuda", "wheel_cuda", "pin"),
    [
        pytest.param("0.6.4", "12.4", "12.1", "==2.5.1", id="torch ahead of the wheel"),
        pytest.param("0.10.0", "12.6", "12.8", "==2.7.1", id="wheel ahead of torch"),
        pytest.param("0.33.0", "13.0", "13.0", "==2.14.0", id="CUDA 13"),
    ],
)
def test_cuda(version: str, cuda: str, wheel_cuda: str, pin: str) -> None:
    found = releases.release(version)
    assert found is not None
    assert (found.cuda, found.wheel_cuda, found.pins["torch"]) == (cuda, wheel_cuda, pin)


@pytest.mark.parametrize(
    ("version", "has", "lacks"),
    [
        pytest.param("0.8.5", "7.0", "10.0", id="before Blackwell"),
        pytest.param("0.9.1", "10.0", "12.0", id="data-center Blackwell only"),
        pytest.param("0.10.2", "12.0", "6.0", id="RTX Blackwell"),
        pytest.param("0.20.0", "7.5", "7.0", id="V100 is gone"),
    ],
)
def test_kernels_of_the_wheels(version: str, has: str, lacks: str) -> None:
    found = releases.release(version)
    assert found is not None
    assert has in found.kernel_architectures
    assert lacks not in found.kernel_architectures


def test_torch_releases() -> None:
    found = releases.torch_release("2.8.0+cu128")
    assert found is not None
    assert (found.version, found.cuda, found.triton, found.date) == ("2.8.0", "12.8", "==3.4.0", "2025-08-06")
    assert found.companions["torchvision"] == ("0.23.0",)
    assert "12.0" in found.architectures
    assert set(releases.torch_versions()) >= {"2.1.0", "2.14.1", "2.15.0"}


def test_companions_without_a_pin_fit_their_own_number_and_later() -> None:
    found = releases.torch_release("2.13.0")
    assert found is not None
    assert found.companions["torchaudio"] == ("2.11.0",)


def test_release_lists_of_optional_packages() -> None:
    assert "2.8.3" in releases.companion_versions("flash-attn")
    assert "0.6.13" in releases.companion_versions("flashinfer-python")
    assert releases.companion_versions("left-pad") == ()
