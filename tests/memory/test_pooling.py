"""Models served for vectors and scores: no cache, another head, names that stand for a language model."""

import json
from pathlib import Path
from typing import Any

import pytest

from vllm_doctor.launch import parse_line
from vllm_doctor.memory import boards
from vllm_doctor.memory.architecture import read_architecture
from vllm_doctor.memory.config_values import ConfigError
from vllm_doctor.memory.facts import Architecture, LaunchSettings
from vllm_doctor.memory.plan import Verdict, plan
from vllm_doctor.memory.settings import read_settings

FIXTURE = Path(__file__).parents[2] / "fixtures" / "memory" / "built_by_vllm.json"
CONFIGS = {m["name"]: m["config"] for m in json.loads(FIXTURE.read_text())["models"]}


def model(name: str, **changes: Any) -> Architecture:
    return read_architecture(json.dumps({**CONFIGS[name], **changes}))


def test_an_encoder_has_no_cache_and_takes_its_weights_and_activations_only() -> None:
    found = plan(model("BgeM3EmbeddingModel"), LaunchSettings(), boards.device("L4"))
    assert found.verdict is Verdict.FITS
    assert (found.kv_cache.typical, found.blocks, found.tokens, found.needed_bytes) == (0, 1, 0, 0)
    used = found.weights.per_gpu_bytes + found.activation.high + found.graphs_captured.high + found.other.high
    assert found.margin_bytes == pytest.approx(found.device.total_bytes - used, rel=0.05)


def test_an_encoder_takes_a_whole_prompt_in_one_batch() -> None:
    found = plan(model("BgeM3EmbeddingModel"), LaunchSettings(), boards.device("L4"))
    assert found.defaults.max_num_batched_tokens == 8194


def test_an_encoder_that_is_larger_than_the_card_does_not_start() -> None:
    large = model("BgeM3EmbeddingModel", num_hidden_layers=1200)
    assert plan(large, LaunchSettings(), boards.device("T4")).verdict is Verdict.OOM_WEIGHTS


@pytest.mark.parametrize("flag", ["--runner pooling", "--task embed", "--task score", "--convert embed"])
def test_a_language_model_served_for_pooling_has_no_head_for_words(flag: str) -> None:
    settings = read_settings(parse_line(f"vllm serve m {flag}"))
    llama = model("LlamaForCausalLM")
    words, vectors = (plan(llama, s, boards.device("H100")) for s in (LaunchSettings(), settings))
    lm_head = llama.vocabulary_size * llama.hidden_size
    assert words.weights.parameters - vectors.weights.parameters == lm_head
    assert vectors.activation.typical <= words.activation.typical
    assert vectors.bytes_per_token == words.bytes_per_token


@pytest.mark.parametrize("flag", ["--runner generate", "--task generate", ""])
def test_it_has_one_where_it_generates(flag: str) -> None:
    assert not read_settings(parse_line(f"vllm serve m {flag}")).pooling


def test_the_size_of_colberts_projection_is_not_in_its_config() -> None:
    found = read_architecture(json.dumps({**CONFIGS["BertModel"], "architectures": ["HF_ColBERT"]}))
    assert not found.exact
    with pytest.raises(ConfigError, match="colbert_dim is missing"):
        model("ColBERTModernBertModel", dim=None)


@pytest.mark.parametrize("name", ["Qwen3ForRewardModel", "NewModel", "UnheardOfForSequenceClassification", "Model"])
def test_a_name_that_vllm_does_not_make_into_a_model_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="how its layers are made is not known"):
        read_architecture(json.dumps({**CONFIGS["LlamaForCausalLM"], "architectures": [name]}))


def test_a_vision_model_with_a_score_keeps_its_towers() -> None:
    vision = {"model_type": "qwen2_5_vl", "depth": 2, "hidden_size": 128, "out_hidden_size": 4096, "patch_size": 14}
    whole = {"text_config": CONFIGS["LlamaForCausalLM"], "vision_config": vision, "id2label": {"0": "yes"}}
    base = read_architecture(json.dumps({**whole, "architectures": ["Qwen2_5_VLForConditionalGeneration"]}))
    scored = read_architecture(json.dumps({**whole, "architectures": ["Qwen2_5_VLForSequenceClassification"]}))
    assert scored.is_multimodal
    assert sum(t.parameters for t in scored.towers) == sum(t.parameters for t in base.towers) + base.hidden_size
