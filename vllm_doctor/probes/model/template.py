"""Reads the chat template and what it does with tools and system messages; Jinja parses it and never runs it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vllm_doctor.facts import ChatTemplate, Unknown
from vllm_doctor.probes.model.reading import Unreadable, read_bytes, read_object

# The longest template of a known model is about 20 kB.
MAXIMUM_BYTES = 2**20
MAXIMUM_TEXT = 100_000


def read_template(
    folder: Path, names: frozenset[str], tokenizer_config: Mapping[str, Any]
) -> ChatTemplate | Unknown | None:
    """The template that the model brings; None where it brings none.

    The order is that of vLLM 0.32 (renderers/hf.py `resolve_chat_template`): the processor's, the tokenizer's; of the
    tokenizer's, transformers 5.19 takes chat_template.jinja before tokenizer_config.json.
    """
    if "chat_template.jinja" in names:
        return of_file(folder / "chat_template.jinja", "chat_template.jinja")
    if "chat_template.json" in names:
        return _of_json(folder / "chat_template.json")
    found = of_value(tokenizer_config.get("chat_template"), "tokenizer_config.json")
    if found is None and "tekken.json" in names:
        return Unknown("a Mistral tokenizer (tekken.json) brings its template in code")
    return found


def of_file(path: Path, source: str) -> ChatTemplate | Unknown:
    """The template of a Jinja file; Unknown where it cannot be read."""
    try:
        text = read_bytes(path, MAXIMUM_BYTES).decode("utf-8")
    except Unreadable as unreadable:
        return Unknown(f"{source}: {unreadable.problem.detail}")
    except UnicodeDecodeError:
        return Unknown(f"{source}: no UTF-8 text")
    return described(text, source)


def _of_json(path: Path) -> ChatTemplate | Unknown | None:
    try:
        return of_value(read_object(path, MAXIMUM_BYTES).get("chat_template"), path.name)
    except Unreadable as unreadable:
        return Unknown(f"{path.name}: {unreadable.problem.detail}")


def of_value(value: Any, source: str) -> ChatTemplate | Unknown | None:
    """The template of a JSON value: a text, or a list of named ones (vLLM takes `tool_use` when there are tools)."""
    if _length(value) > MAXIMUM_BYTES:
        return Unknown(f"{source}: a template of more than {MAXIMUM_BYTES // 2**20} MiB")
    if isinstance(value, str):
        return described(value, source) if value.strip() else None
    if not isinstance(value, list):
        return None
    named = {t["name"]: t["template"] for t in value if _is_named(t)}
    if not named:
        return None
    main = named.get("default") or next(iter(named.values()))
    facts = described(main, f"{source} ({', '.join(sorted(named))})")
    tools = facts.uses_tools or any(described(t, source).uses_tools for t in named.values())
    return ChatTemplate(
        source=facts.source, uses_tools=tools, uses_system=facts.uses_system, error=facts.error, text=facts.text
    )


def _length(value: Any) -> int:
    if isinstance(value, str):
        return len(value)
    return sum(len(t["template"]) for t in value if _is_named(t)) if isinstance(value, list) else 0


def _is_named(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("name"), str) and isinstance(value.get("template"), str)


def described(text: str, source: str) -> ChatTemplate:
    """What a template does, as its syntax tree shows."""
    from vllm_doctor.probes.model.syntax import parsed  # Jinja takes 40 ms to import: only where there is a template

    tree = parsed(text)
    return ChatTemplate(
        source=source,
        uses_tools=tree.uses_tools,
        uses_system=tree.uses_system,
        error=tree.error,
        text=text[:MAXIMUM_TEXT],
    )
