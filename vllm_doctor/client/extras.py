"""The steps that are asked for: the context that the client wants, structured output, and an image."""

import msgspec

from vllm_doctor.client.chatting import ask, message_of
from vllm_doctor.client.explaining import explain
from vllm_doctor.client.visit import Broken, Skipped, Visit, client_fix, text_of
from vllm_doctor.finding import Finding, Fix, LaunchEdit, error, warning

# One red pixel.
PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwAD"
    "hgGAWjR9awAAAABJRU5ErkJggg=="
)

SCHEMA = {
    "type": "object",
    "properties": {"ok": {"type": "boolean"}},
    "required": ["ok"],
    "additionalProperties": False,
}


def context(visit: Visit) -> str:
    """What the client asks (--context, --max-tokens) against the server's max_model_len; nothing is sent."""
    limit = visit.chosen.max_model_len if visit.chosen is not None else None
    wanted, answer = visit.options.context_tokens, visit.options.max_tokens
    if limit is None:
        raise Skipped("the server does not say its max_model_len")
    if wanted is None and answer is None:
        return f"max_model_len {limit}: prompt and answer together (--context and --max-tokens compare the client's)"
    needed = max(wanted or 0, (answer or 0) + 1)
    if needed > limit:
        raise Broken(_too_long(limit, wanted, answer))
    return f"max_model_len {limit} is enough for {needed}"


def _too_long(limit: int, wanted: int | None, answer: int | None) -> Finding:
    asked = [f"--context {wanted}"] if wanted is not None else []
    asked += [f"--max-tokens {answer}"] if answer is not None else []
    settings = {"Context": str(limit)} if wanted is not None and wanted > limit else {}
    if answer is not None and answer >= limit:
        settings["Max tokens"] = str(limit // 2)
    needed = max(wanted or 0, (answer or 0) + 1)
    edit = LaunchEdit(set={"--max-model-len": str(needed)})
    fixes = (
        client_fix("Let the client ask for less", settings),
        Fix(title="Or serve a longer context, if model and memory allow it (`vllm-doctor plan` says)", launch=edit),
    )
    title = f"The client asks for more than the server's context of {limit} tokens"
    evidence = (f"the client: {', '.join(asked)}", f"/models: max_model_len {limit}")
    return error("context-exceeded", title, evidence=evidence, fixes=fixes)


def structured(visit: Visit) -> str:
    """`response_format` with a JSON schema: the answer must keep to it."""
    if not visit.options.structured:
        raise Skipped("not asked for (--structured)")
    form = {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA}}
    body = {
        "messages": [{"role": "user", "content": 'Answer with the JSON {"ok": true}.'}],
        "response_format": form,
        "max_tokens": 32,
        "temperature": 0,
    }
    reply = ask(visit, body)
    if reply.status != 200:
        raise Broken(explain(visit, reply, {"model": visit.model, **body}))
    content = text_of((message_of(reply) or {}).get("content"))
    try:
        kept = isinstance(msgspec.json.decode(content), dict)
    except (msgspec.MsgspecError, RecursionError):
        kept = False
    if kept:
        return f"answered {content[:60]}"
    fix = Fix(
        title="See the server's log for its structured outputs backend; models that think need --reasoning-parser"
    )
    title = "The answer does not keep to the JSON schema that was asked for"
    raise Broken(warning("bad-request", title, evidence=(reply.said,), fixes=(fix,)))


def image(visit: Visit) -> str:
    """An image of one pixel, as clients send pictures."""
    if not visit.options.image:
        raise Skipped("not asked for (--image)")
    parts = [{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": PIXEL}}]
    body = {"messages": [{"role": "user", "content": parts}], "max_tokens": 4, "temperature": 0}
    reply = ask(visit, body)
    if reply.status != 200:
        raise Broken(explain(visit, reply, {"model": visit.model, **body}))
    return "an image is taken"
