"""Checks of what clients will meet: the port, the server that answers at a URL, servers that already run."""

from collections.abc import Iterable, Iterator

from msgspec.structs import replace

from vllm_doctor.check import NotApplicable, NotKnown, check, known
from vllm_doctor.facts import DEFAULT_PORT, Gpus, Launch, Listener, Server, ServerAnswer, Servers, Unknown
from vllm_doctor.finding import Finding, Fix, LaunchEdit, Severity, error, info, warning
from vllm_doctor.snapshot import Snapshot
from vllm_doctor_checks.chat import chat_template, model_name
from vllm_doctor_checks.launch_values import release_of
from vllm_doctor_checks.live import server_health
from vllm_doctor_checks.tools import tool_flags

__all__ = [
    "chat_template",
    "container_port",
    "model_name",
    "port_taken",
    "server_answer",
    "server_health",
    "servers_running",
    "tool_flags",
]

# `create_server_socket` sets SO_REUSEPORT always in these releases (0.7.3 up to, not with, 0.25.0): two servers of one
# user then share the port, and the kernel spreads the connections over them.
SHARED_PORTS = ((0, 7, 3), (0, 25, 0))

EVERYWHERE = ("0.0.0.0", "::")  # noqa: S104 - compared with, never bound to
LOADING_SECONDS = 1800


@check("port-taken", causes=("port-in-use",), needs=("launch", "servers"))
def port_taken(snapshot: Snapshot) -> Iterator[Finding]:
    """Somebody else holds the port that the server will listen on.

    Why: vLLM binds its port (8000 unless `--port` says otherwise) before it loads the model, and ends with "Address
    already in use" where another process has it. vLLM 0.7.3 to 0.24 share the port with another vLLM of the same user
    instead: requests then reach either of the two, at random.
    Fix: another `--port`, or stop the process that holds it.
    """
    launch, servers = snapshot.launch, snapshot.servers
    assert isinstance(launch, Launch) and isinstance(servers, Servers)
    port = _host_port(launch)
    listeners = known(servers.listeners)
    bound = _bound_address(launch)
    holder = next((one for one in listeners if one.port == port and _overlaps(one.address, bound)), None)
    server = next((s for s in servers.running if s.port == port and not s.other_network), None)
    if holder is None and (server is None or server.listening is not False):
        return
    fixes = _port_fixes(launch, port, {one.port for one in listeners}, holder, server)
    evidence = tuple(_holder_lines(port, holder, server))
    who = _who(holder, server)
    if server is not None and _shares(snapshot):
        title = f"Port {port} is taken by {who}: requests will reach either server at random"
        yield warning("port-in-use", title, evidence=evidence, fixes=fixes)
        return
    yield error("port-in-use", f"Port {port} is taken by {who}", evidence=evidence, fixes=fixes)


def _host_port(launch: Launch) -> int:
    """The port on this host that the launch takes; raises NotApplicable where it takes none that is known."""
    if launch.has("--uds"):
        raise NotApplicable("the server listens on a Unix socket (--uds)")
    if launch.has("--headless"):
        raise NotApplicable("a headless node listens on no HTTP port")
    port = launch.port
    if port is None or not 0 < port < 65536:
        raise NotApplicable("the launch names no valid port")
    docker = launch.docker
    if docker is None or docker.network == "host":
        return port
    published = _number(docker.published.get(str(port), ""))
    if published is None:
        raise NotApplicable("the container publishes its port nowhere, or on a port of docker's choice")
    return published


def _number(text: str) -> int | None:
    last = text.rsplit(":", 1)[-1]
    return int(last) if last.isascii() and last.isdecimal() and len(last) < 6 else None


def _bound_address(launch: Launch) -> str:
    host = launch.value("--host") if launch.docker is None else None
    return {None: EVERYWHERE[0], "": EVERYWHERE[0], "localhost": "127.0.0.1"}.get(host, host or EVERYWHERE[0])


def _overlaps(address: str, bound: str) -> bool:
    """Whether two sockets on one port are in each other's way: `::` takes IPv4 in as well, unless told not to."""
    if address == bound or address in EVERYWHERE:
        return True
    return bound in EVERYWHERE and (":" in bound or ":" not in address)


def _shares(snapshot: Snapshot) -> bool:
    release = release_of(snapshot)
    return release is not None and SHARED_PORTS[0] <= release < SHARED_PORTS[1]


def _who(holder: Listener | None, server: Server | None) -> str:
    if server is not None:
        state = "" if server.listening else ", which still loads"
        return f"a vLLM server{f' of {server.model}' if server.model else ''} (pid {server.pid}{state})"
    if holder is not None and holder.pid is not None:
        return f"pid {holder.pid}"
    return f"a process of {holder.user}" if holder is not None and holder.user else "another process"


def _holder_lines(port: int, holder: Listener | None, server: Server | None) -> Iterator[str]:
    if holder is not None:
        yield f"listening: {holder.address} port {port}, user {holder.user or 'unknown'}"
        if holder.command:
            yield f"command: {holder.command}"
        elif holder.pid is None:
            yield "its process may not be seen by this user (or is in a container)"
    if server is not None and (holder is None or server.pid != holder.pid):
        yield f"vLLM server: pid {server.pid}, {server.command}"


def _port_fixes(
    launch: Launch, port: int, taken: Iterable[int], holder: Listener | None, server: Server | None
) -> tuple[Fix, ...]:
    used = set(taken)
    free = next((p for p in range(port + 1, 65536) if p not in used), None)
    fixes = []
    if free is not None and launch.docker is None:
        edit = LaunchEdit(set={"--port": str(free)})
        fixes.append(Fix(title=f"Listen on port {free}, which is free", launch=edit, automatic=True))
    elif free is not None:
        fixes.append(Fix(title=f"Publish another port of this host: -p {free}:{launch.port or DEFAULT_PORT}"))
    pid = server.pid if server is not None else holder.pid if holder is not None else None
    if pid is not None:
        fixes.append(Fix(title="Stop the process that holds it, if it is not needed", command=("kill", str(pid))))
    return tuple(fixes)


@check("container-port", causes=("connection-refused",), needs=("launch",))
def container_port(snapshot: Snapshot) -> Iterator[Finding]:
    """The container is started without publishing the port that the server listens on.

    Why: a container has a network of its own. Without `-p` (or `--network host`) nothing outside of it reaches the
    port, and clients on the host get "connection refused" from a server that runs well.
    Fix: add `-p 8000:8000` (or the port that `--port` names) to `docker run`, before the image.
    """
    launch = snapshot.launch
    assert isinstance(launch, Launch)
    docker = launch.docker
    if docker is None:
        raise NotApplicable("the launch starts no container")
    if launch.has("--uds") or launch.has("--headless") or (docker.network not in (None, "bridge", "default")):
        return
    port = launch.port
    if port is None or str(port) in docker.published or {"-P", "--publish-all"} & set(docker.options):
        return
    published = ", ".join(f"{host} to {inside}" for inside, host in docker.published.items()) or "none"
    if any("-" in inside for inside in docker.published):
        raise NotKnown("the container publishes a range of ports")
    yield warning(
        "connection-refused",
        f"Port {port} of the container is not published: clients outside of it cannot connect",
        evidence=(f"the server listens on port {port} inside the container", f"ports published: {published}"),
        fixes=(Fix(title=f"Add -p {port}:{port} to {docker.program} run, before the image"),),
    )


@check("servers-running", causes=("gpu-busy", "connection-refused"), needs=("servers",))
def servers_running(snapshot: Snapshot) -> Iterator[Finding]:
    """A vLLM server already runs on this host.

    Why: a second server beside it shares its GPUs and RAM, and each takes by default 90 % of a GPU. A server that has
    loaded for half an hour and still does not listen has most likely stalled.
    Fix: stop the one that is not needed, or give each its own GPUs (`CUDA_VISIBLE_DEVICES`) and memory share.
    """
    servers = snapshot.servers
    assert isinstance(servers, Servers)
    for server in servers.running:
        age = server.age_seconds if isinstance(server.age_seconds, float | int) else None
        evidence = (f"pid {server.pid}: {server.command}", f"port {server.port or 'unknown'}, {_age(age)}")
        if server.listening is False and age is not None and age > LOADING_SECONDS:
            title = f"The vLLM server with pid {server.pid} was started {_age(age)} and does not listen yet"
            fix = Fix(title="Look into its log; stop it if it hangs", command=("kill", str(server.pid)))
            yield warning("connection-refused", title, evidence=evidence, fixes=(fix,))
        elif snapshot.launch is not None and snapshot.platform == "cuda" and isinstance(snapshot.gpus, Gpus):
            title = f"A vLLM server{f' of {server.model}' if server.model else ''} already runs here (pid {server.pid})"
            fix = Fix(title="Stop it, if this launch is to replace it", command=("kill", str(server.pid)))
            yield info("gpu-busy", title, evidence=evidence, fixes=(fix,))


def _age(seconds: float | None) -> str:
    if seconds is None:
        return "started at a time that is not known"
    return f"{seconds / 3600:.1f} hours ago" if seconds >= 5400 else f"{max(1, round(seconds / 60))} minutes ago"


@check(
    "server-answer",
    causes=("connection-refused", "connection-timeout", "auth", "endpoint-wrong", "engine-dead", "engine-hang"),
    needs=("servers",),
)
def server_answer(snapshot: Snapshot) -> Iterator[Finding]:
    """The server at `--url`, or one that runs on this host, does not answer as a vLLM server does.

    Why: a client needs three things: somebody who listens, an answer in time, and the OpenAI paths below /v1. What
    /health, /version and /v1/models answer tells which of them is missing.
    Fix: depends on the step that failed: host and port, the network between, the path, or the API key.
    """
    servers = snapshot.servers
    assert isinstance(servers, Servers)
    if not servers.answers:
        raise NotApplicable("no --url was given, and no server that can be asked runs here")
    for answer in servers.answers:
        found = _unreached(answer, servers) if answer.failure is not None else _answered(answer)
        if found is not None:
            # A launch does not fail of another server's illness.
            other = answer.pid is not None and snapshot.launch is not None
            yield replace(found, severity=Severity.WARNING) if other else found
        elif isinstance(answer.models, Unknown) and not _wants_key(answer):
            raise NotKnown(answer.models.reason)


def _wants_key(answer: ServerAnswer) -> bool:
    return answer.models_status in (401, 403)


FAILURES = {
    "refused": ("connection-refused", "Nothing listens at {url}"),
    "name": ("connection-refused", "The host name in {url} is not known"),
    "timeout": ("connection-timeout", "{url} does not answer in time"),
    "unreachable": ("connection-timeout", "There is no route to {url}"),
    "tls": ("endpoint-wrong", "No TLS connection to {url} can be made"),
    "not-http": ("endpoint-wrong", "What listens at {url} does not speak HTTP"),
}

FAILURE_FIXES = {
    "refused": "Check host and port; a vLLM server refuses connections until its model is loaded, which takes minutes",
    "name": "Check the spelling of the host name, or use its address",
    "timeout": "Check firewall, route and proxy between here and the server",
    "unreachable": "Check firewall, route and proxy between here and the server",
    "tls": "Use http:// for a server without --ssl-certfile; else trust its certificate (SSL_CERT_FILE)",
    "not-http": "Check the port: it belongs to another program",
}


def _unreached(answer: ServerAnswer, servers: Servers) -> Finding | None:
    failure = answer.failure or ""
    if failure not in FAILURES:
        raise NotKnown(answer.problem or "the server could not be asked")
    if answer.pid is not None:
        return _silent(answer)
    cause, title = FAILURES[failure]
    loading = [s for s in servers.running if s.listening is False and answer.url.endswith(f":{s.port}")]
    evidence = [answer.problem or failure]
    evidence += [f"a vLLM server with pid {s.pid} is starting for that port and does not listen yet" for s in loading]
    title = title.format(url=answer.url)
    return error(cause, title, evidence=tuple(evidence), fixes=(Fix(title=FAILURE_FIXES[failure]),))


def _silent(answer: ServerAnswer) -> Finding:
    """Of a server that listens on this host; raises NotKnown where it went away while it was asked."""
    if answer.failure != "timeout":
        raise NotKnown(answer.problem or "the server could not be asked")
    # Only likely: the host may be so busy that a healthy server is slow.
    return warning(
        "engine-hang",
        f"The vLLM server with pid {answer.pid} takes connections at {answer.url} and does not answer",
        evidence=(answer.problem or "no answer in time", "asked from this host itself: no network lies between"),
        fixes=(Fix(title="Read the end of its log (`vllm-doctor explain LOG`), and start it again"),),
    )


def _answered(answer: ServerAnswer) -> Finding | None:
    statuses = (answer.health_status, answer.models_status)
    evidence = (f"GET {answer.url}/health: {statuses[0]}", f"GET {answer.url}/v1/models: {statuses[1]}")
    if answer.other_server:
        fix = Fix(title="Give host and port of the vLLM server (8000 unless --port says otherwise)")
        title = f"{answer.url} is no vLLM: {answer.server} answers there"
        return error("endpoint-wrong", title, evidence=evidence, fixes=(fix,))
    if _wants_key(answer):
        if answer.pid is not None:
            return None
        fix = Fix(
            title="Enter the server's key (its --api-key or VLLM_API_KEY) in the client", settings={"API key": "***"}
        )
        return info("auth", f"{answer.url} asks for an API key", evidence=evidence, fixes=(fix,))
    if answer.health_status in (502, 504):
        title = f"A proxy at {answer.url} cannot reach the server behind it"
        fix = Fix(title="See whether the server behind the proxy runs, and where the proxy sends requests")
        return error("connection-timeout", title, evidence=evidence, fixes=(fix,))
    if answer.version is not None and answer.health_status in (500, 503):
        fix = Fix(title="Read the server's log from the first error on, and start it again")
        return error("engine-dead", f"The engine behind {answer.url} is dead", evidence=evidence, fixes=(fix,))
    if statuses[1] == 404 or (statuses[1] == 200 and isinstance(answer.models, Unknown)):
        fix = Fix(
            title="Give the address that /v1 lies below, e.g. http://HOST:8000, with the proxy's path if there is one"
        )
        title = f"{answer.url} serves no list of models below /v1: it is no OpenAI-compatible server"
        return error("endpoint-wrong", title, evidence=evidence, fixes=(fix,))
    return None
