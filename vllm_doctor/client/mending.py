"""The smallest change of a refused request that the server accepts, found and proved by sending it."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec
from msgspec import Struct, structs

from vllm_doctor.client import repairs
from vllm_doctor.client.refusals import Refusal, refusal
from vllm_doctor.client.replies import Reply
from vllm_doctor.client.request_file import Request
from vllm_doctor.client.visit import Visit

MAXIMUM_ATTEMPTS = 60
MAXIMUM_ROUNDS = 4

Send = Callable[[Request], Reply]


class Change(Struct, frozen=True, kw_only=True):
    """One change: in words, the request after it, and what to enter in a client that has such a setting."""

    what: str
    request: Request
    settings: Mapping[str, str] = {}


class Mended(Struct, frozen=True, kw_only=True):
    """The changes that together were accepted, the request after them, and the answer that proves it."""

    changes: tuple[Change, ...]
    request: Request
    reply: Reply
    attempts: int


class _Spent(Exception):
    """The attempts are used up."""


class Mender:
    """Tries changes, the likeliest first; a change that moves the refusal on is built upon."""

    def __init__(self, visit: Visit, send: Send) -> None:
        self.visit = visit
        self.attempts = 0
        self._send = send

    def mend(self, request: Request, reply: Reply) -> Mended | None:
        """The accepted request nearest to this one; None where none was found."""
        done: tuple[Change, ...] = ()
        try:
            for _ in range(MAXIMUM_ROUNDS):
                found, progress = self._round(request, reply)
                if found is not None:
                    change, answer = found
                    return Mended(changes=(*done, change), request=change.request, reply=answer, attempts=self.attempts)
                if progress is None:
                    return None
                change, reply = progress
                done, request = (*done, change), change.request
        except _Spent:
            return None
        return None

    def try_out(self, request: Request) -> Reply:
        """Send one attempt; raises where there were too many."""
        self.attempts += 1
        if self.attempts > MAXIMUM_ATTEMPTS:
            raise _Spent
        return self._send(request)

    def accepts(self, request: Request) -> bool:
        """Whether the server takes it."""
        return accepted(self.try_out(request))

    def _round(self, request: Request, reply: Reply) -> tuple[tuple[Change, Reply] | None, tuple[Change, Reply] | None]:
        told = refusal(reply)
        progress: tuple[Change, Reply] | None = None
        for change in candidates(self, request, told):
            answer = self.try_out(change.request)
            if accepted(answer):
                return (change, answer), None
            if progress is None and answer.status is not None and _moved(told, refusal(answer)):
                progress = change, answer
        return None, progress


def _moved(old: Refusal, new: Refusal) -> bool:
    return (old.cause, old.fields) != (new.cause, new.fields) and new.cause not in (
        "auth",
        "endpoint-wrong",
        "engine-dead",
    )


def accepted(reply: Reply) -> bool:
    """Whether the answer is a 200 without an error in its first event."""
    return (
        reply.status == 200
        and b'data: {"error"' not in reply.body[:2000]
        and b'"object":"error"' not in reply.body[:200]
    )


def candidates(mender: Mender, request: Request, told: Refusal) -> Iterator[Change]:
    """The changes worth trying for that refusal, the smallest and likeliest first."""
    body = request.json()
    if told.cause in ("auth", "endpoint-wrong") or body is None:
        yield from repairs.envelope(mender.visit, request, told)
        return
    for what, mended, settings in repairs.of_cause(mender.visit, body, told):
        yield Change(what=what, request=with_body(request, mended), settings=settings)
    if told.cause == "context-exceeded":
        yield from _shortened(mender, request, body)
    if told.cause == "chat-template-missing" and "messages" in body:
        yield _as_completion(request, body)
    if told.cause == "bad-request":
        yield from _dropped(mender, request, body)


def with_body(request: Request, body: Mapping[str, Any]) -> Request:
    """The request with another body."""
    return structs.replace(request, body=msgspec.json.encode(body))


def _as_completion(request: Request, body: dict[str, Any]) -> Change:
    kept = {k: v for k, v in body.items() if k in ("model", "max_tokens", "temperature", "top_p", "stop", "stream")}
    asked = with_body(request, kept | {"prompt": repairs.joined(body["messages"])})
    # Without a path of its own the request goes where its fields say: `prompt` to /completions.
    path = None if request.path is None else request.path.replace("/chat/completions", "/completions")
    return Change(what="ask /completions with the plain text as `prompt`", request=structs.replace(asked, path=path))


def _dropped(mender: Mender, request: Request, body: dict[str, Any]) -> Iterator[Change]:
    """Without one optional field after the other; then without all that must go, none more."""
    optional = [name for name in body if name not in ("model", "messages", "prompt", "input", "stream")][:30]
    for name in optional:
        yield Change(
            what=f"leave out `{name}`", request=with_body(request, {k: v for k, v in body.items() if k != name})
        )
    plain = {k: v for k, v in body.items() if k not in optional}
    if len(optional) < 2 or not mender.accepts(with_body(request, plain)):
        return
    kept = dict(plain)
    for name in optional:
        if mender.accepts(with_body(request, kept | {name: body[name]})):
            kept[name] = body[name]
    gone = ", ".join(f"`{name}`" for name in optional if name not in kept)
    yield Change(what=f"leave out {gone}", request=with_body(request, kept))


def _shortened(mender: Mender, request: Request, body: dict[str, Any]) -> Iterator[Change]:
    """Without the oldest messages; then with the longest text cut to the longest that is accepted."""
    messages = body.get("messages")
    if isinstance(messages, list):
        head = [m for m in messages[:1] if isinstance(m, dict) and m.get("role") == "system"]
        rest = messages[len(head) :]
        for gone in (1, 2, 4, 8, 16, 32, len(rest) - 1):
            if 0 < gone < len(rest):
                kept = body | {"messages": head + rest[gone:]}
                yield Change(what=f"leave out the {gone} oldest messages", request=with_body(request, kept))
    text, put = repairs.longest_text(body)
    if len(text) < 2:
        return
    low, high = 0, len(text)
    for _ in range(8):
        middle = (low + high) // 2
        low, high = (middle, high) if mender.accepts(with_body(request, put(text[:middle]))) else (low, middle)
    if low:
        what = f"cut the longest text to {low} of its {len(text)} characters"
        yield Change(what=what, request=with_body(request, put(text[:low])))
