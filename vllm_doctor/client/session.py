"""HTTP as a client speaks it, within bounds: one deadline per request, bounded bodies, no redirect followed."""

import ssl
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import httpcore
import msgspec

from vllm_doctor import redact
from vllm_doctor.client.proxies import Proxy, proxy_for
from vllm_doctor.client.replies import OVERDUE, Reply
from vllm_doctor.client.sockets import Deadline, DeadlineBackend

# vLLM's largest honest answers here are /openapi.json (0.6 MB) and /metrics (0.3 MB).
MAXIMUM_BODY_BYTES = 2 * 2**20


class Session:
    """Asks one server, with the key where there is one; nothing is sent to any other host than that of the URL.

    httpcore (the transport of httpx) is used directly, because it lets the network backend be given: only so can every
    read of a dripped header have the request's deadline.
    """

    def __init__(self, url: str, key: str | None = None, timeout_seconds: float = 30) -> None:
        self.timeout_seconds = timeout_seconds
        self.key = key
        self.proxy: Proxy | None = proxy_for(url)
        self._backend = DeadlineBackend()
        parts = urlsplit(url)
        self._origin = (parts.scheme, parts.hostname, parts.port)
        self._pool = self._connections()

    def _connections(self) -> httpcore.ConnectionPool:
        # Reading the certificates of the authorities takes 20 ms; an http server needs none of them.
        context = ssl.create_default_context() if self._origin[0] == "https" else None
        if self.proxy is None:
            return httpcore.ConnectionPool(ssl_context=context, network_backend=self._backend, max_connections=4)
        return httpcore.HTTPProxy(
            proxy_url=self.proxy.url,
            proxy_auth=self.proxy.credentials,
            ssl_context=context,
            network_backend=self._backend,
            max_connections=4,
        )

    def close(self) -> None:
        """Close the connections."""
        self._pool.close()

    def get(self, url: str, *, key: bool = True, timeout_seconds: float | None = None) -> Reply:
        """GET; `key` False leaves the key out."""
        return self.send("GET", url, None, self.headers(key=key), timeout_seconds=timeout_seconds)

    def post(self, url: str, body: Any, *, timeout_seconds: float | None = None) -> Reply:
        """POST a value as JSON."""
        headers = self.headers() | {"Content-Type": "application/json"}
        return self.send("POST", url, msgspec.json.encode(body), headers, timeout_seconds=timeout_seconds)

    def headers(self, *, key: bool = True) -> dict[str, str]:
        """The headers of every request; the key as a bearer token."""
        found = {"Accept": "application/json"}
        if key and self.key:
            found["Authorization"] = f"Bearer {self.key}"
        return found

    def send(
        self,
        method: str,
        url: str,
        body: bytes | None,
        headers: Mapping[str, str],
        *,
        timeout_seconds: float | None = None,
        stop_at: bytes | None = None,
    ) -> Reply:
        """One request; what fails is told in the reply. `stop_at`: hang up as soon as the body holds these bytes."""
        started = time.monotonic()
        self._backend.deadline = Deadline(timeout_seconds or self.timeout_seconds)
        try:
            with self._answer(method, url, body, headers) as answer:
                content, cut = self._body(answer, stop_at)
                return Reply(
                    method=method,
                    url=url,
                    status=answer.status,
                    headers=_headers(answer),
                    body=content,
                    cut=cut,
                    seconds=time.monotonic() - started,
                )
        except (OSError, ValueError, ssl.SSLError, *_FAILED) as problem:
            return Reply(
                method=method,
                url=url,
                failure=failure(problem),
                problem=redact.line(said(problem)),
                seconds=time.monotonic() - started,
            )

    @contextmanager
    def _answer(
        self, method: str, url: str, body: bytes | None, headers: Mapping[str, str]
    ) -> Iterator[httpcore.Response]:
        parts = urlsplit(url)
        if (parts.scheme, parts.hostname, parts.port) != self._origin:
            raise ValueError("the session asks its own host only")
        # Identity: a few bytes of a compressed body could stand for gigabytes.
        wanted = {"User-Agent": "vllm-doctor", "Accept-Encoding": "identity", **headers}
        seconds = self._backend.deadline.left()
        with self._pool.stream(
            method,
            url,
            headers=list(wanted.items()),
            content=body,
            extensions={"timeout": {"connect": seconds, "read": seconds, "write": seconds, "pool": seconds}},
        ) as answer:
            yield answer

    def _body(self, answer: httpcore.Response, stop_at: bytes | None) -> tuple[bytes, str | None]:
        """The body, and why it was not read to its end."""
        found = bytearray()
        try:
            for part in answer.iter_stream():
                found += part
                if len(found) > MAXIMUM_BODY_BYTES:
                    return bytes(found[:MAXIMUM_BODY_BYTES]), f"longer than {MAXIMUM_BODY_BYTES} bytes, cut"
                if stop_at is not None and stop_at in found:
                    return bytes(found), None
                if self._backend.deadline.over:
                    return bytes(found), OVERDUE
        except httpcore.TimeoutException:
            return bytes(found), OVERDUE
        except (OSError, *_FAILED) as problem:
            return bytes(found), f"the connection broke off: {redact.line(said(problem))}"
        return bytes(found), None


_FAILED = (
    httpcore.TimeoutException,
    httpcore.NetworkError,
    httpcore.ProtocolError,
    httpcore.ProxyError,
    httpcore.UnsupportedProtocol,
)


def _headers(answer: httpcore.Response) -> dict[str, str]:
    pairs = answer.headers[:200]
    return {name.decode("latin-1").lower(): redact.line(value.decode("latin-1")) for name, value in pairs}


def said(problem: BaseException) -> str:
    """What an exception says, or its name."""
    return str(problem) or type(problem).__name__


def failure(problem: BaseException) -> str:
    """The kind of failure: refused, timeout, name, unreachable, tls, not-http, closed, proxy or other."""
    if isinstance(problem, httpcore.TimeoutException | TimeoutError):
        return "timeout"
    if isinstance(problem, httpcore.ProxyError):
        return "proxy"
    told = " ".join(said(p) for p in _chain(problem)).lower()
    for words, name in _KINDS:
        if any(word in told for word in words):
            return name
    return "not-http" if isinstance(problem, httpcore.RemoteProtocolError) else "other"


_KINDS: tuple[tuple[tuple[str, ...], str], ...] = (
    (("connection refused", "errno 111", "actively refused"), "refused"),
    (("name or service not known", "nodename nor servname", "temporary failure in name", "no address"), "name"),
    (("certificate", "ssl", "tls"), "tls"),
    (("no route to host", "unreachable"), "unreachable"),
    (("disconnected", "reset by peer", "broken pipe", "errno 104", "errno 32"), "closed"),
)


def _chain(problem: BaseException | None) -> list[BaseException]:
    chain: list[BaseException] = []
    while problem is not None and len(chain) < 10:
        chain.append(problem)
        problem = problem.__cause__ or problem.__context__
    return chain
