"""The first steps: the host name, the port, TLS, and whether what listens speaks HTTP."""

import socket
import ssl
import threading
from urllib.parse import urlsplit, urlunsplit

from vllm_doctor.client import local
from vllm_doctor.client.proxies import is_loopback, named
from vllm_doctor.client.replies import Reply
from vllm_doctor.client.session import Session, failure, said
from vllm_doctor.client.visit import Broken, Skipped, Visit, client_fix
from vllm_doctor.facts import DEFAULT_PORT, Server
from vllm_doctor.finding import Finding, Fix, LaunchEdit, error

# A connect that takes longer is dropped by a firewall or has no route.
CONNECT_SECONDS = 10.0


def endpoint(visit: Visit) -> tuple[str, int]:
    """Host and port that the first connection goes to: the proxy's, where there is one."""
    parts = urlsplit(visit.session.proxy.url if visit.session.proxy else visit.base)
    return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


def name(visit: Visit) -> str:
    """Resolve the host name."""
    host, port = endpoint(visit)
    found = _resolved(host, port, min(CONNECT_SECONDS, visit.options.timeout_seconds))
    if isinstance(found, str):
        fix = Fix(title="Check the spelling of the host, or enter its IP address")
        raise Broken(
            error("connection-refused", f"The host name {host!r} is not known", evidence=(found,), fixes=(fix,))
        )
    through = f", through the proxy {visit.session.proxy.shown}" if visit.session.proxy else ""
    return f"{host}: {', '.join(found)}{through}{_unused_proxy(visit)}"


def _unused_proxy(visit: Visit) -> str:
    found = named(visit.base)
    if visit.session.proxy is not None or found is None:
        return ""
    host = urlsplit(visit.base).hostname or ""
    if is_loopback(host):
        return (
            f" (past the proxy of {found[0]}, which cannot reach this machine's loopback; NO_PROXY should name {host})"
        )
    return f" (past the proxy of {found[0]}, which is no HTTP proxy)"


def _resolved(host: str, port: int, seconds: float) -> tuple[str, ...] | str:
    """The addresses, or what went wrong; the resolver has no time-out of its own, so it runs aside."""
    outcome: list[tuple[str, ...] | str] = []

    def resolve() -> None:
        try:
            rows = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            outcome.append(tuple(dict.fromkeys(str(row[4][0]) for row in rows))[:8])
        except (OSError, UnicodeError) as problem:
            outcome.append(f"{host}: {said(problem)}")

    thread = threading.Thread(target=resolve, daemon=True)
    thread.start()
    thread.join(seconds)
    return outcome[0] if outcome else f"{host}: the name server did not answer within {seconds:.0f} s"


def port(visit: Visit) -> str:
    """Connect to the port, on every address until one takes it."""
    host, number = endpoint(visit)
    found = _resolved(host, number, CONNECT_SECONDS)
    tried: list[tuple[str, BaseException]] = []
    for address in found if isinstance(found, tuple) else ():
        try:
            with socket.create_connection(
                (address, number), timeout=min(CONNECT_SECONDS, visit.options.timeout_seconds)
            ):
                refused = f" ({', '.join(a for a, _ in tried)} refused)" if tried else ""
                return f"{address} port {number} takes connections{refused}"
        except OSError as problem:  # noqa: PERF203 - every address has its own answer
            tried.append((address, problem))
    raise Broken(_unreached(visit, host, number, tried))


def _unreached(visit: Visit, host: str, number: int, tried: list[tuple[str, BaseException]]) -> Finding:
    evidence = tuple(f"{address} port {number}: {said(problem)}" for address, problem in tried)
    kinds = {failure(problem) for _, problem in tried}
    where = f"{host}:{number}"
    if visit.session.proxy is not None:
        title = f"The proxy {visit.session.proxy.shown} does not take connections"
        name = urlsplit(visit.base).hostname
        fix = Fix(title=f"Leave the host out of the proxy: NO_PROXY={name}, or correct {visit.session.proxy.variable}")
        return error("connection-refused", title, evidence=evidence, fixes=(fix,))
    if "refused" not in kinds:
        fix = Fix(title="Check firewall, security group and route between here and the host, and the address itself")
        title = f"{where} does not answer: packets get lost or have no route"
        return error("connection-timeout", title, evidence=evidence, fixes=(fix,))
    if any(local.is_here(address) for address, _ in tried):
        return _refused_here(visit, where, number, evidence)
    return error("connection-refused", f"Nothing listens at {where}", evidence=evidence, fixes=_refused_fixes(visit))


def _refused_here(visit: Visit, where: str, number: int, evidence: tuple[str, ...]) -> Finding:
    servers = local.servers()
    loading = next((s for s in servers if s.port == number and s.listening is False and not s.other_network), None)
    if loading is not None:
        return _loading(loading, where, evidence)
    others = local.addresses(number)
    if others:
        return _bound_elsewhere(where, number, others, evidence)
    running = [s for s in servers if s.listening and s.port and s.port != number]
    fixes = _refused_fixes(visit)
    if running:
        seen = tuple(
            f"a vLLM server{f' of {s.model}' if s.model else ''} listens on port {s.port}" for s in running[:5]
        )
        moved = _with_port(visit.base, running[0].port or DEFAULT_PORT)
        fixes = (client_fix("Enter the port of the server that runs", {"Base URL": moved}), *fixes)
        return error("connection-refused", f"Nothing listens at {where}", evidence=(*evidence, *seen), fixes=fixes)
    seen = tuple(f"a vLLM server (pid {s.pid}) is for port {s.port or 'unknown'}, not {number}" for s in servers[:5])
    seen = seen or ("no vLLM server is in this host's process table (a container's may be hidden)",)
    return error("connection-refused", f"Nothing listens at {where}", evidence=(*evidence, *seen), fixes=fixes)


def _loading(server: Server, where: str, evidence: tuple[str, ...]) -> Finding:
    age = f", started {server.age_seconds:.0f} s ago" if isinstance(server.age_seconds, float | int) else ""
    seen = f"pid {server.pid} is a vLLM server for that port{age}, and does not listen yet: {server.command}"
    fix = Fix(
        title="Wait: vLLM listens only when its model is loaded (up to half an hour for the largest); "
        "its log then says 'Application startup complete.'"
    )
    title = f"The server for {where} is still loading its model"
    return error("connection-refused", title, evidence=(*evidence, seen), fixes=(fix,))


def _bound_elsewhere(where: str, number: int, others: tuple[str, ...], evidence: tuple[str, ...]) -> Finding:
    bound = " and ".join(others)
    edit = LaunchEdit(set={"--host": "0.0.0.0"})  # noqa: S104 - what the user is told, with the warning
    address = f"[{others[0]}]" if ":" in others[0] else others[0]
    fixes = (
        Fix(title="Start the server with --host 0.0.0.0 (all addresses; then guard it with --api-key)", launch=edit),
        client_fix("Or, for a client on the same machine", {"Base URL": f"http://{address}:{number}/v1"}),
    )
    seen = f"somebody listens on port {number} of {bound} only"
    title = f"Nothing listens at {where}: the server is bound to {bound} only"
    return error("connection-refused", title, evidence=(*evidence, seen), fixes=fixes)


def _refused_fixes(visit: Visit) -> tuple[Fix, ...]:
    edit = LaunchEdit(set={"--host": "0.0.0.0"})  # noqa: S104 - what the user is told
    number = urlsplit(visit.base).port
    fixes = [Fix(title="See whether the server runs, and has finished loading (vLLM refuses connections until then)")]
    if number is None:
        moved = _with_port(visit.base, DEFAULT_PORT)
        fixes.append(client_fix("Name the port: vLLM's default is 8000", {"Base URL": moved}))
    if not is_loopback(urlsplit(visit.base).hostname or ""):
        fixes.append(Fix(title="A server started with --host 127.0.0.1 is for its own machine only", launch=edit))
    fixes.append(Fix(title="A server in a container: publish its port, -p 8000:8000"))
    return tuple(fixes)


def _with_port(base: str, number: int) -> str:
    parts = urlsplit(base)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return urlunsplit((parts.scheme, f"{host}:{number}", parts.path or "/v1", "", ""))


def tls(visit: Visit) -> str:
    """The TLS handshake of an https URL."""
    parts = urlsplit(visit.base)
    if parts.scheme != "https":
        raise Skipped("an http URL")
    if visit.session.proxy is not None:
        raise Skipped("made through the proxy, with the first request")
    host, number = endpoint(visit)
    try:
        context = ssl.create_default_context()
        with (
            socket.create_connection(
                (host, number), timeout=min(CONNECT_SECONDS, visit.options.timeout_seconds)
            ) as plain,
            context.wrap_socket(plain, server_hostname=host) as wrapped,
        ):
            return f"{wrapped.version()}, certificate accepted"
    except (OSError, ValueError) as problem:
        raise Broken(_no_tls(visit, problem)) from None


def _no_tls(visit: Visit, problem: BaseException) -> Finding:
    evidence = (f"TLS handshake: {said(problem)}",)
    plain = visit.base.replace("https://", "http://", 1)
    if not isinstance(problem, ssl.SSLCertVerificationError):
        reply = _answer(plain, visit)
        if reply.status is not None:
            proof = f"GET {root_health(plain)} without TLS: {reply.status}"
            fix = client_fix("Enter it with http://", {"Base URL": plain})
            title = f"{visit.shown_base} speaks no TLS: it is a plain HTTP server"
            return error("endpoint-wrong", title, evidence=(*evidence, proof), fixes=(fix,))
        if isinstance(problem, TimeoutError):
            fix = Fix(title="See whether the port is the server's, and whether a firewall holds TLS back")
            title = f"The TLS handshake with {visit.shown_base} does not end"
            return error("connection-timeout", title, evidence=evidence, fixes=(fix,))
    fixes = (
        Fix(title="Trust the certificate's issuer: SSL_CERT_FILE=/path/to/ca.pem for this doctor and Python clients"),
        Fix(title="Or start the server with a certificate for this name: --ssl-certfile and --ssl-keyfile"),
    )
    title = f"The certificate of {visit.shown_base} is not accepted"
    return error("endpoint-wrong", title, evidence=evidence, fixes=fixes)


def root_health(base: str) -> str:
    """The URL of /health beside a base."""
    from vllm_doctor.client.visit import root_of

    return f"{root_of(base)}/health"


def _answer(base: str, visit: Visit) -> Reply:
    """What GET /health of another scheme answers, without the key."""
    session = Session(base, None, min(5.0, visit.options.timeout_seconds))
    try:
        return session.get(root_health(base), key=False)
    finally:
        session.close()


def http(visit: Visit) -> str:
    """The first request: GET /health, without the key."""
    reply = visit.session.get(f"{visit.root}/health", key=False)
    if reply.status is None:
        raise Broken(_no_http(visit, reply))
    visit.answered = True
    if reply.status in (500, 502, 503, 504):
        raise Broken(_unhealthy(visit, reply))
    return f"GET /health: {reply.status}{f' ({reply.cut})' if reply.cut else ''}"


def _no_http(visit: Visit, reply: Reply) -> Finding:
    evidence = (reply.said,)
    if reply.failure == "timeout":
        fixes = (
            Fix(title="See whether the server is overloaded or hangs (its log; nvidia-smi)"),
            Fix(title="See whether the port is that of vLLM: another program may take connections and say nothing"),
        )
        title = f"{visit.shown_base} takes the connection and does not answer"
        return error("connection-timeout", title, evidence=evidence, fixes=fixes)
    if reply.failure == "proxy":
        fix = Fix(title=f"Leave the host out of the proxy: NO_PROXY={urlsplit(visit.base).hostname}")
        return error("connection-timeout", "The proxy refuses the connection", evidence=evidence, fixes=(fix,))
    if reply.failure == "tls":
        return _no_tls(visit, ssl.SSLCertVerificationError(reply.problem or ""))
    secure = visit.base.replace("http://", "https://", 1)
    if visit.base.startswith("http://") and _speaks_tls(visit):
        fix = client_fix("Enter it with https://", {"Base URL": secure})
        proof = f"a TLS handshake with {secure} succeeds"
        title = f"{visit.shown_base} speaks HTTPS, not HTTP"
        return error("endpoint-wrong", title, evidence=(*evidence, proof), fixes=(fix,))
    fix = Fix(title="Check the port: it belongs to another program than an HTTP server")
    title = f"What listens at {visit.shown_base} does not speak HTTP"
    return error("endpoint-wrong", title, evidence=evidence, fixes=(fix,))


def _speaks_tls(visit: Visit) -> bool:
    host, number = endpoint(visit)
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # only whether it speaks TLS; nothing is sent
    try:
        with (
            socket.create_connection((host, number), timeout=3) as plain,
            context.wrap_socket(plain, server_hostname=host),
        ):
            return True
    except (OSError, ValueError):
        return False


def _unhealthy(visit: Visit, reply: Reply) -> Finding:
    evidence = (reply.said,)
    if reply.status in (502, 504):
        fix = Fix(
            title="See whether the server behind the proxy runs, and to which host and port the proxy sends requests"
        )
        title = f"A proxy at {visit.shown_base} cannot reach the server behind it"
        return error("connection-timeout", title, evidence=evidence, fixes=(fix,))
    if reply.status == 503 and ("load" in reply.excerpt.lower() or "start" in reply.excerpt.lower()):
        fix = Fix(title="Wait until the model is loaded, and ask again")
        return error("connection-refused", "The server is still loading", evidence=evidence, fixes=(fix,))
    if reply.status == 503 and reply.headers.get("server", "uvicorn") != "uvicorn":
        fix = Fix(title="See whether the server behind the proxy runs; the proxy has none to send requests to")
        title = f"The proxy at {visit.shown_base} has no server behind it"
        return error("connection-refused", title, evidence=evidence, fixes=(fix,))
    fix = Fix(title="Read the server's log from its first error on (`vllm-doctor explain LOG`), and start it again")
    return error("engine-dead", f"The engine behind {visit.shown_base} is dead", evidence=evidence, fixes=(fix,))
