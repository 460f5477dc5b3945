"""A refused request as a finding: the cause, what was seen, the server's flags and the client's settings."""

from collections.abc import Callable, Mapping
from typing import Any

from vllm_doctor import redact, tool_families
from vllm_doctor.client.names import nearest
from vllm_doctor.client.refusals import Refusal, refusal
from vllm_doctor.client.replies import Reply
from vllm_doctor.client.visit import Visit, client_fix
from vllm_doctor.finding import Finding, Fix, LaunchEdit, error

Request = Mapping[str, Any]

# vLLM's own middleware asks for the scheme `Bearer` and compares the rest letter by letter
# (entrypoints/serve/middleware/authenticate.py, 0.32).
KEY_FIX = "Enter the key that the server was started with (its --api-key, or its variable VLLM_API_KEY)"


def explain(visit: Visit, reply: Reply, request: Request) -> Finding:
    """The finding of an answer that is no 200."""
    told = refusal(reply)
    evidence = (reply.said,)
    make = _MAKERS.get(told.cause, _bad_request)
    title, fixes = make(visit, told, request)
    return error(told.cause, title, evidence=evidence, fixes=fixes)


# Every maker of one takes the same three arguments, whether it needs them or not.
Explained = tuple[str, tuple[Fix, ...]]


def _name(visit: Visit, told: Refusal, request: Request) -> Explained:  # noqa: ARG001
    asked = redact.line(str(request.get("model", "")), 200)
    guess = nearest(asked, visit.served)
    listed = ", ".join(model.shown for model in visit.served[:10]) or "not known"
    if guess is None:
        fix = Fix(title=f"Enter one of the names that the server serves: {listed}")
        return f"The server does not serve a model called {asked!r}", (fix,)
    edit = LaunchEdit(set={"--served-model-name": f"{guess.name} {asked}"})
    fixes = (
        client_fix(f"Enter {guess.name}: {guess.why}", {"Model": guess.name}),
        Fix(title=f"Or let the server answer to this name as well (it serves: {listed})", launch=edit),
    )
    return f"The server does not serve a model called {asked!r}", fixes


def _tools(visit: Visit, told: Refusal, request: Request) -> Explained:  # noqa: ARG001
    title = "Tools were sent, but the server was not started for tool calls"
    off = client_fix("Or switch tools off in the client", {"Tools": "off"})
    return title, (*tool_flags(visit), off)


def tool_flags(visit: Visit, *, wanted: tuple[str, ...] = ()) -> tuple[Fix, ...]:
    """The server's flags for tool calls of this model in this release; `wanted` are parsers that fit what was seen."""
    root = visit.chosen.root if visit.chosen is not None else None
    name = visit.model
    found = tool_families.family(root, name)
    wanted = wanted or (tool_families.taught(root) if found is None else ())
    if found is None and not wanted:
        if tool_families.without_tools(root, name):
            return (Fix(title=f"Serve a model that is taught tools: {name} is of a family that is not"),)
        edit = LaunchEdit(set={"--enable-auto-tool-choice": None})
        title = "Start the server with --enable-auto-tool-choice and the --tool-call-parser of this model's family"
        return (Fix(title=title, launch=edit),)
    parsers = wanted or (found.parsers if found is not None else ())
    parser = next((each for each in parsers if tool_families.in_release(each, visit.version)), None)
    if parser is None:
        first = tool_families.first_release(parsers[0])
        title = f"Upgrade vLLM: the parser {parsers[0]} is there from {first} on, and this server is {visit.version}"
        return (Fix(title=title),)
    template = found.template if found is not None and parser in found.parsers else None
    family = f" ({found.name})" if found is not None and parser in found.parsers else ""
    fixes = [Fix(title=f"Start the server with these flags{family}", launch=tool_families.launch_edit(parser))]
    if template is not None:
        edit = tool_families.launch_edit(parser, template)
        fixes.append(Fix(title="If calls stay away: also with vLLM's own template for this family", launch=edit))
    return tuple(fixes)


def _template(visit: Visit, told: Refusal, request: Request) -> Explained:  # noqa: ARG001
    if "unknown tag" in told.message or "expected" in told.message or "template error" in told.message.lower():
        fix = Fix(
            title="Mend the file given with --chat-template, or drop the flag",
            launch=LaunchEdit(unset=("--chat-template",)),
        )
        return "The chat template of the server is broken", (fix,)
    fixes = (
        Fix(title="Serve the instruct or chat variant of this model"),
        Fix(title="Or name a template that fits the model", launch=LaunchEdit(set={"--chat-template": "FILE.jinja"})),
        Fix(title="Or ask /v1/completions, which needs no template"),
    )
    return "The served model has no chat template: it is most likely a base model", fixes


def _roles(visit: Visit, told: Refusal, request: Request) -> Explained:  # noqa: ARG001
    if "system" in told.message.lower() and "alternate" not in told.message.lower():
        settings = {"System prompt": "(empty)"}
        first = client_fix("Put the system text into the first user message: leave the system prompt empty", settings)
        title = "The model's chat template takes no system message"
    else:
        first = Fix(
            title="Merge messages of one role that follow each other; begin with user, then assistant, in turns"
        )
        title = "The model's chat template refuses the order of the roles"
    edit = LaunchEdit(set={"--chat-template": "FILE.jinja"})
    return title, (first, Fix(title="Or give the server a template that takes them", launch=edit))


def _context(visit: Visit, told: Refusal, request: Request) -> Explained:  # noqa: ARG001
    limit = visit.chosen.max_model_len if visit.chosen is not None else None
    known = f" of {limit} tokens" if limit else ""
    asked = request.get("max_tokens") or request.get("max_completion_tokens")
    fixes = []
    if isinstance(asked, int) and (limit is None or asked >= limit):
        fixes.append(client_fix("Ask for fewer tokens", {"Max tokens": str(max(1, (limit or 2048) // 2))}))
    else:
        fixes.append(Fix(title="Send less: a shorter prompt, fewer earlier messages, smaller documents"))
    fixes.append(
        Fix(
            title="Or serve a longer context, if model and memory allow it (`vllm-doctor plan` says)",
            launch=LaunchEdit(set={"--max-model-len": "N"}),
        )
    )
    return f"The request is longer than the server's context{known}", tuple(fixes)


def _image(visit: Visit, told: Refusal, request: Request) -> Explained:  # noqa: ARG001
    fixes = (
        client_fix("Send text only: switch images off", {"Images": "off"}),
        Fix(title="Or serve a model that sees (a vision-language model)"),
    )
    return f"{visit.model or 'The served model'} takes no images, audio or video", fixes


def _auth(visit: Visit, told: Refusal, request: Request) -> Explained:  # noqa: ARG001
    sent = visit.session.key is not None
    title = "The server refuses the API key" if sent else "The server asks for an API key, and none was sent"
    variable = visit.options.key_variable or "OPENAI_API_KEY"
    fixes = (
        client_fix(KEY_FIX, {"API Key": redact.MASK}),
        Fix(title=f"For this doctor: put the key into a variable and name it, --api-key-env {variable}"),
    )
    return title, fixes


def _endpoint(visit: Visit, told: Refusal, request: Request) -> Explained:  # noqa: ARG001
    if "method not allowed" in told.message.lower():
        return "The path is right and the method wrong", (Fix(title="Send it with POST"),)
    paths = sorted(path for path in visit.paths or () if path.startswith("/v1/") and "{" not in path)
    if "/v1/embeddings" in paths and "/v1/chat/completions" not in paths:
        fixes = (
            Fix(title="Ask this server for embeddings: POST /v1/embeddings"),
            Fix(
                title="For chat: serve a chat model (without --runner pooling, --convert, --task embed)",
                launch=LaunchEdit(unset=("--runner", "--convert")),
            ),
        )
        return f"{visit.model or 'The server'} is an embedding (pooling) server and does not chat", fixes
    if "/v1/chat/completions" in paths and "/v1/embeddings" not in paths:
        fix = Fix(title="For embeddings: start another server with an embedding model (--runner pooling)")
        return "This path is not served: the server is one for chat and completions", (fix,)
    listed = f"; it has {', '.join(paths[:8])}" if paths else ""
    fix = client_fix("Enter the base address, and let the client append the path", {"Base URL": f"{visit.root}/v1"})
    return f"The server does not have this path{listed}", (fix,)


def _dead(visit: Visit, told: Refusal, request: Request) -> Explained:  # noqa: ARG001
    fix = Fix(title="Read the server's log from its first error on (`vllm-doctor explain LOG`), and start it again")
    return "The server failed inside: its engine is dead or raised an error", (fix,)


def _busy(visit: Visit, told: Refusal, request: Request) -> Explained:  # noqa: ARG001
    fixes = (
        Fix(title="Raise the time limit of every proxy between (nginx: proxy_read_timeout), or stream the answer"),
        Fix(title="See how busy the server is: `vllm-doctor connect URL --watch 10`"),
    )
    return "A proxy gave up waiting, or the server takes no more requests", fixes


def _refused(visit: Visit, told: Refusal, request: Request) -> Explained:  # noqa: ARG001
    return "The server is not ready", (
        Fix(title="Wait until its model is loaded; see whether it runs behind the proxy"),
    )


def _lora(visit: Visit, told: Refusal, request: Request) -> Explained:  # noqa: ARG001
    edit = LaunchEdit(set={"--enable-lora": None, "--lora-modules": "NAME=PATH"})
    return "The server was not started for this LoRA adapter", (Fix(title="Start it with the adapter", launch=edit),)


def _bad_request(visit: Visit, told: Refusal, request: Request) -> Explained:  # noqa: ARG001
    named = [field for field in told.fields if field]
    if not named:
        return f"The server refuses the request: {redact.line(told.message, 160)}", (
            Fix(title="Correct what the message names; `connect --request FILE` finds the smallest accepted change"),
        )
    missing = "required" in told.message.lower() or "'missing'" in told.message
    title = f"The server refuses the field {named[0]}: {redact.line(told.message, 160)}"
    fix = f"Add the field {named[0]}" if missing else f"Leave {named[0]} out, or correct its value"
    return title, (Fix(title=fix),)


_MAKERS: dict[str, Callable[[Visit, Refusal, Request], Explained]] = {
    "model-name-mismatch": _name,
    "tools-not-enabled": _tools,
    "chat-template-missing": _template,
    "chat-roles": _roles,
    "context-exceeded": _context,
    "multimodal-unsupported": _image,
    "auth": _auth,
    "endpoint-wrong": _endpoint,
    "engine-dead": _dead,
    "connection-timeout": _busy,
    "connection-refused": _refused,
    "lora-config": _lora,
}
