"""The walk of a launch's own server: a client's steps, and for one that pools and has no chat an embedding instead."""

from collections.abc import Callable

from msgspec import structs

from vllm_doctor.client.explaining import explain
from vllm_doctor.client.finding_paths import lost
from vllm_doctor.client.visit import Broken, Options, Progress, Skipped, Visit, walk_steps
from vllm_doctor.client.walk import CHATTING, REACHING, Connection, connection

CHAT, EMBEDDINGS = "/v1/chat/completions", "/v1/embeddings"
EMBED = "embed"

# What a server that pools can be asked all the same.
MODEL = "model"

# The figures of a server that has answered nothing yet are those of a cold one: slow first tokens mean nothing.
HEALTH = "health"

Step = Callable[[Visit], str]


def walk(url: str, options: Options, progress: Progress) -> Connection:
    """Walk all steps against one URL; raises UrlError for a URL that is none."""
    visit = Visit(url, options, progress)
    chatting = ((name, step) for name, step in CHATTING if name != HEALTH)
    asked = ((name, step if name == MODEL else _of_chat(step)) for name, step in chatting)
    try:
        walk_steps(visit, (*REACHING, *asked, (EMBED, embed)))
    finally:
        visit.session.close()
    found = connection(visit)
    # A server that chats is not told to embed nothing.
    kept = tuple(step for step in found.steps if step.name != EMBED or step.status != "skipped")
    return structs.replace(found, steps=kept)


def pools(visit: Visit) -> bool:
    """Whether the server says that it has no chat (it lists its paths, and no chat is among them)."""
    return visit.paths is not None and CHAT not in visit.paths


def _of_chat(step: Step) -> Step:
    def asked(visit: Visit) -> str:
        if pools(visit):
            raise Skipped("this server pools, and has no chat")
        return step(visit)

    return asked


def embed(visit: Visit) -> str:
    """One short embedding: 200, and a vector."""
    if not pools(visit) or EMBEDDINGS not in (visit.paths or ()):
        raise Skipped("this server makes no embeddings")
    body = {"model": visit.model, "input": "Hello"}
    reply = visit.session.post(f"{visit.base.rstrip('/')}/embeddings", body)
    if reply.status is None:
        raise Broken(lost(visit, reply))
    if reply.status != 200:
        raise Broken(explain(visit, reply, body))
    rows = reply.object().get("data")
    vector = rows[0].get("embedding") if isinstance(rows, list) and rows and isinstance(rows[0], dict) else None
    return f"a vector of {len(vector)} numbers in {reply.seconds:.2f} s" if isinstance(vector, list) else "answered"
