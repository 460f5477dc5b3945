"""Any bytes in place of a model's files: the readers answer within bounds, and what they answer is a fact."""

import json
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.model import folders
from vllm_doctor import redact
from vllm_doctor.facts import Model, ModelConfig
from vllm_doctor.probes.model import probe_model
from vllm_doctor.probes.model.config import parse_config
from vllm_doctor.probes.model.reading import Unreadable, parse_object
from vllm_doctor.probes.model.syntax import parsed
from vllm_doctor.probes.model.weights import header_length, parse_header

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=12), inner, max_size=5),
    max_leaves=8,
)
KEYS = (
    "architectures", "model_type", "text_config", "llm_config", "hidden_size", "num_hidden_layers", "n_head",
    "num_attention_heads", "num_key_value_heads", "head_dim", "vocab_size", "max_position_embeddings", "rope_scaling",
    "rope_parameters", "rope_type", "factor", "dtype", "torch_dtype", "quantization_config", "compression_config",
    "quant_method", "producer", "quantization", "auto_map", "is_encoder_decoder", "audio_token",
)  # fmt: skip
CONFIGS = st.dictionaries(
    st.sampled_from(KEYS), JSON | st.dictionaries(st.sampled_from(KEYS), JSON, max_size=4), max_size=6
)
QUICK = settings(deadline=1000, max_examples=100, suppress_health_check=[HealthCheck.too_slow])


def survives(model: Model) -> None:
    """The facts go through the one door, to a file and back."""
    clean = redact.clean(model)
    assert msgspec.json.decode(msgspec.json.encode(clean), type=Model) == clean


@QUICK
@given(CONFIGS)
def test_any_config_becomes_facts(config: dict[str, Any]) -> None:
    try:
        facts = parse_config(parse_object(json.dumps(config).encode(), "config.json"))
    except Unreadable:
        return
    clean = redact.clean(facts)
    assert msgspec.json.decode(msgspec.json.encode(clean), type=ModelConfig) == clean
    assert isinstance(clean.whole(), dict)
    assert set(clean.whole()) <= set(config)


@QUICK
@given(st.binary(max_size=300))
def test_any_bytes_are_a_config_or_a_problem(data: bytes) -> None:
    try:
        parse_config(parse_object(data, "config.json"))
    except Unreadable as unreadable:
        assert unreadable.problem.kind == "not-json"


@QUICK
@given(st.binary(max_size=400))
def test_any_bytes_are_a_header_or_a_problem(data: bytes) -> None:
    try:
        length = header_length(data[:8], "x.safetensors", len(data))
        header = parse_header(data[8 : 8 + length], "x.safetensors")
    except Unreadable as unreadable:
        assert unreadable.problem.kind in ("truncated", "bad-header")
    else:
        assert header.size_bytes >= 0


@QUICK
@given(
    st.dictionaries(
        st.text(max_size=8), JSON | st.fixed_dictionaries({"dtype": JSON, "shape": JSON, "data_offsets": JSON})
    )
)
def test_any_json_is_a_header_or_a_problem(value: dict[str, Any]) -> None:
    try:
        parse_header(json.dumps(value).encode(), "x.safetensors")
    except Unreadable as unreadable:
        assert unreadable.problem.kind == "bad-header"


@QUICK
@given(
    st.text(max_size=300)
    | st.lists(st.sampled_from(["{{", "}}", "{%", "%}", "if", "for", " ", "x", "tools"])).map("".join)
)
def test_any_text_is_a_template_or_an_error(text: str) -> None:
    tree = parsed(text)
    assert tree.error is None or not tree.uses_tools


@settings(deadline=2000, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_bytes_in_any_file(data: st.DataObject, tmp_path: Path) -> None:
    folder = folders.sharded(tmp_path / "m")
    names = sorted(p.name for p in folder.iterdir())
    name = data.draw(st.sampled_from([*names, "chat_template.jinja", "adapter_config.json", "hf_quant_config.json"]))
    content = data.draw(st.binary(max_size=200) | JSON.map(lambda v: json.dumps(v).encode()))
    (folder / name).write_bytes(content)
    survives(probe_model(str(folder)))
    (folder / name).unlink()


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, '{"a":' * 100 + "1" + "}" * 100])
def test_depth(text: str) -> None:
    with pytest.raises(Unreadable):
        parse_object(text.encode(), "config.json")


def test_what_python_writes_and_json_does_not_know() -> None:
    value = parse_object(b'{"a": NaN, "b": Infinity, "c": -Infinity, "hidden_size": 8}', "config.json")
    assert value == {"a": None, "b": None, "c": None, "hidden_size": 8}
    assert parse_config(value).hidden_size == 8


def test_a_huge_config_is_not_kept(tmp_path: Path) -> None:
    folder = folders.llama(tmp_path / "m", id2label={str(i): "x" * 50 for i in range(60_000)})
    config = probe_model(str(folder)).config
    assert isinstance(config, ModelConfig)
    assert len(config.raw) <= 1_000_000
    assert config.hidden_size == folders.HIDDEN


def test_a_config_over_the_limit_is_a_problem(tmp_path: Path) -> None:
    folder = folders.llama(tmp_path / "m")
    with (folder / "config.json").open("ab") as file:
        file.write(b" " * (17 * 2**20))
    assert [p.kind for p in probe_model(str(folder)).problems] == ["unreadable"]


def test_a_header_that_promises_gigabytes_reads_none(tmp_path: Path) -> None:
    folder = folders.llama(tmp_path / "m")
    with (folder / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", 90_000_000) + b"{")
        file.truncate(200_000_000)
    tracemalloc.start()
    model = probe_model(str(folder))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (model.problems, model.tensor_names) == ((), None)
    assert peak < 20 * 2**20


def test_secrets_in_a_config_do_not_break_it() -> None:
    config = {"api_key": "sk-aaaaaaaaaaaaaaaa", "audio_token": "<|audio|>", "x": "hf_aaaaaaaaaaaaaaaa", "vocab_size": 7}
    clean = redact.clean(parse_config(config))
    assert "aaaaaaaa" not in clean.raw
    assert clean.whole()["vocab_size"] == 7
