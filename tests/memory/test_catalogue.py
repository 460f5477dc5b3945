"""The catalogue of models: its configs count what their publishers say, and near names are suggested."""

import pytest

from vllm_doctor.memory import catalogue
from vllm_doctor.memory.architecture import read_architecture
from vllm_doctor.memory.facts import Architecture, Tensor


def tensors(architecture: Architecture) -> tuple[Tensor, ...]:
    layers = [t for kind in architecture.layers for t in architecture.kinds[kind].tensors]
    return (*layers, *architecture.first, *architecture.last, *architecture.towers)


def counted(name: str) -> int:
    entry = catalogue.find(name)
    assert entry is not None
    return sum(t.parameters for t in tensors(read_architecture(entry.config_json)))


PUBLISHED = sorted({e.config_json: n for n in catalogue.names() if (e := catalogue.find(n)) and e.parameters}.values())


def test_there_are_many_models() -> None:
    assert len(catalogue.names()) >= 150
    assert len(PUBLISHED) >= 110


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_config_counts_the_published_parameters(name: str) -> None:
    entry = catalogue.find(name)
    assert entry is not None and entry.parameters is not None
    # An encoder that is estimated says so, and is a small part of the whole.
    near = 3e-3 if read_architecture(entry.config_json).approximations else 1e-3
    assert counted(name) == pytest.approx(entry.parameters, rel=near)


@pytest.mark.parametrize("name", catalogue.names())
def test_every_entry_is_complete(name: str) -> None:
    entry = catalogue.find(name)
    assert entry is not None
    assert entry.source.startswith("https://huggingface.co/")
    assert entry.chat or entry.tool_parser is None
    read_architecture(entry.config_json)


def test_tool_parsers_are_ones_that_vllm_has() -> None:
    from vllm_doctor.releases import newest, release

    found = release(newest())
    assert found is not None
    assert {e.tool_parser for n in catalogue.names() if (e := catalogue.find(n))} - {None} <= set(found.tool_parsers)
    assert {e.reasoning_parser for n in catalogue.names() if (e := catalogue.find(n))} - {None} <= set(
        found.reasoning_parsers
    )


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("Qwen2.5-7B-instruct", "Qwen/Qwen2.5-7B-Instruct"),
        ("meta-llama/Lama-3.1-8B-Instruct", "meta-llama/Llama-3.1-8B-Instruct"),
        ("mixtral-8x7b-instruct", "mistralai/Mixtral-8x7B-Instruct-v0.1"),
        ("openai/gpt-oss20b", "openai/gpt-oss-20b"),
    ],
)
def test_near_names_are_suggested(name: str, first: str) -> None:
    assert catalogue.suggest(name)[0] == first


def test_another_size_is_no_misspelling() -> None:
    assert catalogue.suggest("Qwen/Qwen2.5-9B-Instruct") == ()


def test_letter_case_does_not_count() -> None:
    entry = catalogue.find("qwen/qwen2.5-7b-instruct")
    assert entry is not None and entry.name == "Qwen/Qwen2.5-7B-Instruct"


@pytest.mark.parametrize(
    ("name", "base", "method"),
    [
        ("RedHatAI/Meta-Llama-3.1-8B-Instruct-quantized.w4a16", "meta-llama/Meta-Llama-3.1-8B-Instruct", 4),
        ("redhatai/Llama-3.3-70B-Instruct-quantized.w8a8", "meta-llama/Llama-3.3-70B-Instruct", 8),
        ("RedHatAI/Qwen2.5-7B-Instruct-FP8-dynamic", "Qwen/Qwen2.5-7B-Instruct", 8),
        ("TheBloke/Llama-2-7B-Chat-GPTQ", "meta-llama/Llama-2-7b-chat-hf", 4),
        ("TheBloke/Mixtral-8x7B-Instruct-v0.1-AWQ", "mistralai/Mixtral-8x7B-Instruct-v0.1", 4),
        ("Qwen/Qwen3-4B-Instruct-2507-FP8", "Qwen/Qwen3-4B-Instruct-2507", 8),
    ],
)
def test_quantized_copies_are_known_by_their_base(name: str, base: str, method: int) -> None:
    entry = catalogue.find(name)
    assert entry is not None and entry.derived_from == base
    quantization = read_architecture(entry.config_json).quantization
    assert quantization is not None and quantization.bits == method


@pytest.mark.parametrize("name", ["", "x", "someone/Qwen2.5-7B-Instruct-FP8-dynamic", "RedHatAI/x-FP8", "a/b/c/d"])
def test_an_unknown_name_is_not_found(name: str) -> None:
    assert catalogue.find(name) is None
