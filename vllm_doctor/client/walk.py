"""The walk: every step of a client in its order, up to the first that breaks."""

from collections.abc import Sequence

from msgspec import Struct, structs

from vllm_doctor.client import calling, chatting, extras, finding_paths, naming, reaching
from vllm_doctor.client.health import health
from vllm_doctor.client.names import Served
from vllm_doctor.client.visit import Options, Progress, Step, Visit, client_fix, silent, walk_steps
from vllm_doctor.finding import Finding, Fix

REACHING = (
    ("name", reaching.name),
    ("port", reaching.port),
    ("tls", reaching.tls),
    ("http", reaching.http),
    ("path", finding_paths.path),
    ("key", naming.key),
    ("models", naming.models),
)
CHATTING = (
    ("model", naming.model),
    ("chat", chatting.chat),
    ("system", chatting.system),
    ("stream", chatting.stream),
    ("tools", calling.auto),
    ("tool-required", calling.required),
    ("tool-named", calling.named),
    ("context", extras.context),
    ("structured", extras.structured),
    ("image", extras.image),
    ("health", health),
)


class Connection(Struct, frozen=True, kw_only=True):
    """What the walk to one URL brought."""

    url: str
    steps: tuple[Step, ...]
    findings: tuple[Finding, ...]
    served: tuple[Served, ...] = ()
    version: str | None = None
    server: str | None = None


def walk(url: str, options: Options, progress: Progress = silent) -> Connection:
    """Walk all steps against one URL; raises UrlError for a URL that is none."""
    visit = Visit(url, options, progress)
    try:
        walk_steps(visit, (*REACHING, *CHATTING))
    finally:
        visit.session.close()
    return connection(visit)


def told_elsewhere(connections: Sequence[Connection], model: str | None) -> list[Connection]:
    """The connections, those that lack the model with the address of one that serves it as their first fix."""
    holder = next((one for one in connections if model and any(m.name == model for m in one.served)), None)
    if holder is None:
        return list(connections)
    fix = client_fix(f"{model} is served there", {"Base URL": holder.url, "Model": str(model)})
    return [
        structs.replace(one, findings=tuple(_with_fix(found, fix) for found in one.findings)) for one in connections
    ]


def _with_fix(found: Finding, fix: Fix) -> Finding:
    return structs.replace(found, fixes=(fix, *found.fixes)) if found.cause == "model-name-mismatch" else found


def connection(visit: Visit) -> Connection:
    """The outcome of a visit, its findings worst first."""
    ordered = sorted(visit.findings, key=lambda found: found.severity.rank)
    return Connection(
        url=visit.shown_base,
        steps=tuple(visit.steps),
        findings=tuple(ordered),
        served=visit.served,
        version=visit.version,
        server=visit.kind.name if visit.kind is not None else None,
    )
