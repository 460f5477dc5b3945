"""What the canary is constructed to do, in a few lines: repeat what stood after the last four tokens before."""

import json
import re
from collections.abc import Sequence
from functools import cache
from typing import Any

import jinja2

from vllm_doctor.trial import canary

BACK = 4
MOST_TOKENS = 400


@cache
def _settings() -> dict[str, Any]:
    found = json.loads((canary.folder() / "tokenizer_config.json").read_text())
    assert isinstance(found, dict)
    return found


@cache
def added() -> tuple[str, ...]:
    """The tokens that are more than one byte."""
    tokenizer = json.loads((canary.folder() / "tokenizer.json").read_text())
    return tuple(token["content"] for token in tokenizer["added_tokens"])


def prompt(messages: Sequence[dict[str, Any]], tools: Sequence[dict[str, Any]] | None = None) -> str:
    """The prompt, as vLLM renders a chat (transformers/utils/chat_template_utils.py: these settings, this tojson)."""
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True, autoescape=False)
    environment.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False)
    template = environment.from_string(_settings()["chat_template"])
    return template.render(messages=list(messages), tools=tools and list(tools), add_generation_prompt=True)


def tokens(text: str) -> list[str | int]:
    """The text as added tokens and single bytes."""
    parts = re.split(f"({'|'.join(map(re.escape, added()))})", text)
    found: list[str | int] = []
    for part in parts:
        found += [part] if part in added() else part.encode()
    return found


def answer(text: str) -> str | None:
    """What the canary writes after this prompt; None where four tokens stand before different ones."""
    known = tokens(text)
    said: list[str | int] = []
    while len(said) < MOST_TOKENS:
        following = {known[i] for i in range(BACK, len(known)) if known[i - BACK : i] == known[-BACK:]}
        if len(following) != 1:
            return None
        token = following.pop()
        if token == "<|im_end|>":
            return b"".join(t.encode() if isinstance(t, str) else bytes([t]) for t in said).decode()
        said.append(token)
        known.append(token)
    return None
