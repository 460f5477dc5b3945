"""Which parser a model's name, its text and its template point to, and in which releases it is there."""

import pytest

from vllm_doctor import releases, tool_families


@pytest.mark.parametrize(
    ("name", "parser"),
    [
        ("Qwen/Qwen2.5-7B-Instruct", "hermes"),
        ("Qwen/Qwen3-8B", "hermes"),
        ("Qwen/Qwen3-Coder-30B-A3B-Instruct", "qwen3_xml"),
        ("meta-llama/Llama-3.1-8B-Instruct", "llama3_json"),
        ("meta-llama/Meta-Llama-3.1-70B-Instruct", "llama3_json"),
        ("meta-llama/Llama-4-Scout-17B-16E-Instruct", "llama4_pythonic"),
        ("mistralai/Mistral-7B-Instruct-v0.3", "mistral"),
        ("mistralai/Mistral-Small-24B-Instruct-2501", "mistral"),
        ("deepseek-ai/DeepSeek-V3-0324", "deepseek_v3"),
        ("deepseek-ai/DeepSeek-V3.1", "deepseek_v31"),
        ("deepseek-ai/DeepSeek-R1-0528", "deepseek_v3"),
        ("openai/gpt-oss-120b", "openai"),
        ("zai-org/GLM-4.5-Air", "glm45"),
        ("moonshotai/Kimi-K2-Instruct", "kimi_k2"),
        ("ibm-granite/granite-3.1-8b-instruct", "granite"),
        ("Salesforce/Llama-xLAM-2-8B-fc-r", "xlam"),
    ],
)
def test_a_family_has_its_parser(name: str, parser: str) -> None:
    found = tool_families.family(None, name)
    assert found is not None
    assert found.parsers[0] == parser


@pytest.mark.parametrize(
    "name",
    ["google/gemma-2-9b-it", "meta-llama/Llama-2-7b-chat-hf", "meta-llama/Meta-Llama-3-8B-Instruct", "gpt2",

     "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B", "mistralai/Mixtral-8x7B-Instruct-v0.1",
     "Qwen/Qwen2.5-Math-7B-Instruct"],
)  # fmt: skip
def test_a_family_without_tools_is_told(name: str) -> None:
    assert tool_families.family(None, name) is None
    assert tool_families.without_tools(None, name)


def test_an_unknown_model_is_neither() -> None:
    assert tool_families.family(None, "my-own-model") is None
    assert not tool_families.without_tools(None, "my-own-model")


def test_every_parser_that_is_proposed_exists_in_some_release() -> None:
    named = {parser for each in tool_families.FAMILIES for parser in each.parsers}
    named |= {parser for _, parsers in tool_families.CONTENT_MARKS for parser in parsers}
    assert sorted(parser for parser in named if not releases.tool_parser_history(parser)) == []


def test_a_release_has_a_parser_from_its_first_on() -> None:
    assert not tool_families.in_release("qwen3_coder", "0.9.2")
    assert tool_families.in_release("qwen3_coder", "0.32.0")
    assert tool_families.in_release("qwen3_coder", "0.32.0+cpu")
    assert tool_families.in_release("qwen3_coder", None)
    assert not tool_families.in_release("minimax", "0.32.0")
