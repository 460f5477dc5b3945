"""The steps of a tool call: auto (the real test of parser and template), then required and named."""

from typing import Any

import msgspec

from vllm_doctor import redact, tool_families
from vllm_doctor.client.chatting import ask, finish_reason, message_of, prompt_tokens
from vllm_doctor.client.explaining import explain, tool_flags
from vllm_doctor.client.replies import Reply
from vllm_doctor.client.visit import Broken, Skipped, Visit, text_of
from vllm_doctor.finding import Finding, Fix, LaunchEdit, error, info, warning

FUNCTION = "get_weather"
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": FUNCTION,
            "description": "Current weather of a city. The only way to know the weather.",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string", "description": "Name of the city"}},
                "required": ["city"],
            },
        },
    }
]
QUESTION = {"role": "user", "content": "What is the weather in Paris now? Use the tool."}

# A call takes 20 to 40 tokens with a usual tokenizer; models that think first need more. It ends when it is written.
CALL_TOKENS = 512


def auto(visit: Visit) -> str:
    """Tools with `tool_choice` auto: the answer must hold a call, not the text of one."""
    if not visit.options.tools:
        raise Skipped("tools were not asked for (--tools)")
    body = {"messages": [QUESTION], "tools": TOOLS, "tool_choice": "auto", "max_tokens": CALL_TOKENS, "temperature": 0}
    reply = ask(visit, _fitted(visit, body))
    if reply.status != 200:
        raise Broken(explain(visit, reply, {"model": visit.model, **body}))
    message = message_of(reply) or {}
    calls = message.get("tool_calls")
    if isinstance(calls, list) and calls:
        return _called(visit, calls)
    found = judge(visit, reply, body)
    if found is None:
        raise Skipped(_undecided(reply, message))
    raise Broken(found)


def _fitted(visit: Visit, body: dict[str, Any]) -> dict[str, Any]:
    limit = visit.chosen.max_model_len if visit.chosen is not None else None
    return body if limit is None else body | {"max_tokens": max(16, min(CALL_TOKENS, limit // 4))}


def _undecided(reply: Reply, message: dict[str, Any]) -> str:
    if finish_reason(reply) == "length":
        return f"not decided: the model wrote {CALL_TOKENS} tokens and no call, and was cut"
    return f"not decided: the model answered in words: {redact.line(text_of(message.get('content')), 120)!r}"


def _called(visit: Visit, calls: list[Any]) -> str:
    function = calls[0].get("function") if isinstance(calls[0], dict) else None
    name = text_of(function.get("name")) if isinstance(function, dict) else ""
    arguments = text_of(function.get("arguments")) if isinstance(function, dict) else ""
    try:
        readable = isinstance(msgspec.json.decode(arguments), dict)
    except (msgspec.MsgspecError, RecursionError):
        readable = False
    if name and readable:
        return f"called {redact.line(name, 60)}({redact.line(arguments, 120)})"
    evidence = (f"name {redact.line(name, 80)!r}, arguments {redact.line(arguments, 200)!r}",)
    title = "The tool call comes back broken: the parser does not fit this model"
    raise Broken(error("tool-parser-wrong", title, evidence=evidence, fixes=tool_flags(visit)))


def judge(visit: Visit, reply: Reply, body: dict[str, Any]) -> Finding | None:
    """What a 200 without calls means: the call is in the text, the tools never reached the prompt, or nothing sure."""
    message = message_of(reply) or {}
    content = text_of(message.get("content")) or text_of(message.get("reasoning_content"))
    parsers = _written(content, body)
    if parsers:
        return _in_content(visit, content, parsers)
    if not content and finish_reason(reply) == "tool_calls":
        title = "The answer says tool_calls and holds none: the parser lost the call"
        evidence = (reply.said,)
        return error("tool-parser-wrong", title, evidence=evidence, fixes=tool_flags(visit))
    return _ignored(visit, reply, body)


def _written(content: str, body: dict[str, Any]) -> tuple[str, ...]:
    for tool in body.get("tools", ())[:50]:
        function = tool.get("function") if isinstance(tool, dict) else None
        name = text_of(function.get("name")) if isinstance(function, dict) else ""
        if name and name in content and (found := tool_families.written(content, name)):
            return found
    return ()


def _in_content(visit: Visit, content: str, parsers: tuple[str, ...]) -> Finding:
    root = visit.chosen.root if visit.chosen is not None else None
    family = tool_families.family(root, visit.model)
    fitting = tuple(p for p in family.parsers if p in parsers) if family is not None else ()
    evidence = (
        f"200, tool_calls is empty, and the call stands in content: {redact.line(content, 200)!r}",
        f"this format is read by the parser {' or '.join(parsers)}",
    )
    title = (
        "The model calls the tool, but the call comes back as text: the server's tool parser does not read its format"
    )
    return error("tool-parser-wrong", title, evidence=evidence, fixes=tool_flags(visit, wanted=fitting or parsers))


def _ignored(visit: Visit, reply: Reply, body: dict[str, Any]) -> Finding | None:
    """A template that leaves the tools out: the prompt is as long with them as without."""
    with_tools = prompt_tokens(reply)
    plain = {k: v for k, v in body.items() if k not in ("tools", "tool_choice", "parallel_tool_calls")}
    other = ask(visit, plain | {"max_tokens": 1, "stream": False})
    without = prompt_tokens(other) if other.status == 200 else None
    if with_tools is None or without is None or with_tools != without:
        return None
    root = visit.chosen.root if visit.chosen is not None else None
    family = tool_families.family(root, visit.model)
    template = family.template if family is not None and family.template else "FILE.jinja"
    evidence = (
        f"usage.prompt_tokens is {with_tools} with tools and {without} without: the tools are not in the prompt",
        "200, and no call in the answer",
    )
    fixes = (
        Fix(
            title="Give the server a template that knows tools (vLLM's examples/ has some)",
            launch=LaunchEdit(set={"--chat-template": template}),
        ),
        Fix(title="Or serve a model that is taught tools"),
    )
    title = "The chat template leaves the tools out: the model never learns of them"
    return error("tool-parser-wrong", title, evidence=evidence, fixes=fixes)


def required(visit: Visit) -> str:
    """`tool_choice` required: forced by structured output, so it proves nothing of the parser."""
    return _forced(visit, "required")


def named(visit: Visit) -> str:
    """A named function as `tool_choice`: forced as well."""
    return _forced(visit, {"type": "function", "function": {"name": FUNCTION}})


def _forced(visit: Visit, choice: Any) -> str:
    if not visit.options.tools:
        raise Skipped("tools were not asked for (--tools)")
    body = {"messages": [QUESTION], "tools": TOOLS, "tool_choice": choice, "max_tokens": CALL_TOKENS, "temperature": 0}
    reply = ask(visit, _fitted(visit, body))
    label = choice if isinstance(choice, str) else FUNCTION
    if reply.status != 200:
        found = explain(visit, reply, {"model": visit.model, **body})
        # The usual client sends `auto`, which was passed: this is worth a warning.
        raise Broken(warning(found.cause, f"{label}: {found.title}", evidence=found.evidence, fixes=found.fixes))
    calls = (message_of(reply) or {}).get("tool_calls")
    if isinstance(calls, list) and calls:
        return _called(visit, calls)
    if finish_reason(reply) == "length":
        raise Skipped(f"not decided: the model was cut after {body['max_tokens']} tokens")
    evidence = (reply.said,)
    title = f"Tool_choice {label} is answered without a call"
    raise Broken(info("tool-parser-wrong", title, evidence=evidence))
