"""A client's own request, sent as it is: what the answer means, by field, and the smallest change that is accepted."""

from typing import Any
from urllib.parse import urlsplit

import msgspec
from msgspec import structs

from vllm_doctor import redact
from vllm_doctor.client import calling, chatting, finding_paths, identify, naming, reaching
from vllm_doctor.client.explaining import explain
from vllm_doctor.client.mending import Mended, Mender
from vllm_doctor.client.names import served
from vllm_doctor.client.replies import Reply
from vllm_doctor.client.request_file import Request
from vllm_doctor.client.visit import Broken, Options, Progress, Visit, client_fix, silent, text_of, walk_steps
from vllm_doctor.client.walk import Connection, connection
from vllm_doctor.finding import Finding, Fix

REACHING = (
    ("name", reaching.name),
    ("port", reaching.port),
    ("tls", reaching.tls),
    ("http", reaching.http),
)

# An event stream is accepted as soon as its first event is there; the server stops when the connection is closed.
FIRST_EVENT = b"\n\n"


class Replay:
    """Sends the request of one client and keeps what came of it."""

    def __init__(self, visit: Visit, request: Request) -> None:
        self.visit = visit
        self.request = request
        self._mended: Mended | None = None
        self._first: Reply | None = None

    def send(self, request: Request, *, whole: bool) -> Reply:
        """One sending; not `whole`: as a stream that is hung up on at its first event, so that it costs little."""
        body, stop = request.body, None
        if not whole and request.method == "POST" and not self._path(request).endswith("/embeddings"):
            body, stop = _streamed(request)
        headers = dict(request.headers)
        names = {name.lower() for name in headers}
        if "authorization" not in names and "x-api-key" not in names and "api-key" not in names:
            headers = self.visit.session.headers() | headers
        if body and "content-type" not in names:
            headers["Content-Type"] = "application/json"
        return self.visit.session.send(request.method, self._url(request), body or None, headers, stop_at=stop)

    def _path(self, request: Request) -> str:
        if request.path is not None:
            return request.path
        return f"{urlsplit(self.visit.base).path.rstrip('/')}{request.operation}"

    def _url(self, request: Request) -> str:
        parts = urlsplit(self.visit.base)
        return f"{parts.scheme}://{parts.netloc}{self._path(request)}"

    def learn(self, visit: Visit) -> str:
        """What the server serves, for the explanations; nothing of it decides."""
        key = next((v for n, v in self.request.headers.items() if n.lower() == "authorization"), "")
        headers = visit.session.headers() | ({"Authorization": key} if key else {})
        reply = visit.session.send("GET", f"{visit.root}/v1/models", None, headers)
        visit.served = (served(reply) if reply.ok else None) or ()
        visit.paths = naming.paths(visit)
        asked = (self.request.json() or {}).get("model")
        visit.chosen = next((m for m in visit.served if m.name == asked), None) or next(iter(visit.served), None)
        version = visit.session.get(f"{visit.root}/version", key=False)
        visit.version = redact.line(text_of(version.object().get("version")), 60) or None if version.ok else None
        visit.kind = identify.from_owner(visit.served[0].owner if visit.served else None) or identify.from_headers(
            reply
        )
        names = ", ".join(model.shown for model in visit.served[:10])
        return f"serves {names}" if names else f"GET /v1/models: {reply.status or reply.problem}"

    def replay(self, visit: Visit) -> str:
        """Send the request as it is, and judge the answer."""
        reply = self._first = self.send(self.request, whole=True)
        if reply.status is None:
            raise Broken(finding_paths.lost(visit, reply))
        if reply.status == 200:
            found = self._answered(visit, reply)
            if found is not None:
                raise Broken(found)
            return f"{reply.method} {self._path(self.request)}: 200 in {reply.seconds:.2f} s"
        body = self.request.json()
        found = explain(visit, reply, body or {})
        if body is None and self.request.method == "POST":
            found = _malformed(found, self.request.body)
        raise Broken(self._with_proof(visit, found, reply))

    def _with_proof(self, visit: Visit, found: Finding, reply: Reply) -> Finding:
        """The finding with the smallest accepted change, and the proof that it is."""
        if found.cause == "engine-dead":
            return found
        mender = Mender(visit, lambda request: self.send(request, whole=False))
        self._mended = mended = mender.mend(self.request, reply)
        if mended is None:
            seen = f"{mender.attempts} changes were tried; none was accepted"
            return structs.replace(found, evidence=(*found.evidence, seen)) if mender.attempts else found
        what = "; ".join(change.what for change in mended.changes)
        settings: dict[str, str] = {}
        for change in mended.changes:
            settings |= change.settings
        title = f"The smallest change that the server accepts: {what}"
        fix = client_fix(title, settings) if settings else Fix(title=title)
        proof = f"sent again with this change ({what}): {mended.reply.status}"
        return structs.replace(found, evidence=(*found.evidence, proof), fixes=(fix, *found.fixes))

    def _answered(self, visit: Visit, reply: Reply) -> Finding | None:
        """What is wrong in a 200: a broken stream, or tools that were sent and calls that did not come back."""
        body = self.request.json() or {}
        if reply.cut is not None:
            return finding_paths.lost(
                visit, structs.replace(reply, failure="timeout" if "time" in reply.cut else "closed")
            )
        plain = reply
        if body.get("stream") is True:
            read = chatting.events(reply.body)
            broken = next((chunk for chunk in read.chunks if "error" in chunk), None)
            if read.problem is not None or broken is not None:
                return chatting.broken_stream(visit, reply, read, broken)
            plain = assembled(reply, read)
        if not body.get("tools") or body.get("tool_choice", "auto") != "auto":
            return None
        if (chatting.message_of(plain) or {}).get("tool_calls"):
            return None
        return calling.judge(visit, plain, body)


def assembled(reply: Reply, read: chatting.Events) -> Reply:
    """The stream as the one answer that it would have been: text and calls joined."""
    content, calls, reason, usage = "", False, None, None
    for chunk in read.chunks:
        usage = chunk.get("usage") or usage
        choices = chunk.get("choices")
        first = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}
        given = first.get("delta")
        delta = given if isinstance(given, dict) else {}
        content += text_of(delta.get("content"))
        calls = calls or bool(delta.get("tool_calls"))
        reason = first.get("finish_reason") or reason
    message: dict[str, Any] = {"content": content, "tool_calls": [{}] if calls else []}
    answer = {"choices": [{"message": message, "finish_reason": reason}], "usage": usage}
    return structs.replace(reply, body=msgspec.json.encode(answer))


def _streamed(request: Request) -> tuple[bytes, bytes | None]:
    body = request.json()
    if body is None or not ("messages" in body or "prompt" in body):
        return request.body, None
    return msgspec.json.encode(body | {"stream": True}), FIRST_EVENT


def _malformed(found: Finding, content: bytes) -> Finding:
    """Where the body stops being JSON, as a client's author can find it."""
    import json

    try:
        json.loads(content.decode("utf-8"))
    except UnicodeDecodeError as problem:
        place = f"the body is not UTF-8: byte {problem.start}"
    except json.JSONDecodeError as problem:
        place = f"the body is not JSON: {problem.msg}, line {problem.lineno} column {problem.colno}"
    except RecursionError:
        place = "the body is nested too deeply"
    else:
        place = "the body is JSON, but no object"
    return structs.replace(found, title=f"{place[0].upper()}{place[1:]}", evidence=(*found.evidence, place))


def replay(url: str, request: Request, options: Options, progress: Progress = silent) -> Connection:
    """Replay a request against one URL; raises UrlError for a URL that is none."""
    visit = Visit(url, options, progress)
    sent = Replay(visit, request)
    steps = (*REACHING, ("models", sent.learn), ("request", sent.replay))
    try:
        walk_steps(visit, steps)
    finally:
        visit.session.close()
    return connection(visit)
