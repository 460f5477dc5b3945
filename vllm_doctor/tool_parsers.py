"""What the tool-call parsers of vLLM read: the tokens they look up, and the marks of their formats in a template."""

# ruff: noqa: RUF001 - DeepSeek's tokens have full-width bars
from collections.abc import Mapping
from typing import NamedTuple

Release = tuple[int, int, int]

NEWEST: Release = (9999, 0, 0)


class Lookup(NamedTuple):
    """Tokens without which a parser refuses the tokenizer, in the releases from `first` to `last`."""

    tokens: tuple[str, ...]
    first: Release
    last: Release = NEWEST


# From the constructors of the parsers in every release from 0.6.3 to 0.33.0 (`tool_parsers/*.py`, before 0.13 below
# `entrypoints/openai/`; `parser/mistral.py`); `last` is the last release that raises.
LOOKUPS: Mapping[str, Lookup] = {
    "mistral": Lookup(("[TOOL_CALLS]",), (0, 6, 3)),
    "jamba": Lookup(("<tool_calls>", "</tool_calls>"), (0, 6, 4)),
    "deepseek_v3": Lookup(("<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"), (0, 9, 0)),
    "deepseek_v31": Lookup(("<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"), (0, 10, 2)),
    "kimi_k2": Lookup(("<|tool_calls_section_begin|>", "<|tool_calls_section_end|>"), (0, 10, 0), (0, 19, 1)),
    "qwen3_coder": Lookup(("<tool_call>", "</tool_call>"), (0, 10, 0), (0, 23, 0)),
    "minimax_m2": Lookup(("<minimax:tool_call>", "</minimax:tool_call>"), (0, 11, 1), (0, 23, 0)),
    "gemma4": Lookup(("<|tool_call>", "<tool_call|>"), (0, 19, 0), (0, 23, 0)),
    "llama3_json": Lookup(("<|python_tag|>",), (0, 20, 0)),
    "llama4_json": Lookup(("<|python_tag|>",), (0, 20, 0)),
    "lfm2": Lookup(("<|tool_call_start|>", "<|tool_call_end|>"), (0, 21, 0)),
}

# The marks by which a template shows the format that its model was taught, and the parsers that read it, the usual one
# first (headings of vLLM's page on tool calling, 0.32, and the patterns in the parsers). The first that fits counts.
MARKS: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = (
    (("<minimax:tool_call>",), ("minimax_m2",)),
    (("<seed:tool_call>",), ("seed_oss",)),
    (("<longcat_tool_call>",), ("longcat",)),
    (("<|tool_calls_section_begin|>",), ("kimi_k2",)),
    (("<|tool_call_start|>",), ("lfm2",)),
    (("<|action_start|>", "<|plugin|>"), ("internlm",)),
    (("<start_function_call>",), ("functiongemma",)),
    (("<｜tool▁calls▁begin｜>", "```json"), ("deepseek_v3",)),
    (("<｜tool▁calls▁begin｜>",), ("deepseek_v31",)),
    (("<arg_key>", "<arg_value>"), ("glm45", "glm47")),
    (("<function=", "<parameter="), ("qwen3_coder", "qwen3_xml", "step3p5", "mimo")),
    (("[TOOL_CALLS]",), ("mistral",)),
    (("<|python_tag|>", "Environment: ipython"), ("llama3_json", "llama4_json", "pythonic", "llama4_pythonic")),
    (("<tool_call>", '"name"', '"arguments"'), ("hermes", "qwen3_json", "granite4", "hunyuan_a13b")),
)

# Parsers whose format is among those above: only these can be told to be wrong.
FORMATS = frozenset(name for _, names in MARKS for name in names) | {"jamba", "phi4_mini_json", "openai"}

FIRST_RELEASES: Mapping[str, Release] = {
    "hermes": (0, 6, 3),
    "mistral": (0, 6, 3),
    "llama3_json": (0, 6, 3),
    "internlm": (0, 6, 3),
    "deepseek_v3": (0, 9, 0),
    "kimi_k2": (0, 10, 0),
    "qwen3_coder": (0, 10, 0),
    "glm45": (0, 10, 1),
    "deepseek_v31": (0, 10, 2),
    "seed_oss": (0, 10, 2),
    "longcat": (0, 11, 0),
    "minimax_m2": (0, 11, 1),
    "functiongemma": (0, 14, 0),
    "lfm2": (0, 21, 0),
}


def required_tokens(parser: str, release: Release | None) -> tuple[str, ...]:
    """The tokens without which this release's parser refuses to start; none for one that looks for no tokens."""
    lookup = LOOKUPS.get(parser)
    if lookup is None:
        return ()
    newest_only = release is None and lookup.last != NEWEST
    if newest_only or (release is not None and not lookup.first <= release <= lookup.last):
        return ()
    return lookup.tokens


def writes(template: str) -> tuple[str, ...]:
    """The parsers that read the format which a chat template shows, the usual one first; none where it shows none."""
    for marks, parsers in MARKS:
        if all(mark in template for mark in marks):
            return parsers
    return ()


def exists(parser: str, release: Release) -> bool:
    """Whether a parser of MARKS may be proposed for that release."""
    first = FIRST_RELEASES.get(parser)
    return first is not None and first <= release
