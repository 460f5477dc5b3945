"""The settings of a launch, as vLLM reads its flags."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vllm_doctor.errors import DoctorError
from vllm_doctor.launch import parse_line
from vllm_doctor.memory.facts import DraftModel, LaunchSettings
from vllm_doctor.memory.settings import read_settings


def read(flags: str) -> LaunchSettings:
    return read_settings(parse_line(f"vllm serve org/model {flags}"))


def test_without_flags_all_is_left_to_vllm() -> None:
    assert read("") == LaunchSettings() == read_settings(None)


def test_numbers_are_read_as_vllm_reads_them() -> None:
    found = read("-tp 4 -pp 2 --max-model-len 4k --max-num-seqs 1K --kv-cache-memory-bytes 4G --block-size 32")
    assert (found.tensor_parallel_size, found.pipeline_parallel_size) == (4, 2)
    assert (found.max_model_len, found.max_num_seqs) == (4000, 1024)
    assert (found.kv_cache_memory_bytes, found.block_size) == (4 * 2**30, 32)


@pytest.mark.parametrize("value", ["auto", "-1"])
def test_an_automatic_length_is_minus_one(value: str) -> None:
    assert read(f"--max-model-len={value}").max_model_len == -1


def test_switches_and_their_opposites() -> None:
    found = read("--enforce-eager --no-enable-prefix-caching --enable-expert-parallel --no-async-scheduling")
    assert (found.enforce_eager, found.prefix_caching, found.expert_parallel) == (True, False, True)
    assert (found.async_scheduling, found.chunked_prefill) == (False, None)


def test_json_flags() -> None:
    found = read(
        """--speculative-config '{"method": "eagle3", "model": "org/draft", "num_speculative_tokens": 3,"""
        """ "draft_tensor_parallel_size": 1}' --limit-mm-per-prompt '{"image": 2, "video": 0}'"""
        """ --compilation-config '{"cudagraph_capture_sizes": [1, 2, 4]}'"""
    )
    assert found.draft == DraftModel(method="eagle3", model="org/draft", tokens=3, tensor_parallel_size=1)
    assert found.limit_mm_per_prompt == {"image": 2, "video": 0}
    assert found.cudagraph_sizes == (1, 2, 4)


def test_limits_as_older_releases_had_them() -> None:
    assert read("--limit-mm-per-prompt image=2,video=1").limit_mm_per_prompt == {"image": 2, "video": 1}


def test_variables_of_vllm_are_kept() -> None:
    line = "VLLM_PP_LAYER_PARTITION=20,12 OTHER=1 vllm serve org/model"
    assert read_settings(parse_line(line)).environment == {"VLLM_PP_LAYER_PARTITION": "20,12"}


@pytest.mark.parametrize(
    "flags",
    [
        "--tensor-parallel-size 0",
        "--tensor-parallel-size two",
        "--max-model-len -5",
        "--max-model-len 0",
        "--max-model-len 99999999999999",
        "--gpu-memory-utilization 1.5",
        "--gpu-memory-utilization 0",
        "--gpu-memory-utilization nan",
        "--gpu-memory-utilization much",
        "--cpu-offload-gb -1",
        "--kv-cache-memory-bytes lots",
        "--block-size 0",
    ],
)
def test_a_value_that_vllm_refuses_is_named_with_its_flag(flags: str) -> None:
    with pytest.raises(DoctorError) as raised:
        read(flags)
    assert flags.split()[0] in str(raised.value)


@given(
    st.text(alphabet='0123456789kKmMgG.-eE{}":,a', max_size=12),
    st.sampled_from(
        (
            "--max-model-len",
            "--gpu-memory-utilization",
            "--speculative-config",
            "--limit-mm-per-prompt",
            "-tp",
            "--compilation-config",
            "--cpu-offload-gb",
        )
    ),
)
@settings(max_examples=200, deadline=500)
def test_any_value_is_read_or_refused(value: str, flag: str) -> None:
    line = f"vllm serve org/model {flag} '{value}'"
    try:
        found = read_settings(parse_line(line))
    except DoctorError:
        return
    assert found.tensor_parallel_size >= 1
    assert found.gpu_memory_utilization is None or 0 < found.gpu_memory_utilization <= 1
    assert found.max_model_len is None or found.max_model_len == -1 or found.max_model_len > 0
