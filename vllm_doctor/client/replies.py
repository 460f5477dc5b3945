"""What a server answered: status, headers, a bounded body, and the error in it in whichever shape servers write it."""

from collections.abc import Mapping
from typing import Any

import msgspec

from vllm_doctor import redact

EXCERPT_CHARACTERS = 300

# Why the body of an answer was not read to its end: its sender let the time run out.
OVERDUE = "the answer did not end in time"


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """One answer; or, without a status, the kind of failure (refused, timeout, name, ...) and what was said.

    `cut` says why the body was not read to its end; `seconds` is the time from the request to the last byte read.
    """

    method: str
    url: str
    status: int | None = None
    headers: Mapping[str, str] = {}
    body: bytes = b""
    failure: str | None = None
    problem: str | None = None
    cut: str | None = None
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether the answer is a whole 200."""
        return self.status == 200 and self.cut is None

    @property
    def type(self) -> str:
        """The media type, without parameters."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    def json(self) -> Any:
        """The body as JSON; None where it is none (or too deep to be an answer)."""
        try:
            return msgspec.json.decode(self.body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None

    def object(self) -> dict[str, Any]:
        """The body as a JSON object; empty where it is none."""
        value = self.json()
        return value if isinstance(value, dict) else {}

    @property
    def excerpt(self) -> str:
        """The start of the body as one harmless line."""
        return redact.line(self.body[: 4 * EXCERPT_CHARACTERS].decode("utf-8", "replace"), EXCERPT_CHARACTERS)

    @property
    def said(self) -> str:
        """Status and excerpt, or what went wrong, as one line of evidence."""
        if self.status is None:
            return redact.line(f"{self.method} {self.url}: {self.problem}")
        cut = f" ({self.cut})" if self.cut else ""
        return redact.line(f"{self.method} {self.url}: {self.status}{cut} {self.excerpt or '(no body)'}", 500)


class Complaint(msgspec.Struct, frozen=True, kw_only=True):
    """The error that an answer carries: its text, its type and the field it names."""

    message: str
    type: str = ""
    field: str | None = None


def complaint(reply: Reply) -> Complaint:
    """The error of an answer.

    The shapes: `{"error": {"message", "type", "param"}}` (vLLM from 0.10, OpenAI), `{"object": "error", "message"}`
    (vLLM before), `{"error": "text"}` (vLLM's 401, Ollama, TGI), `{"detail": ...}` (FastAPI); else the excerpt.
    """
    document = reply.object()
    error = document.get("error")
    if isinstance(error, dict):
        return _complaint(error, reply)
    if isinstance(error, str):
        return Complaint(message=redact.line(error, 2000), type=_text(document.get("error_type")))
    if "message" in document:
        return _complaint(document, reply)
    detail = document.get("detail")
    if isinstance(detail, str):
        return Complaint(message=redact.line(detail, 2000), type="detail")
    if isinstance(detail, list) and detail and isinstance(detail[0], dict):
        place = ".".join(str(part) for part in detail[0].get("loc", ())[:20]) if _listed(detail[0]) else None
        return Complaint(message=redact.line(_text(detail[0].get("msg")), 2000), type="detail", field=place)
    return Complaint(message=reply.excerpt)


def _listed(detail: dict[str, Any]) -> bool:
    return isinstance(detail.get("loc"), list)


def _complaint(error: dict[str, Any], reply: Reply) -> Complaint:
    field = error.get("param")
    return Complaint(
        message=redact.line(_text(error.get("message")) or reply.excerpt, 2000),
        type=_text(error.get("type")),
        field=redact.line(field, 200) if isinstance(field, str) else None,
    )


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
