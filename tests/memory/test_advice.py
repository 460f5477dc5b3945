"""Every piece of advice fits when it is planned again, and the cheapest comes first."""

import pytest

from tests.memory.building import case
from vllm_doctor.launch import edit
from vllm_doctor.launch.parse import parse_line
from vllm_doctor.memory.advice import advise
from vllm_doctor.memory.facts import LaunchSettings
from vllm_doctor.memory.plan import plan
from vllm_doctor.memory.settings import read_settings

LLAMA = "meta-llama/Llama-3.1-8B-Instruct"
LARGE = "meta-llama/Llama-3.3-70B-Instruct"

FAILING = [
    (LLAMA, "L4", "vllm serve M"),
    (LLAMA, "H100", "vllm serve M --gpu-memory-utilization 0.3"),
    (LLAMA, "H100", "vllm serve M --gpu-memory-utilization 0.999"),
    (LARGE, "H100:4", "vllm serve M"),
    (LARGE, "H100:2", "vllm serve M -tp 4"),
    (LARGE, "H100:2", "vllm serve M -tp 2"),
    (LARGE, "H100", "vllm serve M"),
    ("Qwen/Qwen2.5-7B-Instruct", "H100:8", "vllm serve M -tp 8"),
    (LLAMA, "H100", "vllm serve M --max-num-seqs 16384 --max-num-batched-tokens 1048576"),
    (LLAMA, "RTX 3060 12GB", "vllm serve M"),
]


@pytest.mark.parametrize(("name", "board", "line"), FAILING)
def test_the_edited_launch_is_planned_again_and_fits(name: str, board: str, line: str) -> None:
    launch = parse_line(line)
    failing = case(name, board, read_settings(launch))
    assert failing.plan.fails
    found = advise(failing)
    assert found
    for advice in found:
        settings = read_settings(edit.apply(launch, advice.edit))
        again = plan(failing.architecture, settings, failing.device, failing.release)
        assert again.fits, advice.title
        assert again == advice.result


def test_a_shorter_context_comes_before_anything_else() -> None:
    assert next(iter(advise(case(LLAMA, "L4"))[0].edit.set)) == "--max-model-len"


def test_what_fits_needs_no_advice() -> None:
    assert advise(case(LLAMA, "H100")) == ()


def test_nothing_helps_where_nothing_can() -> None:
    assert advise(case("deepseek-ai/DeepSeek-V3", "L4")) == ()


def test_a_parallel_size_that_divides_is_near_the_asked_one() -> None:
    found = advise(case("Qwen/Qwen2.5-7B-Instruct", "H100:8", LaunchSettings(tensor_parallel_size=8)))
    assert found[0].edit.set == {"--tensor-parallel-size": "4"}


def test_nothing_can_be_left_out_of_a_combination() -> None:
    failing = case(LLAMA, "RTX 3060 12GB")
    (found,) = advise(failing)
    assert "--quantization" in found.edit.set
    launch = parse_line("vllm serve M")
    for flag in found.edit.set:
        fewer = {name: value for name, value in found.edit.set.items() if name != flag}
        from vllm_doctor.finding import LaunchEdit

        settings = read_settings(edit.apply(launch, LaunchEdit(set=fewer)))
        assert not plan(failing.architecture, settings, failing.device).fits, f"{flag} is not needed"
