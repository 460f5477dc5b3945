"""MXFP4 experts: the sizes that vLLM logged for gpt-oss, by the kernel of the GPU and the release."""

import pytest

from tests.memory.building import GIB, model
from vllm_doctor.memory.facts import LaunchSettings, Release
from vllm_doctor.memory.weights import weights

MARLIN = LaunchSettings(environment={"VLLM_MXFP4_USE_MARLIN": "1"})
ADAPTERS = LaunchSettings(enable_lora=True)


def loaded_gib(name: str, capability: int | None, release: Release, settings: LaunchSettings | None = None) -> float:
    found = weights(model(name), settings or LaunchSettings(), release, capability=capability)
    return found.per_gpu_bytes / GIB


@pytest.mark.parametrize(
    ("name", "capability", "release", "logged"),
    [
        ("openai/gpt-oss-120b", 90, (0, 10, 1), 65.9651),  # vLLM issue 23278: Marlin
        ("openai/gpt-oss-120b", 90, (0, 14, 1), 64.38),  # vLLM issue 33155: "Using Triton backend"
        ("openai/gpt-oss-20b", 80, (0, 19, 0), 13.72),  # an A100: Marlin
    ],
)
def test_a_logged_load(name: str, capability: int, release: Release, logged: float) -> None:
    assert loaded_gib(name, capability, release) == pytest.approx(logged, rel=0.004)


def test_the_loaded_scales_are_freed_from_0_25_on() -> None:
    """36 layers of 128 experts with 8640 rows of 90 scales, each a byte."""
    before, after = (loaded_gib("openai/gpt-oss-120b", 90, (0, minor, 0)) for minor in (24, 25))
    assert (before - after) * GIB == pytest.approx(36 * 128 * 8640 * 90, abs=1)


@pytest.mark.parametrize(("capability", "settings"), [(89, None), (120, None), (None, None), (90, MARLIN)])
def test_marlin_elsewhere(capability: int | None, settings: LaunchSettings | None) -> None:
    marlin = loaded_gib("openai/gpt-oss-120b", 80, (0, 20, 0))
    assert loaded_gib("openai/gpt-oss-120b", capability, (0, 20, 0), settings) == marlin


def test_adapters_take_marlin() -> None:
    older, newer = (loaded_gib("openai/gpt-oss-20b", c, (0, 20, 0), ADAPTERS) for c in (80, 90))
    assert older == newer


def test_flashinfer_pads_wider_on_blackwell_to_0_26() -> None:
    wide, narrow = (loaded_gib("openai/gpt-oss-120b", 100, (0, minor, 0)) for minor in (26, 27))
    assert wide > narrow == loaded_gib("openai/gpt-oss-120b", 80, (0, 27, 0))
