"""Configs that no model has end in one clear line: never in a plan, never in another error."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vllm_doctor.errors import DoctorError
from vllm_doctor.memory.architecture import read_architecture
from vllm_doctor.memory.config_values import Config, ConfigError
from vllm_doctor.memory.facts import LaunchSettings
from vllm_doctor.memory.families.towers.vits import feature_layers
from vllm_doctor.memory.kv_cache import kv_layout
from vllm_doctor.memory.weights import weights

MODELS = json.loads((Path(__file__).parents[2] / "fixtures" / "memory" / "built_by_vllm.json").read_text())["models"]
CONFIGS: dict[str, dict[str, Any]] = {m["name"]: m["config"] for m in MODELS}
RELEASE = (0, 32, 0)

LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "max_position_embeddings": 8192,
    "torch_dtype": "bfloat16",
}

oddities = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(min_value=-5, max_value=5),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=20),
    st.lists(st.one_of(st.integers(), st.text(max_size=5), st.none()), max_size=5),
    st.dictionaries(st.text(max_size=8), st.one_of(st.integers(), st.text(max_size=5)), max_size=4),
)


def planned(config_json: str) -> None:
    """A plan of the config: whatever comes out counts something, or it is a DoctorError."""
    architecture = read_architecture(config_json)
    launch = LaunchSettings()
    counted = weights(architecture, launch, RELEASE)
    assert counted.parameters > 0
    assert counted.per_gpu_bytes > 0
    length = architecture.native_max_model_len or 0
    assert length > 0
    layout = kv_layout(architecture, launch, RELEASE, None, 8192, length)
    assert layout.bytes_per_block >= 0
    assert 0 <= layout.largest_max_model_len(10**10, length) <= length


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("hidden_size", -1),
        ("hidden_size", 0),
        ("hidden_size", None),
        ("hidden_size", "4096"),
        ("hidden_size", 2**40),
        ("hidden_size", 4097),
        ("num_hidden_layers", 0),
        ("num_hidden_layers", -32),
        ("num_hidden_layers", 10**9),
        ("num_hidden_layers", True),
        ("num_hidden_layers", [32]),
        ("num_attention_heads", 0),
        ("num_attention_heads", 1.5),
        ("vocab_size", -1),
        ("vocab_size", None),
        ("intermediate_size", {"a": 1}),
        ("max_position_embeddings", -5),
        ("architectures", ["NobodyKnowsForCausalLM"]),
        ("quantization_config", {"quant_method": "gptq", "bits": 7}),
        ("quantization_config", {"quant_method": "gptq", "bits": 4, "group_size": -20}),
        ("quantization_config", {"quant_method": "awq", "bits": "four"}),
    ],
)
def test_a_value_that_no_model_has_is_named(key: str, value: object) -> None:
    with pytest.raises(DoctorError) as raised:
        planned(json.dumps({**LLAMA, key: value}))
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 400


@pytest.mark.parametrize("text", ["", "[]", "null", "3", "{", "{}", '{"architectures": []}', "[" * 100_000, "\x00"])
def test_what_is_no_config_is_refused(text: str) -> None:
    with pytest.raises(DoctorError):
        read_architecture(text)


def test_a_config_nested_without_end_is_refused() -> None:
    with pytest.raises(DoctorError):
        read_architecture('{"a":' * 5000 + "1" + "}" * 5000)


def test_a_missing_number_is_asked_for_where_the_class_has_no_default() -> None:
    config = {"architectures": ["ExaoneForCausalLM"], "model_type": "exaone", "num_layers": 32}
    with pytest.raises(DoctorError, match="hidden_size is missing"):
        read_architecture(json.dumps(config))


def test_values_that_json_does_not_know_are_read_as_null() -> None:
    text = json.dumps({**LLAMA, "rope_theta": float("inf"), "initializer_range": float("nan")})
    assert read_architecture(text) == read_architecture(json.dumps(LLAMA))


@given(st.text(max_size=300))
@settings(max_examples=150, deadline=1000)
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        planned(text)
    except DoctorError:
        return


@given(name=st.sampled_from(sorted(CONFIGS)), data=st.data())
@settings(max_examples=400, deadline=2000)
def test_any_value_anywhere_in_a_config_is_read_or_refused(name: str, data: st.DataObject) -> None:
    config = dict(CONFIGS[name])
    for key in data.draw(st.lists(st.sampled_from(sorted(config)), min_size=1, max_size=3)):
        config[key] = data.draw(oddities)
    try:
        planned(json.dumps(config))
    except DoctorError as error:
        assert "\n" not in str(error)


@given(name=st.sampled_from(sorted(CONFIGS)), data=st.data())
@settings(max_examples=200, deadline=2000)
def test_any_key_may_be_missing(name: str, data: st.DataObject) -> None:
    config = dict(CONFIGS[name])
    for key in data.draw(st.lists(st.sampled_from(sorted(config)), min_size=1, max_size=5)):
        config.pop(key, None)
    try:
        planned(json.dumps(config))
    except DoctorError as error:
        assert "\n" not in str(error)


def test_a_feature_layer_before_the_first_is_refused() -> None:
    config = Config({"vision_feature_layer": -562})
    with pytest.raises(ConfigError, match="before the first of 24 layers"):
        feature_layers(config, Config({"num_hidden_layers": 24}))
