"""What the server at one URL answers: three GETs with bounded bodies and one time limit for all."""

import time
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

import msgspec

from vllm_doctor import redact
from vllm_doctor.errors import DoctorError
from vllm_doctor.facts import ServerAnswer, Unknown
from vllm_doctor.probes.running import Running

if TYPE_CHECKING:
    import httpx

MAXIMUM_BODY_BYTES = 2**20
MAXIMUM_MODELS = 100

_LOOPBACK = ("localhost", "127.", "::1", "0.0.0.0")  # noqa: S104 - compared with, never bound to


class ServerUrlError(DoctorError):
    """The value of --url is no http or https URL."""


class Reply(NamedTuple):
    """One answer: its status and body; or, without them, the kind of failure and what was said."""

    status: int | None
    body: bytes = b""
    failure: str | None = None
    problem: str | None = None


class _Model(msgspec.Struct):
    id: str
    max_model_len: int | None = None


class _Models(msgspec.Struct):
    data: list[_Model]


class _Version(msgspec.Struct):
    version: str


def base_url(url: str) -> str:
    """The URL without a trailing slash and /v1; raises ServerUrlError for one that is no http(s) URL."""
    full = url if "://" in url else f"http://{url}"
    try:
        parts = urlsplit(full)
        valid = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        valid = False
    if not valid or len(full) > 2000 or not full.isprintable():
        raise ServerUrlError(
            f"--url {redact.line(url)!r} is no http or https URL",
            "write it like http://HOST:8000 or http://HOST:8000/v1",
        )
    return full.split("?")[0].split("#")[0].rstrip("/").removesuffix("/v1").rstrip("/")


def ask(url: str, timeout_seconds: float) -> ServerAnswer:
    """The server's health, version and models; what failed is told in `failure` and `problem`.

    The limit holds for the whole conversation: httpx counts anew with every byte that comes.
    """
    base = base_url(url)
    talk = Running("server", lambda: _talk(base, timeout_seconds))
    answer = talk.result(timeout_seconds + 0.5)
    if not isinstance(answer, Unknown):
        return answer
    kind, why = ("timeout", f"no whole answer within {timeout_seconds:g} s") if talk.late else ("other", answer.reason)
    said = Reply(None, failure=kind, problem=redact.line(f"{base}: {why}"))
    return _answer(base, said, Reply(None), said)


def _talk(base: str, timeout_seconds: float) -> ServerAnswer:
    import httpx

    host = urlsplit(base).hostname or ""
    deadline = time.monotonic() + timeout_seconds
    # A proxy cannot reach this machine's own loopback, whatever HTTP_PROXY says.
    with httpx.Client(timeout=timeout_seconds, trust_env=not host.startswith(_LOOPBACK)) as client:
        health = _get(client, f"{base}/health", deadline)
        if health.status is None:
            return _answer(base, health, Reply(None), health)
        version = _get(client, f"{base}/version", deadline)
        return _answer(base, health, version, _get(client, f"{base}/v1/models", deadline))


def _answer(base: str, health: Reply, version: Reply, models: Reply) -> ServerAnswer:
    listed, longest = _listed(models)
    failed = next((reply for reply in (health, models) if reply.status is None), Reply(200))
    return ServerAnswer(
        url=redact.line(base),
        health_status=health.status,
        version=_version(version),
        models=listed,
        max_model_len=longest,
        problem=failed.problem,
        failure=failed.failure,
        models_status=models.status,
    )


def _version(reply: Reply) -> str | None:
    if reply.status != 200:
        return None
    try:
        return redact.line(msgspec.json.decode(reply.body, type=_Version).version, 80)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def _listed(reply: Reply) -> tuple[tuple[str, ...] | Unknown, int | None]:
    if reply.status is None:
        return Unknown(reply.problem or "the models were not asked for"), None
    if reply.status != 200:
        return Unknown(f"/v1/models answered {reply.status}"), None
    try:
        models = msgspec.json.decode(reply.body, type=_Models).data[:MAXIMUM_MODELS]
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return Unknown("/v1/models answered no list of models"), None
    lengths = [m.max_model_len for m in models if m.max_model_len is not None and 0 <= m.max_model_len < 2**53]
    return tuple(redact.line(m.id) for m in models), max(lengths, default=None)


def _get(client: "httpx.Client", url: str, deadline: float) -> Reply:
    import httpx

    left = max(0.05, deadline - time.monotonic())
    try:
        # Identity: a few bytes of a compressed body could stand for gigabytes.
        with client.stream("GET", url, headers={"Accept-Encoding": "identity"}, timeout=left) as response:
            return Reply(response.status_code, _body(response, deadline))
    except httpx.HTTPError as problem:
        return Reply(None, failure=failure(problem), problem=redact.line(f"{url}: {_said(problem)}"))
    except (OSError, ValueError) as problem:
        return Reply(None, failure="other", problem=redact.line(f"{url}: {problem}"))


def _body(response: "httpx.Response", deadline: float) -> bytes:
    import httpx

    parts, size = [], 0
    for part in response.iter_raw():
        parts.append(part)
        size += len(part)
        if size > MAXIMUM_BODY_BYTES:
            break
        if time.monotonic() > deadline:
            raise httpx.ReadTimeout("the answer did not end in time")
    return b"".join(parts)[:MAXIMUM_BODY_BYTES]


def _said(problem: Exception) -> str:
    return str(problem) or type(problem).__name__


def failure(problem: Exception) -> str:
    """The kind of failure: refused, timeout, name, unreachable, tls, not-http or other."""
    import httpx

    if isinstance(problem, httpx.TimeoutException):
        return "timeout"
    said = " ".join(_said(p) for p in _chain(problem)).lower()
    for words, name in _FAILURES:
        if any(word in said for word in words):
            return name
    return "not-http" if isinstance(problem, httpx.RemoteProtocolError) else "other"


_FAILURES: tuple[tuple[tuple[str, ...], str], ...] = (
    (("refused",), "refused"),
    (("name or service not known", "nodename nor servname", "temporary failure in name", "no address"), "name"),
    (("certificate", "ssl", "tls"), "tls"),
    (("no route to host", "unreachable"), "unreachable"),
)


def _chain(problem: BaseException | Any) -> list[Exception]:
    chain: list[Exception] = []
    while isinstance(problem, Exception) and len(chain) < 10:
        chain.append(problem)
        problem = problem.__cause__ or problem.__context__
    return chain
