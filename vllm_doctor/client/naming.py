"""The steps of the key, the list of models, and the model's name."""

from collections.abc import Iterable

from vllm_doctor import redact
from vllm_doctor.client.explaining import explain
from vllm_doctor.client.finding_paths import lost
from vllm_doctor.client.names import Served, nearest, served
from vllm_doctor.client.replies import Reply
from vllm_doctor.client.session import Session
from vllm_doctor.client.visit import Broken, Visit, client_fix
from vllm_doctor.finding import Finding, Fix, error


def key(visit: Visit) -> str:
    """GET {base}/models with the key; without one where there is none."""
    reply = visit.session.get(f"{visit.base.rstrip('/')}/models")
    if reply.status is None:
        raise Broken(lost(visit, reply))
    if reply.status not in (401, 403):
        return "the key is accepted, or none is asked for" if visit.session.key else "no key is asked for"
    raise Broken(_mended_key(visit, reply) or explain(visit, reply, {}))


def _mended_key(visit: Visit, reply: Reply) -> Finding | None:
    """The same key without what often sticks to it: blanks, a line break, quotes, the word Bearer."""
    plain = visit.session.key or ""
    for what, mended in _mended(plain):
        session = Session(visit.base, mended, visit.options.timeout_seconds)
        try:
            answer = session.get(f"{visit.base.rstrip('/')}/models")
        finally:
            session.close()
        if answer.status == 200:
            evidence = (reply.said, f"the same key without {what}: 200")
            fix = client_fix(f"Enter the key without {what}", {"API Key": redact.MASK})
            title = f"{what[0].upper()}{what[1:]} sticks to the API key"
            return error("auth", title, evidence=evidence, fixes=(fix,))
    return None


def _mended(plain: str) -> Iterable[tuple[str, str]]:
    if plain.strip() != plain and plain.strip():
        yield "the blanks or line break around it", plain.strip()
    if plain.strip().lower().startswith("bearer "):
        yield "the word Bearer, which the client adds itself", plain.strip()[7:].strip()
    if len(plain.strip()) > 2 and plain.strip()[0] == plain.strip()[-1] and plain.strip()[0] in "'\"":
        yield "the quotes around it", plain.strip()[1:-1]


def models(visit: Visit) -> str:
    """GET {base}/models: the names that requests may use."""
    if not visit.served:
        reply = visit.session.get(f"{visit.base.rstrip('/')}/models")
        found = served(reply) if reply.ok else None
        if found is None:
            raise Broken(lost(visit, reply) if reply.status is None else explain(visit, reply, {}))
        visit.served = found
    if not visit.served:
        fix = Fix(title="Start the server with a model, or load one (a gateway lists those that are configured)")
        raise Broken(
            error(
                "model-name-mismatch", "The server serves no model", evidence=("/models: an empty list",), fixes=(fix,)
            )
        )
    lengths = sorted({m.max_model_len for m in visit.served if m.max_model_len})
    context = f"; max_model_len {', '.join(map(str, lengths))}" if lengths else ""
    return f"{', '.join(model.shown for model in visit.served[:20])}{context}"


def model(visit: Visit) -> str:
    """The asked name must be one of those that are served; without one the first is taken."""
    asked = visit.options.model
    visit.paths = paths(visit)
    if asked is None:
        visit.chosen = next((each for each in visit.served if each.parent is None), visit.served[0])
        return f"{visit.chosen.name} (the first; --model names another)"
    found = next((each for each in visit.served if each.name == asked), None)
    if found is not None:
        visit.chosen = _whole(visit, found)
        return found.shown
    raise Broken(_mismatch(visit, asked))


def _whole(visit: Visit, found: Served) -> Served:
    """An adapter has the context length of its base model."""
    if found.max_model_len is not None or found.parent is None:
        return found
    base = next((each for each in visit.served if each.name == found.parent), None)
    return Served(
        name=found.name,
        root=found.root,
        parent=found.parent,
        max_model_len=base.max_model_len if base is not None else None,
        owner=found.owner,
    )


def _mismatch(visit: Visit, asked: str) -> Finding:
    body = {"model": asked, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}
    url = f"{visit.base.rstrip('/')}/chat/completions"
    reply = visit.session.post(url, body)
    if reply.status == 404:
        found = explain(visit, reply, body)
    else:
        listed = ", ".join(each.shown for each in visit.served[:10])
        found = error(
            "model-name-mismatch", f"The server lists no model called {asked!r}", evidence=(f"/models: {listed}",)
        )
        if reply.ok:  # VLLM_SKIP_MODEL_NAME_VALIDATION, or a gateway with routes of its own
            raise Broken(_unlisted(found))
    guess = nearest(asked, visit.served)
    if guess is None:
        return found
    proof = visit.session.post(url, body | {"model": guess.name})
    seen = (*found.evidence, f"the same request for {guess.name!r}: {proof.status}")
    fixes = found.fixes or (client_fix(f"Enter {guess.name}: {guess.why}", {"Model": guess.name}),)
    return error("model-name-mismatch", found.title, evidence=seen, fixes=fixes)


def _unlisted(found: Finding) -> Finding:
    from vllm_doctor.finding import info

    return info("model-name-mismatch", f"{found.title}, yet it answers", evidence=found.evidence)


def paths(visit: Visit) -> frozenset[str] | None:
    """The paths of /openapi.json; None where the server does not say (--disable-fastapi-docs)."""
    reply = visit.session.get(f"{visit.root}/openapi.json", key=False)
    paths = reply.object().get("paths") if reply.ok else None
    return frozenset(list(paths)[:500]) if isinstance(paths, dict) else None
