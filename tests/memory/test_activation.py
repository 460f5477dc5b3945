"""The estimates against values that vLLM logged."""

import pytest

from tests.memory.building import GIB, model
from vllm_doctor.memory import activation, cudagraph, overhead
from vllm_doctor.memory.defaults import resolve
from vllm_doctor.memory.facts import Device, LaunchSettings

H100 = Device(name="NVIDIA H100 80GB HBM3", total_bytes=int(79.19 * GIB), capability=90)


def peak(name: str, settings: LaunchSettings, release: tuple[int, int, int], device: Device = H100) -> float:
    taken = resolve(model(name), settings, device, release)
    return activation.activation_peak(model(name), settings, taken, release).typical / GIB


@pytest.mark.parametrize(
    ("name", "settings", "release", "logged"),
    [
        # V0 sorts the whole logits: 0.6.x, 256 sequences, chunked prefill of 2048 tokens.
        ("meta-llama/Llama-3.1-8B-Instruct", LaunchSettings(max_num_batched_tokens=2048), (0, 6, 6), 1.19),
        ("Qwen/Qwen2.5-7B-Instruct", LaunchSettings(max_num_batched_tokens=2048), (0, 7, 3), 1.42),
        # A whole prompt of 32768 tokens is one batch: the forward pass decides.
        ("Qwen/Qwen2.5-1.5B-Instruct", LaunchSettings(max_num_batched_tokens=32768), (0, 7, 3), 2.02),
        # 0.19.0 on H100, 1024 sequences.
        ("microsoft/phi-4", LaunchSettings(max_model_len=8192), (0, 19, 0), 1.52),
        ("codellama/CodeLlama-7b-hf", LaunchSettings(max_model_len=8192), (0, 19, 0), 0.77),
    ],
)  # fmt: skip
def test_peaks_that_were_logged(name, settings, release, logged) -> None:  # type: ignore[no-untyped-def]
    assert peak(name, settings, release) == pytest.approx(logged, rel=0.02)


def test_fewer_sequences_make_a_smaller_peak() -> None:
    name = "meta-llama/Llama-3.1-8B-Instruct"
    assert peak(name, LaunchSettings(max_num_seqs=16), (0, 19, 0)) < peak(name, LaunchSettings(), (0, 19, 0)) / 1.5


def test_a_vision_model_that_takes_no_images_profiles_none() -> None:
    name = "Qwen/Qwen2.5-VL-7B-Instruct"
    settings = LaunchSettings(limit_mm_per_prompt={"image": 0, "video": 0})
    card = Device(name="L4", total_bytes=22 * GIB, capability=89)
    assert peak(name, settings, (0, 32, 0), card) < peak(name, LaunchSettings(), (0, 32, 0), card) / 3


def test_the_band_contains_the_likely_value() -> None:
    for name in ("Qwen/Qwen2.5-VL-7B-Instruct", "openai/gpt-oss-120b", "google/gemma-3-12b-it"):
        for release in ((0, 6, 6), (0, 8, 5), (0, 12, 0), (0, 19, 0), (0, 25, 0), (0, 32, 0)):
            settings = LaunchSettings()
            taken = resolve(model(name), settings, H100, release)
            found = activation.activation_peak(model(name), settings, taken, release)
            assert 0 < found.low <= found.typical <= found.high


def test_no_graphs_where_none_are_captured() -> None:
    name = "Qwen/Qwen2.5-7B-Instruct"
    eager = LaunchSettings(enforce_eager=True)
    taken = resolve(model(name), eager, H100, (0, 32, 0))
    assert cudagraph.captured(model(name), taken).high == 0
    assert cudagraph.budgeted(model(name), eager, taken, (0, 32, 0)).high == 0


def test_graphs_are_taken_from_the_budget_from_0_20() -> None:
    name = "Qwen/Qwen2.5-7B-Instruct"
    for release, counted in (((0, 19, 0), False), ((0, 20, 0), True)):
        taken = resolve(model(name), LaunchSettings(), H100, release)
        assert (cudagraph.budgeted(model(name), LaunchSettings(), taken, release).typical > 0) is counted


def test_ranks_over_nvlink_hold_more_than_one_gpu() -> None:
    one = overhead.non_torch(LaunchSettings(), H100, (0, 19, 0))
    two = overhead.non_torch(LaunchSettings(tensor_parallel_size=2), H100, (0, 19, 0))
    assert one.typical / GIB == pytest.approx(0.25, abs=0.02)
    assert two.typical / GIB == pytest.approx(2.09, abs=0.05)
