"""The model's name: what the server serves, and the served name that a wrong one most likely means."""

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

from msgspec import Struct

from vllm_doctor import redact
from vllm_doctor.client.replies import Reply

MAXIMUM_MODELS = 200


class Served(Struct, frozen=True, kw_only=True):
    """One entry of /v1/models: the name that requests use; `root` is the model or adapter behind it.

    `parent` is the base model of a LoRA adapter, None for a base model.
    """

    name: str
    root: str | None = None
    parent: str | None = None
    max_model_len: int | None = None
    owner: str | None = None

    @property
    def shown(self) -> str:
        """The name, and what it stands for."""
        return f"{self.name} (LoRA of {self.parent})" if self.parent else self.name


def served(reply: Reply) -> tuple[Served, ...] | None:
    """The models that /v1/models lists; None where the answer is no such list."""
    rows = reply.object().get("data")
    if not isinstance(rows, list):
        return None
    found = [_served(row) for row in rows[:MAXIMUM_MODELS] if isinstance(row, dict) and isinstance(row.get("id"), str)]
    return tuple(found) if found or not rows else None


def _served(row: dict[str, Any]) -> Served:
    length = row.get("max_model_len")
    whole = isinstance(length, int) and not isinstance(length, bool) and 0 < length < 2**53
    return Served(
        name=redact.line(row["id"], 500),
        root=_text(row.get("root")),
        parent=_text(row.get("parent")),
        max_model_len=length if whole else None,
        owner=_text(row.get("owned_by")),
    )


def _text(value: Any) -> str | None:
    return redact.line(value, 500) if isinstance(value, str) and value else None


class Guess(Struct, frozen=True):
    """The served name that was most likely meant, and why."""

    name: str
    why: str


def nearest(asked: str, models: Sequence[Served]) -> Guess | None:
    """The served name that `asked` most likely means; None where none is near."""
    names = [model.name for model in models]
    lower = {name.lower(): name for name in reversed(names)}
    if asked.strip().lower() in lower:
        why = "the server compares letter by letter, and only upper and lower case (or blanks) differ"
        return Guess(lower[asked.strip().lower()], why)
    for model in models:
        if asked.rstrip("/") in ((model.root or "").rstrip("/"), model.name.rstrip("/")):
            return Guess(model.name, f"it is the server's name for {model.root or model.name}")
    tail = _tail(asked)
    for model in models:
        if tail and tail in (_tail(model.name), _tail(model.root or "")):
            return Guess(model.name, f"{_difference(asked, model.name)}")
    near = get_close_matches(asked.lower(), list(lower), n=1, cutoff=0.6)
    near = near or get_close_matches(tail, [_tail(name) for name in lower], n=1, cutoff=0.75)
    for name in names:
        if near and near[0] in (name.lower(), _tail(name)):
            return Guess(name, "it is the nearest in spelling")
    base = [model.name for model in models if model.parent is None]
    return Guess(base[0], "it is the only model that is served") if len(base) == 1 else None


def _tail(name: str) -> str:
    return name.rstrip("/").rsplit("/", 1)[-1].lower()


def _difference(asked: str, name: str) -> str:
    if "/" not in asked:
        return "the organisation or the folder before the name is missing"
    return "the same model under another organisation or folder" if "/" in name else "it is served under a plain name"
