"""From facts to a plan: which config counts, which GPUs, and the command that fits."""

from pathlib import Path

import pytest
from msgspec.structs import replace

from vllm_doctor.errors import DoctorError
from vllm_doctor.facts import Gpus, Unknown
from vllm_doctor.launch.parse import parse_line
from vllm_doctor.memory import boards
from vllm_doctor.memory.plan import Certainty, Verdict
from vllm_doctor.memory.planning import Config, Planned, config_of, of_launch, of_snapshot
from vllm_doctor.memory.report import lines
from vllm_doctor.probes.model import probe_model
from vllm_doctor.snapshot import Snapshot, read

HEALTHY = Path(__file__).parents[2] / "fixtures" / "snapshots" / "healthy-h100.json"
SMALL = (
    '{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "torch_dtype": "bfloat16", "hidden_size": 1024,'
    ' "num_hidden_layers": 4, "num_attention_heads": 8, "num_key_value_heads": 8, "intermediate_size": 2048,'
    ' "vocab_size": 32000, "max_position_embeddings": 2048, "tie_word_embeddings": false}'
)


def snapshot(line: str, **changes: object) -> Snapshot:
    return replace(read(HEALTHY), launch=parse_line(line), **changes)


def config(name: str) -> Config:
    found = config_of(name, None)
    assert isinstance(found, Config)
    return found


def test_a_config_at_hand_wins_over_the_catalogue(tmp_path: Path) -> None:
    folder = tmp_path / "Qwen" / "Qwen2.5-7B-Instruct"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(SMALL)
    name = "Qwen/Qwen2.5-7B-Instruct"
    found = config_of(name, probe_model(name, folder=tmp_path))
    assert isinstance(found, Config)
    planned = of_launch(parse_line(f"vllm serve {name}"), found, boards.device("L4"), None)
    assert planned.plan.weights.parameters < 200_000_000
    assert str(folder) in found.origin
    assert found.entry is not None and found.entry.tool_parser == "hermes"


def test_a_listed_model_needs_no_files() -> None:
    found = config("Qwen/Qwen2.5-7B-Instruct")
    assert found.origin.startswith("the catalogue (https://huggingface.co/Qwen/Qwen2.5-7B-Instruct/")
    assert isinstance(config_of("someone/unheard-of", None), Unknown)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Qwen/Qwen2.5-7B-Instruct", "not read; all facts agree with github.com/"),
        ("mistralai/Mistral-Large-Instruct-2407", "not read; 8 facts agree with github.com/"),
        ("ibm-granite/granite-3.1-2b-instruct", "not read; compared with nothing else)"),
        ("RedHatAI/Qwen2.5-7B-Instruct-FP8-dynamic", "with the quantization of the name (https://"),
    ],
)
def test_a_listed_model_says_what_its_facts_were_compared_with(name: str, said: str) -> None:
    assert said in config(name).origin


def test_the_snapshot_of_a_healthy_machine_is_planned() -> None:
    found = of_snapshot(snapshot("vllm serve Qwen/Qwen2.5-7B-Instruct"))
    assert isinstance(found, Planned)
    assert found.plan.fits
    assert found.release == (0, 20, 2)
    assert (found.device.count, found.device.capability) == (1, 90)
    assert found.device.free_bytes is not None


def test_only_what_the_launch_sees_counts() -> None:
    machine = read(HEALTHY)
    assert isinstance(machine.gpus, Gpus)
    one = machine.gpus.devices[0]
    two = replace(machine.gpus, devices=(one, replace(one, index=1, uuid="GPU-2", memory_free_bytes=2**30)))
    line = "vllm serve Qwen/Qwen2.5-7B-Instruct"
    both = of_snapshot(snapshot(f"{line} -tp 2", gpus=two))
    first = of_snapshot(snapshot(f"CUDA_VISIBLE_DEVICES=0 {line}", gpus=two))
    second = of_snapshot(snapshot(f"CUDA_VISIBLE_DEVICES=1 {line}", gpus=two))
    assert isinstance(both, Planned) and both.device.count == 2 and both.plan.verdict is Verdict.GPU_BUSY
    assert isinstance(first, Planned) and first.plan.fits
    assert isinstance(second, Planned) and second.plan.verdict is Verdict.GPU_BUSY
    assert isinstance(of_snapshot(snapshot(f"CUDA_VISIBLE_DEVICES=7 {line}", gpus=two)), Unknown)


def test_nothing_to_plan() -> None:
    assert of_snapshot(read(HEALTHY)) is None


@pytest.mark.parametrize(
    "line",
    [
        "vllm serve someone/unheard-of",
        "vllm serve Qwen/Qwen2.5-7B-Instruct --hf-overrides {}",
        "vllm serve Qwen/Qwen2.5-7B-Instruct --max-model-len many",
        "docker run --gpus device=GPU-x vllm/vllm-openai:v0.20.2 --model Qwen/Qwen2.5-7B-Instruct",
    ],
)
def test_what_is_not_known_is_said_with_its_reason(line: str) -> None:
    found = of_snapshot(snapshot(line))
    assert isinstance(found, Unknown)
    assert found.reason


def test_a_quantized_checkpoint_of_the_publisher_is_offered() -> None:
    launch = parse_line("vllm serve Qwen/Qwen3-32B --max-model-len 8192")
    found = of_launch(launch, config("Qwen/Qwen3-32B"), boards.device("A100-40GB"), None)
    advice = found.advice()
    assert "Qwen/Qwen3-32B-AWQ" in {a.edit.positional for a in advice}
    assert all(a.result.fits for a in advice)
    assert (found.corrected(advice) or "").startswith("vllm serve Qwen/Qwen3-32B")


def test_how_many_gpus_would_do() -> None:
    name = "meta-llama/Llama-3.3-70B-Instruct"
    found = of_launch(parse_line(f"vllm serve {name}"), config(name), boards.device("H100"), None)
    assert found.gpus_that_do() == 4


@pytest.mark.parametrize(
    "text", ["{}", "[]", "", "{", '{"architectures": ["LlamaForCausalLM"]}', '{"architectures": 7}']
)
def test_a_config_that_says_nothing_is_an_error_in_one_line(text: str) -> None:
    with pytest.raises(DoctorError) as raised:
        of_launch(parse_line("vllm serve m"), Config(text=text, origin="a test"), boards.device("L4"), None)
    assert "\n" not in str(raised.value)


def test_a_draft_that_was_not_counted_is_no_fit() -> None:
    """It may weigh as much as the model: nothing is promised, and nothing advised."""
    asked = '{"method": "eagle3", "model": "someone/unheard-of", "num_speculative_tokens": 3}'
    name = "meta-llama/Llama-3.1-8B-Instruct"
    launch = parse_line(f"vllm serve {name} --max-model-len 8192 --speculative-config '{asked}'")
    planned = of_launch(launch, config(name), boards.device("H100"), None)
    assert (planned.plan.verdict, planned.plan.certainty) == (Verdict.FITS, Certainty.CLOSE)
    assert not planned.plan.fits and planned.advice() == ()
    text = "\n".join(lines(planned, (), 100))
    assert "Cannot be told: it likely fits without the speculative draft model, which could not be counted." in text
    assert "What makes it" not in text
    counted = of_launch(
        parse_line(f"vllm serve {name} --max-model-len 8192"), config(name), boards.device("H100"), None
    )
    assert counted.plan.fits


def test_four_bits_are_offered_where_no_single_change_does() -> None:
    name = "meta-llama/Llama-3.3-70B-Instruct"
    planned = of_launch(parse_line(f"vllm serve {name}"), config(name), boards.device("RTX A6000:2"), None)
    packed = planned.in_four_bits()
    assert packed is not None and packed.fits and packed.gpus_needed == 2
    assert "With 4-bit weights (18.6 GiB a GPU; " in "\n".join(lines(planned, planned.advice(), 200))
    fitting = of_launch(parse_line(f"vllm serve {name} -tp 4"), config(name), boards.device("H100:4"), None)
    assert fitting.in_four_bits() is None
    refused = of_launch(parse_line(f"vllm serve {name} -tp 3"), config(name), boards.device("H100:3"), None)
    assert refused.in_four_bits() is None


def test_gpus_that_stand_idle_come_before_another_checkpoint() -> None:
    name = "Qwen/Qwen2.5-14B-Instruct"
    planned = of_launch(parse_line(f"vllm serve {name}"), config(name), boards.device("RTX 4090:2"), None)
    assert planned.advice()[0].edit.set == {"--tensor-parallel-size": "2"}
    assert sum(a.edit.positional is not None for a in planned.advice()) <= 2


def test_a_variable_of_the_environment_counts_as_the_launch_will_see_it() -> None:
    name = "Qwen/Qwen2.5-7B-Instruct"
    launch = parse_line(f"vllm serve {name} --max-model-len 100000")
    refused = of_launch(launch, config(name), boards.device("H100"), None)
    assert refused.plan.verdict is Verdict.MAX_LEN_OVER_MODEL
    allowed = {"VLLM_ALLOW_LONG_MAX_MODEL_LEN": "1", "HOME": None}
    assert of_launch(launch, config(name), boards.device("H100"), None, variables=allowed).plan.fits


def test_an_fp8_cache_is_offered_where_it_holds_more() -> None:
    headings = {}
    for name, count in (("Qwen/Qwen3-8B", 1), ("deepseek-ai/DeepSeek-V4-Flash", 4)):
        launch = parse_line(f"vllm serve {name} -tp {count}")
        device = boards.device(f"H100:{count}")
        headings[name.partition("/")[0]] = of_launch(launch, config(name), device, None).capacities().headings
    assert headings == {"Qwen": ("as launched", "FP8 KV cache"), "deepseek-ai": ("as launched",)}


def test_a_quantized_checkpoint_is_served_without_another_quantization() -> None:
    """vLLM refuses `--quantization fp8` with a checkpoint of another method."""
    name = "Qwen/Qwen2.5-32B-Instruct"
    launch = parse_line(f"vllm serve {name} --quantization fp8")
    planned = of_launch(launch, config(name), boards.device("L40S"), (0, 12, 0))
    assert planned.plan.verdict is Verdict.OOM_WEIGHTS and planned.plan.largest_max_model_len == 0
    assert planned.capacities().rows == ()
    offered = [a for a in planned.advice() if a.edit.positional is not None]
    assert offered and all(a.edit.unset == ("--quantization",) for a in offered)
    corrected = planned.corrected(planned.advice())
    assert corrected is not None and "--quantization" not in corrected
