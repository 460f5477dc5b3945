"""Every piece of advice fits when it is planned again, and the cheapest comes first."""

import pytest

from tests.memory.building import case
from vllm_doctor.launch import edit
from vllm_doctor.launch.parse import parse_line
from vllm_doctor.memory.advice import advise
from vllm_doctor.memory.facts import LaunchSettings
from vllm_doctor.memory.plan import Verdict, plan
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


def test_a_share_that_likely_does_is_told_before_what_does_for_certain() -> None:
    """0.95 gains 2.4 GiB, of which the estimates' band takes up more: it is worth a try, and no promise."""
    likely, *certain = advise(case("openai/gpt-oss-120b", "H100 80GB", release=(0, 20, 2)))
    assert likely.edit.set == {"--gpu-memory-utilization": "0.95"}
    assert not likely.certain
    assert likely.result.verdict is Verdict.FITS
    assert certain and all(advice.certain for advice in certain)


def test_no_more_of_the_card_than_it_takes() -> None:
    failing = case(LLAMA, "H100", LaunchSettings(gpu_memory_utilization=0.3))
    share = next(a for a in advise(failing) if "--gpu-memory-utilization" in a.edit.set)
    needed = float(share.edit.set["--gpu-memory-utilization"] or 0)
    assert 0.3 < needed < 0.6
    less = LaunchSettings(gpu_memory_utilization=needed - 0.01)
    assert not plan(failing.architecture, less, failing.device).fits


def test_a_context_over_the_config_is_cut_to_it_and_to_what_fits() -> None:
    (found,) = advise(case(LLAMA, "H100", LaunchSettings(max_model_len=200_000)))
    assert found.edit.set == {"--max-model-len": "131072"}
    shorter = advise(case(LLAMA, "L4", LaunchSettings(max_model_len=200_000)))
    assert all(int(a.edit.set["--max-model-len"] or 0) < 131072 for a in shorter) and shorter
