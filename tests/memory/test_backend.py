"""Models that `--model-impl` sends through Transformers' own code."""

import json
from pathlib import Path
from typing import Any

import pytest

from vllm_doctor.launch import parse_line
from vllm_doctor.memory import boards, catalogue
from vllm_doctor.memory.architecture import read_architecture
from vllm_doctor.memory.backend import architecture_of, backend_class
from vllm_doctor.memory.cautions import cautions
from vllm_doctor.memory.config_values import Config, ConfigError
from vllm_doctor.memory.facts import LaunchSettings, Release
from vllm_doctor.memory.parallelism import indivisible
from vllm_doctor.memory.planning import Config as PlannedConfig
from vllm_doctor.memory.planning import of_launch
from vllm_doctor.memory.weights import weights

FIXTURE = Path(__file__).parents[2] / "fixtures" / "memory" / "built_by_vllm.json"
MODELS = json.loads(FIXTURE.read_text())["models"]
WRAPPED = [m for m in MODELS if m["name"] in ("TransformersMultiModalForCausalLM", "TransformersForCausalLM")]
RELEASE = (0, 32, 0)
# Classes of Transformers, by the type of their config.
OWN_NAMES = {
    "llava": "LlavaForConditionalGeneration",
    "qwen2_5_vl": "Qwen2_5_VLForConditionalGeneration",
    "gemma3": "Gemma3ForConditionalGeneration",
    "mistral3": "Mistral3ForConditionalGeneration",
    "internvl": "InternVLForConditionalGeneration",
    "qwen3": "Qwen3ForCausalLM",
}


@pytest.mark.parametrize("model_type", OWN_NAMES)
def test_a_launch_through_transformers_is_read_as_its_backend_builds_it(model_type: str) -> None:
    config = next(m["config"] for m in WRAPPED if m["config"]["model_type"] == model_type)
    named = json.dumps({**config, "architectures": [OWN_NAMES[model_type]]})
    launch = parse_line("vllm serve org/model --model-impl transformers")
    assert architecture_of(named, launch) == read_architecture(json.dumps(config))
    for flags in ("", "--model-impl auto", "--model-impl vllm"):
        assert architecture_of(named, parse_line(f"vllm serve org/model {flags}")) == read_architecture(named)


@pytest.mark.parametrize(
    ("name", "text", "nested", "expected"),
    [
        ("LlamaForCausalLM", {}, False, "TransformersForCausalLM"),
        ("MixtralForCausalLM", {"num_local_experts": 8}, False, "TransformersMoEForCausalLM"),
        ("LlavaForConditionalGeneration", {}, True, "TransformersMultiModalForCausalLM"),
        ("Glm4vMoeForConditionalGeneration", {"n_routed_experts": 8}, True, "TransformersMultiModalMoEForCausalLM"),
        ("Qwen3ForSequenceClassification", {"num_experts": 0}, False, "TransformersForSequenceClassification"),
        ("Qwen2VLModel", {}, True, "TransformersMultiModalEmbeddingModel"),
        ("TransformersForCausalLM", {}, True, "TransformersForCausalLM"),
    ],
)
def test_the_backends_class(name: str, text: dict[str, Any], nested: bool, expected: str) -> None:
    assert backend_class(name, Config(text), nested=nested) == expected


def test_a_type_that_nobody_compared_is_refused_in_one_line_or_called_an_estimate() -> None:
    launch = parse_line("vllm serve org/model --model-impl transformers")
    config = {"architectures": ["GptOssForCausalLM"], "model_type": "gpt_oss"}
    with pytest.raises(ConfigError, match="Transformers' layers of the type 'gpt_oss'"):
        architecture_of(json.dumps(config), launch)
    text = next(m["config"] for m in WRAPPED if m["config"]["model_type"] == "llava")["text_config"]
    vision = {"model_type": "x", "hidden_size": 64, "num_hidden_layers": 2}
    other = {"architectures": ["NewForConditionalGeneration"], "model_type": "new"}
    found = architecture_of(json.dumps({**other, "text_config": text, "vision_config": vision}), launch)
    assert not found.exact


def test_a_text_model_under_the_name_of_a_multi_modal_class_is_refused() -> None:
    config = {**WRAPPED[0]["config"], "architectures": ["TransformersMultiModalForCausalLM"], "model_type": "llama"}
    with pytest.raises(ConfigError, match="no part of it is a tower"):
        read_architecture(json.dumps(config))


@pytest.mark.parametrize(
    ("name", "size", "refusal"),
    [
        ("Emu3ForConditionalGeneration", 2, "AssertionError: 1 is not divisible by 2"),
        ("Emu3ForConditionalGeneration", 1, None),
    ],
)
def test_a_towers_heads_that_ranks_cannot_share_are_called_indivisible(
    name: str, size: int, refusal: str | None
) -> None:
    """So ends vLLM 0.32: the attention of Emu3's VQ-VAE has one head. Older releases fused no tower."""
    architecture = read_architecture(json.dumps(next(m["config"] for m in MODELS if m["name"] == name)))
    assert indivisible(architecture, LaunchSettings(tensor_parallel_size=size)) == refusal
    assert indivisible(architecture, LaunchSettings(tensor_parallel_size=size), (0, 20, 0)) is None


def test_older_backends_divide_towers_in_a_way_that_is_not_known() -> None:
    config = next(m["config"] for m in WRAPPED if m["config"]["model_type"] == "qwen2_5_vl")
    architecture = read_architecture(json.dumps(config))
    assert weights(architecture, LaunchSettings(), RELEASE).exact
    older = weights(architecture, LaunchSettings(), (0, 20, 0))
    assert not older.exact
    assert any("before 0.32" in doubt for doubt in older.approximations)


def test_a_plan_knows_the_flag() -> None:
    entry = catalogue.find("Qwen/Qwen2.5-VL-7B-Instruct")
    assert entry is not None
    config = PlannedConfig(text=entry.config_json, origin="the catalogue", entry=entry)
    plans = [
        of_launch(parse_line(f"vllm serve {entry.name} {flags}"), config, boards.device("H100"), RELEASE).plan.weights
        for flags in ("", "--model-impl transformers")
    ]
    assert plans[0].parameters == plans[1].parameters
    assert plans[1].buffers_bytes == 0 < plans[0].buffers_bytes


@pytest.mark.parametrize(
    ("version", "told"),
    [
        (
            (0, 32, 0),
            "vLLM 0.32.0 has no code for AyaVisionForConditionalGeneration: it runs through Transformers' own",
        ),
        ((0, 10, 0), None),
        ((0, 25, 0), "vLLM 0.25.0 has no code for AyaVisionForConditionalGeneration (0.8.3 to 0.24.0 have)."),
    ],
)
def test_a_model_that_falls_back_to_transformers_is_told(version: Release, told: str | None) -> None:
    values = next(m["config"] for m in WRAPPED if m["config"]["model_type"] == "aya_vision")
    named = json.dumps({**values, "architectures": ["AyaVisionForConditionalGeneration"]})
    config = PlannedConfig(text=named, origin="a copy")
    planned = of_launch(parse_line("vllm serve org/aya -tp 2"), config, boards.device("H100:2"), version)
    found = [line for line in cautions(planned) if "has no code" in line]
    assert [line.startswith(told) for line in found] == [True] if told else not found
