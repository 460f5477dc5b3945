"""The repairs of a request's body and envelope that a refusal suggests; none of them is sent here."""

import ast
import re
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec
from msgspec import structs

from vllm_doctor.client.names import nearest
from vllm_doctor.client.refusals import Refusal
from vllm_doctor.client.request_file import Request
from vllm_doctor.client.visit import Visit

if TYPE_CHECKING:
    from vllm_doctor.client.mending import Change

Body = dict[str, Any]
Repair = tuple[str, Body, Mapping[str, str]]

TOOL_FIELDS = ("tools", "tool_choice", "parallel_tool_calls", "functions", "function_call")
STRUCTURED_FIELDS = (
    "response_format", "structured_outputs", "guided_json", "guided_regex", "guided_choice", "guided_grammar",
)  # fmt: skip
MESSAGE_FIELDS = frozenset({"role", "content", "name", "tool_calls", "tool_call_id"})

EXAMPLE = [{"role": "user", "content": "Hello"}]

# A repair by evaluation is for bodies that people wrote; larger ones come from programs.
MAXIMUM_LITERAL_BYTES = 100_000


def of_cause(visit: Visit, body: Body, told: Refusal) -> Iterator[Repair]:
    """The repairs of the body for one cause, the likeliest first."""
    yield from _REPAIRS.get(told.cause, _bad_request)(visit, body, told)


def _without(body: Body, *names: str) -> Body:
    return {name: value for name, value in body.items() if name not in names}


def _name(visit: Visit, body: Body, told: Refusal) -> Iterator[Repair]:  # noqa: ARG001 - one signature for all
    guess = nearest(str(body.get("model", "")), visit.served)
    names = [guess.name] if guess is not None else []
    names += [model.name for model in visit.served if model.name not in names][:5]
    for name in names:
        yield f"`model`: {name!r}", body | {"model": name}, {"Model": name}


def _tools(visit: Visit, body: Body, told: Refusal) -> Iterator[Repair]:  # noqa: ARG001
    given = [name for name in TOOL_FIELDS if name in body]
    named = " and ".join(f"`{name}`" for name in given)
    yield f"leave out {named}", _without(body, *given), {"Tools": "off"}


def _roles(visit: Visit, body: Body, told: Refusal) -> Iterator[Repair]:  # noqa: ARG001
    messages = [m for m in body.get("messages", ()) if isinstance(m, dict)]
    merged = system_merged(messages)
    settings = {"System prompt": "(empty)"}
    if merged != messages:
        yield "put the system text into the first user message", body | {"messages": merged}, settings
    joined_turns = turns_merged(messages)
    if joined_turns != messages:
        yield "merge messages of one role that follow each other", body | {"messages": joined_turns}, {}
    both = turns_merged(merged)
    if both not in (merged, joined_turns):
        yield (
            "put the system text into the first user message, and merge messages of one role",
            body | {"messages": both},
            settings,
        )
    asked = [m for m in both if m.get("role") == "user"]
    if asked and both and both[0].get("role") != "user":
        first = both.index(asked[0])
        yield "begin with the first user message", body | {"messages": both[first:]}, {}


def system_merged(messages: list[Body]) -> list[Body]:
    """The messages with the text of system messages put before that of the first user message."""
    texts = [str(m.get("content") or "") for m in messages if m.get("role") in ("system", "developer")]
    rest = [m for m in messages if m.get("role") not in ("system", "developer")]
    place = next((n for n, m in enumerate(rest) if m.get("role") == "user" and isinstance(m.get("content"), str)), None)
    if not texts:
        return messages
    if place is None:
        return [{"role": "user", "content": "\n\n".join(texts)}, *rest]
    merged = "\n\n".join([*texts, str(rest[place]["content"])])
    return [*rest[:place], rest[place] | {"content": merged}, *rest[place + 1 :]]


def turns_merged(messages: list[Body]) -> list[Body]:
    """The messages with those of one role that follow each other made one."""
    found: list[Body] = []
    for message in messages:
        last = found[-1] if found else {}
        plain = isinstance(message.get("content"), str) and isinstance(last.get("content"), str)
        if plain and last.get("role") == message.get("role") and not last.get("tool_calls"):
            found[-1] = last | {"content": f"{last['content']}\n\n{message['content']}"}
        else:
            found.append(message)
    return found


def _context(visit: Visit, body: Body, told: Refusal) -> Iterator[Repair]:
    limit = max((m.max_model_len or 0 for m in visit.served), default=0)
    fields = [name for name in ("max_tokens", "max_completion_tokens", "min_tokens") if isinstance(body.get(name), int)]
    if not fields:
        return
    # What the message says of the prompt, then halves: the largest that is accepted is found from above.
    prompt = _prompt_tokens(told.message)
    sizes = [limit - prompt] if limit and prompt else []
    sizes += [limit - 1 >> shift for shift in range(6)] if limit else [512, 16]
    for size in dict.fromkeys(size for size in sizes if size > 0):
        lowered = {name: min(size, body[name]) for name in fields}
        if any(lowered[name] != body[name] for name in fields):
            yield (
                f"lower `{fields[0]}` from {body[fields[0]]} to {lowered[fields[0]]}",
                body | lowered,
                {"Max tokens": str(size)},
            )


_PROMPT = re.compile(r"(?:contains|has|passed)(?: at least)? (\d{1,9}) (?:input )?tokens|(\d{1,9}) in the messages")


def _prompt_tokens(message: str) -> int:
    match = _PROMPT.search(message)
    return int(match[1] or match[2]) if match else 0


def _image(visit: Visit, body: Body, told: Refusal) -> Iterator[Repair]:  # noqa: ARG001
    messages = []
    for message in body.get("messages", ()):
        content = message.get("content") if isinstance(message, dict) else None
        if isinstance(content, list):
            kept = [part for part in content if isinstance(part, dict) and part.get("type") == "text"]
            messages.append(message | {"content": kept or "(no text)"})
        else:
            messages.append(message)
    yield "leave out the image, audio or video parts", body | {"messages": messages}, {"Images": "off"}


def _bad_request(visit: Visit, body: Body, told: Refusal) -> Iterator[Repair]:  # noqa: ARG001
    text = told.message.lower()
    messages = body.get("messages")
    if "prompt" not in body and "input" not in body and not messages:
        yield "add `messages` with at least one message", body | {"messages": EXAMPLE}, {}
    if "grammar" in text or "schema" in text or "structured" in text:
        given = [name for name in STRUCTURED_FIELDS if name in body]
        if given:
            yield f"leave out `{given[0]}`", _without(body, *given), {}
    for path in told.fields:
        mended = dropped(body, path.split("."))
        if mended is not None:
            yield f"leave out `{path}`", mended, {}
    if isinstance(messages, list):
        plain = [{k: v for k, v in m.items() if k in MESSAGE_FIELDS} if isinstance(m, dict) else m for m in messages]
        if plain != messages:
            extra = sorted({k for m in messages if isinstance(m, dict) for k in m} - MESSAGE_FIELDS)
            named = ", ".join(f"`{name}`" for name in extra[:8])
            yield f"leave out {named} in the messages", body | {"messages": plain}, {}


def dropped(value: Any, path: list[str]) -> Any:
    """A copy without the member at that path; None where there is no such member (or it is a whole message list)."""
    head, rest = path[0], path[1:]
    if isinstance(value, dict) and head in value and head not in ("model", "messages", "prompt", "input"):
        return {k: v for k, v in value.items() if k != head} if not rest else _replaced(value, head, rest)
    if isinstance(value, dict) and head in value and rest:
        return _replaced(value, head, rest)
    if isinstance(value, list) and head.isdecimal() and len(head) < 6 and int(head) < len(value) and rest:
        inner = dropped(value[int(head)], rest)
        return None if inner is None else [*value[: int(head)], inner, *value[int(head) + 1 :]]
    return None


def _replaced(value: Body, head: str, rest: list[str]) -> Any:
    inner = dropped(value[head], rest)
    return None if inner is None else value | {head: inner}


_REPAIRS: dict[str, Callable[[Visit, Body, Refusal], Iterator[Repair]]] = {
    "model-name-mismatch": _name,
    "tools-not-enabled": _tools,
    "chat-roles": _roles,
    "context-exceeded": _context,
    "multimodal-unsupported": _image,
}


def joined(messages: Any) -> str:
    """The text of a conversation, one message a paragraph."""
    rows = messages if isinstance(messages, list) else []
    return "\n\n".join(str(m.get("content")) for m in rows if isinstance(m, dict) and isinstance(m.get("content"), str))


def longest_text(body: Body) -> tuple[str, Callable[[str], Body]]:
    """The longest text of the request, and a function that puts another in its place."""
    if isinstance(body.get("prompt"), str):
        return body["prompt"], lambda text: body | {"prompt": text}
    messages = body.get("messages")
    rows = messages if isinstance(messages, list) else []
    places = [n for n, m in enumerate(rows) if isinstance(m, dict) and isinstance(m.get("content"), str)]
    if not places:
        return "", lambda _: body
    place = max(places, key=lambda n: len(rows[n]["content"]))

    def put(text: str) -> Body:
        return body | {"messages": [*rows[:place], rows[place] | {"content": text}, *rows[place + 1 :]]}

    return rows[place]["content"], put


def envelope(visit: Visit, request: Request, told: Refusal) -> "Iterator[Change]":
    """Repairs of what is around the body: the key's scheme, the method, the path; and of a body that is no JSON."""
    from vllm_doctor.client.mending import Change

    if told.cause == "auth":
        yield from _keyed(visit, request)
        return
    if told.cause == "endpoint-wrong":
        yield from _addressed(visit, request)
        return
    for what, mended in _as_json(request.body):
        yield Change(what=what, request=structs.replace(request, body=mended))


def _keyed(visit: Visit, request: Request) -> "Iterator[Change]":
    from vllm_doctor.client.mending import Change

    name = next((each for each in request.headers if each.lower() == "authorization"), None)
    value = request.headers.get(name or "", "").strip()
    other = {k: v for k, v in request.headers.items() if k.lower() != "authorization"}
    if value and not value.lower().startswith("bearer "):
        headers = other | {"Authorization": f"Bearer {value.split(' ')[-1]}"}
        yield Change(
            what="write `Bearer ` before the key in the Authorization header",
            request=structs.replace(request, headers=headers),
        )
    foreign = next((k for k in other if k.lower() in ("api-key", "x-api-key")), None)
    if foreign is not None:
        headers = other | {"Authorization": f"Bearer {other[foreign].strip()}"}
        yield Change(
            what=f"send the key as `Authorization: Bearer`, not as {foreign}",
            request=structs.replace(request, headers=headers),
        )
    if visit.session.key:
        headers = other | {"Authorization": f"Bearer {visit.session.key}"}
        yield Change(
            what=f"send the key of {visit.options.key_variable}", request=structs.replace(request, headers=headers)
        )


def _addressed(visit: Visit, request: Request) -> "Iterator[Change]":
    from vllm_doctor.client.mending import Change

    body = request.json()
    content = (
        request.body
        if body is not None
        else msgspec.json.encode({"model": visit.model, "messages": EXAMPLE, "max_tokens": 8})
    )
    posted = structs.replace(
        request, method="POST", body=content, headers={"Content-Type": "application/json", **request.headers}
    )
    if request.method != "POST":
        yield Change(what="send it with POST and a JSON body", request=posted)
    tail = next(
        (t for t in ("/chat/completions", "/completions", "/embeddings") if request.operation.endswith(t)),
        "/chat/completions",
    )
    prefix = urlsplit(visit.root).path
    right = f"{prefix}/v1{tail}"
    asked = request.path or f"{urlsplit(visit.base).path.rstrip('/')}{request.operation}"
    if asked != right:
        settings = {"Base URL": f"{visit.root}/v1"}
        yield Change(what=f"ask the path {right}", request=structs.replace(posted, path=right), settings=settings)
    text = "" if body is None else str(body.get("prompt") or "") or joined(body.get("messages"))
    if text and "/v1/embeddings" in (visit.paths or ()):
        content = msgspec.json.encode({"model": (body or {}).get("model", visit.model), "input": text})
        what = "ask /v1/embeddings with the text as `input`: this server has no chat and no completions"
        yield Change(what=what, request=structs.replace(posted, path=f"{prefix}/v1/embeddings", body=content))


def _as_json(content: bytes) -> Iterator[tuple[str, bytes]]:
    """Bodies that are nearly JSON: Python's notation, commas before a closing bracket, brackets not closed."""
    if len(content) > MAXIMUM_LITERAL_BYTES:
        return
    text = content.decode("utf-8-sig", "replace").strip()
    try:
        value = ast.literal_eval(text)
        yield "write it as JSON: double quotes, true, false, null", msgspec.json.encode(value)
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError, msgspec.MsgspecError):
        pass
    without = re.sub(r",(\s{0,100}[}\]])", r"\1", text)
    closed = without + _closers(without)
    for what, mended in (("take out the comma before the closing bracket", without), ("close the brackets", closed)):
        if mended != text:
            yield what, mended.encode()


def _closers(text: str) -> str:
    """The brackets that are open at the end."""
    stack: list[str] = []
    quoted = escaped = False
    for character in text:
        if escaped:
            escaped = False
        elif character == "\\":
            escaped = quoted
        elif character == '"':
            quoted = not quoted
        elif not quoted and character in "{[":
            stack.append("}" if character == "{" else "]")
        elif not quoted and character in "}]" and stack:
            stack.pop()
    return ('"' if quoted else "") + "".join(reversed(stack))
