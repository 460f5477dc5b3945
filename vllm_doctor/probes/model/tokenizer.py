"""Reads what a tokenizer is made of: which files are there, what is wrong with them, which marker tokens it has."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from vllm_doctor.facts import ModelProblem, Unknown
from vllm_doctor.probes.model.reading import Unreadable, read_bytes, read_ends, read_head, read_object

T = TypeVar("T")

MAXIMUM_CONFIG_BYTES = 16 * 2**20
# tokenizer.json of the largest vocabularies (262,144 entries) takes 33 MB.
MAXIMUM_TOKENIZER_BYTES = 64 * 2**20
# The added tokens stand at the beginning of tokenizer.json: tokenizers writes them before the model.
HEAD_BYTES = 2 * 2**20

# Any of these is enough for a tokenizer: what the slow and fast tokenizers of transformers 5.19 name in
# `vocab_files_names`, and Mistral's own (mistral-common 1.8).
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "tekken.json",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tiktoken.model",
    "qwen.tiktoken",
    "tokenizer.tiktoken",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
)
# Those that say how to treat a vocabulary and are none themselves.
NO_VOCABULARY = frozenset({"tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"})

# ruff: noqa: RUF001 - DeepSeek's tokens have full-width bars
# Tokens that the tool and reasoning parsers of vLLM 0.32 look up in the vocabulary (vllm/tool_parsers, vllm/reasoning).
MARKERS = frozenset(
    {
        "<tool_call>", "</tool_call>", "<tool_calls>", "</tool_calls>", "<tool_response>", "[TOOL_CALLS]", "[ARGS]",
        "[THINK]", "<|python_tag|>", "<|python_start|>", "<|python_end|>", "<｜tool▁calls▁begin｜>",
        "<｜tool▁calls▁end｜>", "<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>", "<｜tool▁sep｜>", "<|tool_call|>",
        "<|tool_call_start|>", "<|tool_call_end|>", "<|tool_calls_section_begin|>", "<|tool_calls_section_end|>",
        "<|tool_call_begin|>", "<|tool_call_argument_begin|>", "<|action_start|>", "<|action_end|>", "<|plugin|>",
        "<|tools_prefix|>", "<|tools_suffix|>", "<|tool_call>", "<tool_call|>", "<start_function_call>",
        "<end_function_call>", "<minimax:tool_call>", "</minimax:tool_call>", "<longcat_tool_call>",
        "<seed:tool_call>", "<seed:think>", "<function_calls>", "<dots_function_call>", "<arg_key>", "<arg_value>",
        "<think>", "</think>", "<response>", "</response>", "<|channel|>", "<|message|>", "<|start|>", "<|end|>",
        "<|call|>", "<|constrain|>", "<|START_ACTION|>", "<|END_ACTION|>", "<|START_THINKING|>", "<|END_THINKING|>",
        "<|START_RESPONSE|>", "<|im_start|>", "<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|start_header_id|>",
        "[INST]", "[/INST]", "<start_of_turn>", "<|turn>", "<|observation|>", "<|assistant|>", "<|user|>",
    }
)  # fmt: skip


class TokenizerFacts(msgspec.Struct):
    """The tokenizer's files, what is wrong with them, its config, and which of MARKERS it has."""

    files: tuple[str, ...]
    problems: tuple[ModelProblem, ...]
    config: dict[str, Any]
    markers: tuple[str, ...] | Unknown


def read_tokenizer(folder: Path, names: frozenset[str]) -> TokenizerFacts:
    """The tokenizer of a folder whose names are given; a broken file is a problem, never a failure."""
    files = tokenizer_files(names)
    problems: list[ModelProblem] = []
    config = _object(folder / "tokenizer_config.json", problems) if "tokenizer_config.json" in names else {}
    stubs = (_stub(folder / n) for n in files if n != "tokenizer_config.json")
    problems.extend(s for s in stubs if s is not None)
    markers: tuple[str, ...] | Unknown
    try:
        markers = tuple(sorted(MARKERS.intersection(_added_tokens(folder, names, config))))
    except Unreadable as unreadable:
        problem = unreadable.problem
        if problem.file not in {p.file for p in problems}:
            problems.append(problem)
        markers = Unknown(f"{problem.file}: {problem.detail}")
    return TokenizerFacts(files=files, problems=tuple(problems), config=config, markers=markers)


def tokenizer_files(names: Iterable[str]) -> tuple[str, ...]:
    """The names that belong to a tokenizer: the usual ones first, then any that reads like a vocabulary."""
    found = frozenset(names)
    other = sorted(n for n in found if n not in TOKENIZER_FILES and _is_vocabulary(n))
    return (*(n for n in TOKENIZER_FILES if n in found), *other[:16])


def _is_vocabulary(name: str) -> bool:
    return name.endswith((".tiktoken", ".bpe", ".spm", ".model")) or name.startswith(("vocab", "tokenizer", "merges"))


def _object(path: Path, problems: list[ModelProblem]) -> dict[str, Any]:
    try:
        return read_object(path, MAXIMUM_CONFIG_BYTES)
    except Unreadable as unreadable:
        problems.append(unreadable.problem)
        return {}


def _stub(path: Path) -> ModelProblem | None:
    """What is plainly wrong with a tokenizer file: gone, empty, or a git-lfs pointer."""
    try:
        head, tail = read_ends(path, 2048)
        if len(head) < 2048:
            read_bytes(path, 2048)
    except Unreadable as unreadable:
        return unreadable.problem
    if path.suffix != ".json":
        return None
    if not head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith((b"{", b"[")):
        return ModelProblem(kind="not-json", file=path.name, detail=f"begins with {head[:16]!r}")
    if not tail.rstrip().endswith((b"}", b"]")):
        return ModelProblem(
            kind="truncated", file=path.name, detail=f"ends with {tail[-16:]!r}: JSON ends with a brace"
        )
    return None


def _added_tokens(folder: Path, names: frozenset[str], config: dict[str, Any]) -> set[str]:
    """The tokens added to the vocabulary: out of tokenizer.json, tokenizer_config.json and tekken.json."""
    found = set(contents(config.get("added_tokens_decoder")))
    if "tokenizer.json" in names:
        found.update(_head_tokens(folder / "tokenizer.json"))
    if "tekken.json" in names and "tokenizer.json" not in names:
        found.update(_tekken_tokens(folder / "tekken.json"))
    return found


def contents(value: Any) -> Iterable[str]:
    """The `content` of each token in a list or a mapping of tokens."""
    members = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return (m["content"] for m in members if isinstance(m, dict) and isinstance(m.get("content"), str))


def _head_tokens(path: Path) -> Iterable[str]:
    """The list after `"added_tokens"`, without reading the vocabulary that follows it."""
    import json  # the standard one can decode a value that stands within a longer text

    text = read_head(path, HEAD_BYTES).decode("utf-8", "replace")
    start = text.find('"added_tokens"')
    opening = text.find("[", start)
    if start >= 0 and opening >= 0:
        try:
            return contents(json.JSONDecoder().raw_decode(text, opening)[0])
        except (ValueError, RecursionError):
            pass  # it goes on beyond the head, or the file is cut off: read the whole
    return contents(_decoded(path, _Tokenizer).added_tokens)


class _Tokenizer(msgspec.Struct):
    added_tokens: list[Any] = []


class _Tekken(msgspec.Struct):
    special_tokens: list[Any] | None = None


def _tekken_tokens(path: Path) -> Iterable[str]:
    tokens = _decoded(path, _Tekken).special_tokens or []
    return (t["token_str"] for t in tokens if isinstance(t, dict) and isinstance(t.get("token_str"), str))


def _decoded(path: Path, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(read_bytes(path, MAXIMUM_TOKENIZER_BYTES), type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as problem:
        raise Unreadable("not-json", path.name, str(problem)[:200]) from None
