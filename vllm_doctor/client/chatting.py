"""The steps of a plain chat, a system message, and a streamed chat."""

from typing import Any

import msgspec

from vllm_doctor import redact
from vllm_doctor.client.explaining import explain
from vllm_doctor.client.finding_paths import lost
from vllm_doctor.client.replies import Reply
from vllm_doctor.client.visit import Broken, Skipped, Visit
from vllm_doctor.finding import Finding, Fix, error, warning

GREETING = {"role": "user", "content": "Say hello."}

# Together with the one token of the system step, 17 of the 64 tokens that the default walk may cost.
CHAT_TOKENS = 8

MAXIMUM_EVENTS = 10_000


def chat_url(visit: Visit) -> str:
    """Where chats are posted."""
    return f"{visit.base.rstrip('/')}/chat/completions"


def ask(visit: Visit, body: dict[str, Any]) -> Reply:
    """POST a chat; raises Broken where the server went away."""
    reply = visit.session.post(chat_url(visit), {"model": visit.model, **body})
    if reply.status is None or (reply.cut is not None and reply.status == 200):
        raise Broken(lost(visit, reply))
    return reply


def chat(visit: Visit) -> str:
    """One short chat: 200, one choice with a message, and the usage."""
    body = {"messages": [GREETING], "max_tokens": CHAT_TOKENS, "temperature": 0}
    reply = ask(visit, body)
    if reply.status != 200:
        raise Broken(explain(visit, reply, {"model": visit.model, **body}))
    message = message_of(reply)
    if message is None:
        raise Broken(_not_a_chat(visit, reply))
    visit.plain_prompt_tokens = prompt_tokens(reply)
    said = message.get("content") or message.get("reasoning_content") or message.get("reasoning") or ""
    return f"answered {redact.line(str(said), 60)!r} in {reply.seconds:.2f} s"


def message_of(reply: Reply) -> dict[str, Any] | None:
    """The first choice's message; None where the answer has none."""
    choices = reply.object().get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    message = first.get("message") if isinstance(first, dict) else None
    return message if isinstance(message, dict) else None


def finish_reason(reply: Reply) -> str | None:
    """Why the first choice ended."""
    choices = reply.object().get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    reason = first.get("finish_reason") if isinstance(first, dict) else None
    return reason if isinstance(reason, str) else None


def prompt_tokens(reply: Reply) -> int | None:
    """usage.prompt_tokens, where it is a number."""
    usage = reply.object().get("usage")
    tokens = usage.get("prompt_tokens") if isinstance(usage, dict) else None
    return tokens if isinstance(tokens, int) and not isinstance(tokens, bool) else None


def _not_a_chat(visit: Visit, reply: Reply) -> Finding:
    fix = Fix(title="Check what stands between the client and vLLM: the answer is not vLLM's")
    title = f"{visit.shown_base} answers a chat with something else than a chat completion"
    return error("endpoint-wrong", title, evidence=(reply.said, f"content-type: {reply.type or 'none'}"), fixes=(fix,))


def system(visit: Visit) -> str:
    """A system message before the user's, as most clients send one."""
    told = {"role": "system", "content": "You are helpful."}
    body = {"messages": [told, GREETING], "max_tokens": 1, "temperature": 0}
    reply = ask(visit, body)
    if reply.status == 200:
        return "a system message is taken"
    found = explain(visit, reply, {"model": visit.model, **body})
    if found.cause == "chat-template-missing":
        raise Broken(found)
    merged = {"role": "user", "content": "You are helpful.\n\nSay hello."}
    proof = ask(visit, body | {"messages": [merged]})
    seen = (*found.evidence, f"the same text within the user message: {proof.status}")
    # Not an error: a client without a system prompt works.
    raise Broken(warning(found.cause, found.title, evidence=seen, fixes=found.fixes))


class Events(msgspec.Struct, frozen=True, kw_only=True):
    """A stream of server-sent events as read: the JSON of each, and what was wrong with it."""

    chunks: tuple[dict[str, Any], ...] = ()
    done: bool = False
    problem: str | None = None


def events(body: bytes) -> Events:
    """Read an event stream as the OpenAI clients do: lines `data: JSON`, the last one `data: [DONE]`."""
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as problem:
        return Events(problem=f"the stream is not UTF-8 (byte {problem.start})")
    chunks: list[dict[str, Any]] = []
    for line in text.split("\n")[: 4 * MAXIMUM_EVENTS]:
        if not line.startswith("data:"):
            continue
        data = line[5:].strip()
        if data == "[DONE]":
            return Events(chunks=tuple(chunks), done=True)
        try:
            chunk = msgspec.json.decode(data)
        except (msgspec.MsgspecError, RecursionError):
            return Events(chunks=tuple(chunks), problem=f"an event is not JSON: {redact.line(data, 120)}")
        if not isinstance(chunk, dict) or len(chunks) >= MAXIMUM_EVENTS:
            return Events(chunks=tuple(chunks), problem="an event is no object, or there are too many")
        chunks.append(chunk)
    return Events(chunks=tuple(chunks), problem="the stream ends without [DONE]")


def stream(visit: Visit) -> str:
    """The same chat as a stream: an event stream, one delta per event, usage where asked for, [DONE] at the end."""
    if not visit.options.stream:
        raise Skipped("--no-stream")
    body = {"messages": [GREETING], "max_tokens": CHAT_TOKENS, "temperature": 0}
    reply = _streamed(visit, body | {"stream": True, "stream_options": {"include_usage": True}})
    if reply.status is None:
        raise Broken(lost(visit, reply))
    if reply.status != 200:
        raise Broken(explain(visit, reply, {"model": visit.model, **body}))
    found = events(reply.body)
    broken = next((chunk for chunk in found.chunks if "error" in chunk), None)
    if reply.cut is not None or found.problem is not None or broken is not None:
        raise Broken(broken_stream(visit, reply, found, broken))
    usage = any(isinstance(chunk.get("usage"), dict) for chunk in found.chunks)
    return f"{len(found.chunks)} events, {'with' if usage else 'without'} usage, [DONE], in {reply.seconds:.2f} s"


def _streamed(visit: Visit, body: dict[str, Any]) -> Reply:
    headers = visit.session.headers() | {"Content-Type": "application/json", "Accept": "text/event-stream"}
    content = msgspec.json.encode({"model": visit.model, **body})
    return visit.session.send("POST", chat_url(visit), content, headers)


def broken_stream(visit: Visit, reply: Reply, found: Events, broken: dict[str, Any] | None) -> Finding:
    """The finding of a stream that cannot be read to its end: what broke it decides the cause."""
    head = f"POST {chat_url(visit)} with stream: {reply.status}, content-type {reply.type or 'none'}"
    seen = [f"{head}, {len(found.chunks)} events"]
    seen += [reason for reason in (reply.cut, found.problem) if reason]
    if broken is not None:
        seen.append(f"an event holds an error: {redact.line(str(broken.get('error')), 200)}")
    if reply.cut is not None and "broke off" in reply.cut:
        after = visit.session.get(f"{visit.root}/health", key=False)
        if after.status is None:
            return error(
                "engine-dead",
                "The server went away in the middle of a stream",
                evidence=(*seen, after.said),
                fixes=_LOG,
            )
    if broken is not None:
        return error("engine-dead", "The server ended the stream with an error", evidence=tuple(seen), fixes=_LOG)
    if reply.cut is not None and "time" in reply.cut:
        title = "The stream does not end in time"
        return error("connection-timeout", title, evidence=tuple(seen), fixes=_PROXY)
    title = "The stream is not what clients can read"
    return error("endpoint-wrong", title, evidence=tuple(seen), fixes=_PROXY)


_LOG = (Fix(title="Read the server's log from its first error on (`vllm-doctor explain LOG`)"),)
_PROXY = (
    Fix(title="See what stands between: a proxy must not buffer or rewrite the stream (nginx: proxy_buffering off)"),
    Fix(title="Or switch streaming off in the client", settings={"Stream": "off"}),
)
