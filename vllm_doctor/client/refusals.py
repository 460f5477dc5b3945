"""What a refusal means: status and text of an error answer -> one cause and the field that it is about."""

import re

import msgspec

from vllm_doctor.client.replies import Reply, complaint

# Texts of vLLM from 0.4.2 to 0.33 (`entrypoints/openai/*`, `entrypoints/serve/*`, `renderers/*`, `sampling_params.py`,
# `v1/engine/*`) and of the chat templates of models; all are looked for in lower case, the first that fits counts.
_TEXTS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("bad-request", ("empty conversation",)),
    ("tools-not-enabled", ("tool choice requires", "requires --tool-call-parser", "enable-auto-tool-choice")),
    ("model-name-mismatch", ("model not found", "model_not_found")),
    ("engine-dead", ("enginecore encountered", "enginedeaderror", "engine is dead", "engine loop", "background loop")),
    ("chat-roles", ("system role", "must alternate", "roles are supported", "role is not supported", "unknown role")),
    ("chat-roles", ("only user", "unexpected role", "should be alternat", "after the optional system")),
    ("chat-template-missing", ("chat template is no", "no chat template", "does not have a chat template")),
    ("chat-template-missing", ("chat_template is not set", "without a chat template", "encountered unknown tag")),
    ("chat-template-missing", ("jinja", "template error", "unexpected end of template", "expected token")),
    ("chat-template-missing", ("unexpected char", "is undefined")),
    ("context-exceeded", ("maximum context length", "max_model_len", "maximum model length", "max model len")),
    ("context-exceeded", ("context window", "max_tokens must be at most", "max_completion_tokens is too large")),
    ("context-exceeded", ("max_tokens is too large", "prompt is too long", "longer than the maximum")),
    ("bad-request", ("at most ",)),
    ("multimodal-unsupported", ("not a multimodal model", "does not support image", "does not support audio")),
    ("multimodal-unsupported", ("does not support multimodal", "multimodal is not", "unknown image model type")),
    ("endpoint-wrong", ("does not support the chat", "does not support chat completions")),
    ("endpoint-wrong", ("does not support completions", "does not support embeddings", "embeddings api")),
    ("lora-config", ("lora is not enabled", "lora adapter")),
)

_STATUSES = {
    401: "auth",
    403: "auth",
    405: "endpoint-wrong",
    408: "connection-timeout",
    429: "connection-timeout",
    502: "connection-timeout",
    503: "connection-refused",
    504: "connection-timeout",
}

_VALUE = re.compile(r"parameter=([A-Za-z_][\w.]{0,80})")
_LOCATION = re.compile(r"'loc': (?:'([^']{1,200})'|\(([^)]{1,200})\))")
_NAMED = re.compile(r"^([a-z_]{2,40}) (?:must|should|cannot|is not|has to)\b|^([a-z_]{2,40})=")


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """A refused request: its cause, the text, and the fields that the text is about (dotted, from the body)."""

    cause: str
    message: str
    fields: tuple[str, ...] = ()


def refusal(reply: Reply) -> Refusal:
    """The meaning of an answer that is no 200."""
    told = complaint(reply)
    return Refusal(cause=_cause(reply, told.message), message=told.message, fields=_fields(told.message, told.field))


def _cause(reply: Reply, message: str) -> str:
    status = reply.status or 0
    if status in (401, 403):
        return "auth"
    text = message.lower()
    if status in (400, 404, 422, 500, 501) or (status == 200 and text):
        if "does not exist" in text and "model" in text:
            return "model-name-mismatch"
        for cause, parts in _TEXTS:
            if any(part in text for part in parts):
                return cause
    if status == 404:
        return "endpoint-wrong"
    if status in _STATUSES:
        return _STATUSES[status]
    return "engine-dead" if status >= 500 else "bad-request"


def _fields(message: str, named: str | None) -> tuple[str, ...]:
    """The fields in question, as paths below the body: `temperature`, `messages.0.metadata`."""
    found = [named] if named else []
    found += [_place(match[1] or match[2]) for match in _LOCATION.finditer(message)]
    found += [match[1] for match in _VALUE.finditer(message)]
    if match := _NAMED.match(message):
        found.append(match[1] or match[2])
    plain = (name.removeprefix("body.") for name in found if name)
    return tuple(dict.fromkeys(_without_types(name) for name in plain))[:20]


def _place(text: str) -> str:
    """`'body', 'messages', 0, 'typed-dict', 'id'` (vLLM before 0.10) as a dotted path."""
    return ".".join(part.strip(" '\"") for part in text.split(",")) if "," in text else text


def _without_types(path: str) -> str:
    """The path without the names of unions and types that pydantic puts between (`ChatCompletionUserMessageParam`)."""
    kept = [p for p in path.split(".") if not (p[:1].isupper() or p in ("typed-dict", "str", "list", "int"))]
    return ".".join(p for p in kept if "[" not in p)
