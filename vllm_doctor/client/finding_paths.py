"""The step that finds what answers there and whether the base path is right: /v1 missing, doubled, or too long."""

from urllib.parse import urljoin, urlsplit

from vllm_doctor import redact
from vllm_doctor.client import identify
from vllm_doctor.client.names import served
from vllm_doctor.client.replies import OVERDUE, Reply
from vllm_doctor.client.visit import OPERATIONS, Broken, Visit, client_fix, text_of
from vllm_doctor.finding import Finding, Fix, error


def path(visit: Visit) -> str:
    """GET {base}/models must be the list of models (or ask for a key); else the right base is looked for."""
    base = visit.base.rstrip("/")
    reply = visit.session.get(f"{base}/models")
    if reply.status is None:
        raise Broken(lost(visit, reply))
    if 300 <= reply.status < 400:
        raise Broken(_redirected(visit, reply))
    if reply.cut == OVERDUE:
        # Each further question would take as long.
        raise Broken(_endless(visit, reply))
    _learn(visit, reply)
    pasted = next((ending for ending in OPERATIONS if base.endswith(ending)), None)
    if reply.status in (401, 403):
        return _guarded(visit, base, reply)
    if reply.ok and served(reply) is not None and not base.endswith("/v1/v1"):
        visit.served = served(reply) or ()
        return _right(visit, reply)
    raise Broken(_wrong(visit, base, reply, pasted))


def _right(visit: Visit, reply: Reply) -> str:
    kind = visit.kind
    if kind is not None and kind.other:
        raise Broken(_another(visit, kind, reply))
    version = f" {visit.version}" if visit.version else ""
    name = f"{kind.name}{version}" if kind is not None else "an OpenAI-compatible server"
    slash = "; the address ends in a slash: clients that join by hand then ask //chat/completions, which is 404"
    return f"{name} answers at {visit.shown_base}{slash if visit.base.endswith('/') else ''}"


def _guarded(visit: Visit, base: str, reply: Reply) -> str:
    """401 says nothing of the path below /v1 (the key is asked for first): only /v1 itself can be judged."""
    if urlsplit(base).path.count("/v1") > 1:
        raise Broken(_correction(visit, f"{visit.root}/v1", "the address has /v1 twice", reply.said, proof=None))
    return f"/models asks for a key ({reply.status})"


def _learn(visit: Visit, reply: Reply) -> None:
    """The kind of server, and vLLM's version, from the list of models, the headers and /version."""
    version = visit.session.get(f"{visit.root}/version", key=False)
    said = text_of(version.object().get("version")) if version.ok else ""
    visit.version = redact.line(said, 60) or None
    found = served(reply) if reply.ok else None
    owner = next((model.owner for model in found or () if model.owner), None)
    headers = identify.from_headers(reply)
    kind = identify.from_owner(owner)
    if headers is not None and headers.other:
        kind = headers
    if kind is None and visit.version:
        kind = identify.Kind("vLLM", f"/version says {visit.version}")
    visit.kind = kind or headers


def candidates(visit: Visit, base: str) -> tuple[tuple[str, str], ...]:
    """The bases that may have been meant, each with what would then be wrong."""
    parts = urlsplit(base)
    origin = f"{parts.scheme}://{parts.netloc}"
    root = visit.root
    rows = (
        (f"{root}/v1", _what(base, root)),
        (f"{origin}/v1", "The path before /v1 is not the server's"),
        (f"{root}/api/v1", "The API is below /api/v1 there"),
        (f"{root}/openai/v1", "The API is below /openai/v1 there"),
    )
    # Where there is no path before /v1, the first two are one: the first says what is wrong.
    return tuple({url: what for url, what in reversed(rows) if url != base}.items())[::-1]


def _what(base: str, root: str) -> str:
    if any(base.endswith(ending) for ending in OPERATIONS):
        return "The address goes on behind /v1: the client appends /chat/completions itself"
    if base.endswith("/v1/v1"):
        return "The address has /v1 twice"
    return "/v1 is missing at the end of the address" if base == root else "The path is not the server's"


def _wrong(visit: Visit, base: str, reply: Reply, pasted: str | None) -> Finding:
    for candidate, what in candidates(visit, base):
        answer = visit.session.get(f"{candidate}/models")
        if (answer.ok and served(answer) is not None) or answer.status in (401, 403):
            if pasted is None and reply.ok and served(reply) is not None:
                continue
            return _correction(visit, candidate, what, reply.said, f"GET {candidate}/models: {answer.status}")
    return _not_found(visit, reply)


def _correction(visit: Visit, right: str, what: str, seen: str, proof: str | None) -> Finding:
    evidence = (seen,) if proof is None else (seen, proof)
    fix = client_fix("Enter this address", {"Base URL": right})
    return error("endpoint-wrong", f"{what}: {visit.shown_base}", evidence=evidence, fixes=(fix,))


def _not_found(visit: Visit, reply: Reply) -> Finding:
    """No list of models anywhere: what is it then?"""
    root = visit.root
    version, front, info, sglang = (
        visit.session.get(f"{root}{place}", key=False, timeout_seconds=min(5.0, visit.options.timeout_seconds))
        for place in ("/version", "/", "/info", "/get_model_info")
    )
    kind = identify.from_answers(version, front, info, sglang)
    if kind is not None and kind.name == "vLLM":
        return _other_entry(visit, reply, kind)
    if kind is not None and kind.other:
        return _another(visit, kind, reply)
    if reply.cut is not None:
        return _endless(visit, reply)
    name = f" (it is {kind.name})" if kind is not None else ""
    evidence = (reply.said, *(() if kind is None else (kind.sign,)), *_content(reply))
    fixes = [Fix(title="Enter host and port of the vLLM server itself, as its log says: Starting vLLM server on ...")]
    if kind is not None and kind.gateway:
        fixes.append(Fix(title=f"Or make {kind.name} pass /v1/ on to the vLLM server (location /v1/ -> its port 8000)"))
    title = f"{visit.shown_base} is no OpenAI-compatible server{name}"
    return error("endpoint-wrong", title, evidence=evidence, fixes=tuple(fixes))


def _endless(visit: Visit, reply: Reply) -> Finding:
    fix = Fix(title="Check host and port: an OpenAI-compatible server answers /v1/models at once and in a few kB")
    title = f"{visit.shown_base} does not end its answer as an API does"
    return error("endpoint-wrong", title, evidence=(reply.said,), fixes=(fix,))


def _content(reply: Reply) -> tuple[str, ...]:
    return (f"content-type: {reply.type}, not JSON",) if reply.type and "json" not in reply.type else ()


def _other_entry(visit: Visit, reply: Reply, kind: identify.Kind) -> Finding:
    fix = Fix(title="Start the OpenAI-compatible server: vllm serve MODEL (not vllm.entrypoints.api_server)")
    title = f"{visit.shown_base} is a vLLM without the OpenAI paths (/v1/models is not there)"
    return error("endpoint-wrong", title, evidence=(reply.said, kind.sign), fixes=(fix,))


def _another(visit: Visit, kind: identify.Kind, reply: Reply) -> Finding:
    fixes = (
        client_fix(
            "Enter the address of the vLLM server", {"Base URL": f"http://{urlsplit(visit.base).hostname}:8000/v1"}
        ),
        Fix(title=f"Or use the client's own provider for {kind.name}, if that is what should answer"),
    )
    title = f"{visit.shown_base} is no vLLM: {kind.name} answers there"
    return error("endpoint-wrong", title, evidence=(kind.sign, reply.said), fixes=fixes)


def _redirected(visit: Visit, reply: Reply) -> Finding:
    target = redact.line(urljoin(reply.url, reply.headers.get("location", "")))
    ours, theirs = urlsplit(reply.url), urlsplit(target)
    evidence = (f"{reply.method} {reply.url}: {reply.status}, location {target or '(none)'}",)
    if ours.hostname == theirs.hostname and theirs.path.endswith("/models"):
        right = target.removesuffix("/models")
        fix = client_fix("Enter the address that it redirects to", {"Base URL": right})
    else:
        fix = Fix(
            title="Enter the address of the server itself; the doctor followed nothing and sent the key nowhere else"
        )
    title = (
        f"{visit.shown_base} redirects to {theirs.scheme}://{theirs.netloc or '?'}: clients lose the key or the body"
    )
    return error("endpoint-wrong", title, evidence=evidence, fixes=(fix,))


def lost(visit: Visit, reply: Reply) -> Finding:
    """A server that answered before and does no more."""
    evidence = (reply.said,)
    if reply.failure == "timeout":
        fixes = (
            Fix(
                title="See whether the server is overloaded (`vllm-doctor connect URL --watch 10`) or its engine hangs"
            ),
            Fix(title="Raise the time limit of the client and of every proxy between, if long answers are expected"),
        )
        title = f"{visit.shown_base} did not answer in {visit.options.timeout_seconds:.0f} s"
        return error("connection-timeout", title, evidence=evidence, fixes=fixes)
    fix = Fix(title="Read the server's log from its first error on (`vllm-doctor explain LOG`), and start it again")
    title = f"The server at {visit.shown_base} went away while it was being asked"
    return error("engine-dead", title, evidence=(*evidence, "it had answered before"), fixes=(fix,))
