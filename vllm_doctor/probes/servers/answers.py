"""What the server at one URL answers: three GETs with bounded bodies and one time limit for all."""

import time
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import msgspec
from msgspec import structs

from vllm_doctor import redact
from vllm_doctor.errors import DoctorError
from vllm_doctor.facts import Metric, ServerAnswer, Unknown
from vllm_doctor.probes.running import Running

if TYPE_CHECKING:
    from vllm_doctor.client.replies import Reply

MAXIMUM_MODELS = 100


class ServerUrlError(DoctorError):
    """The value of --url is no http or https URL."""


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


class Asking:
    """A server that is being asked, in a thread of its own."""

    def __init__(self, base: str, timeout_seconds: float) -> None:
        self._base = base
        self._timeout_seconds = timeout_seconds
        self._end = time.monotonic() + timeout_seconds + 0.5
        self._talk = Running("server", lambda: _talk(base, timeout_seconds))

    def result(self) -> ServerAnswer:
        """Its answers; what failed is told in `failure` and `problem`."""
        answer = self._talk.result(max(0.0, self._end - time.monotonic()))
        if not isinstance(answer, Unknown):
            return answer
        kind, why = (
            ("timeout", f"no whole answer within {self._timeout_seconds:g} s")
            if self._talk.late
            else ("other", answer.reason)
        )
        problem = redact.line(f"{self._base}: {why}")
        return ServerAnswer(url=redact.line(self._base), models=Unknown(problem), problem=problem, failure=kind)


def asking(url: str, timeout_seconds: float) -> Asking:
    """Begin to ask for the server's health, version, models and metrics; raises ServerUrlError.

    Asked as `vllm-doctor connect` asks, within its bounds; no key is sent. The limit holds for the resolver as well,
    which has none of its own.
    """
    return Asking(base_url(url), timeout_seconds)


def _talk(base: str, timeout_seconds: float) -> ServerAnswer:
    from vllm_doctor.client import identify
    from vllm_doctor.client.session import Session

    deadline = time.monotonic() + timeout_seconds
    session = Session(base, None, timeout_seconds)
    try:
        replies = []
        for path in ("/health", "/version", "/v1/models", "/metrics"):
            replies.append(session.get(f"{base}{path}", timeout_seconds=max(0.05, deadline - time.monotonic())))
            if replies[0].status is None:
                return _answer(base, *[replies[0]] * 4)
    finally:
        session.close()
    answer = _answer(base, *replies)
    kind = (
        identify.from_headers(replies[2]) or identify.from_owner(_owner(replies[2])) or identify.from_body(replies[2])
    )
    return answer if kind is None else structs.replace(answer, server=kind.name, other_server=kind.other)


def _answer(base: str, health: "Reply", version: "Reply", models: "Reply", metrics: "Reply") -> ServerAnswer:
    listed, longest = _listed(models)
    failed = next((reply for reply in (health, models) if _failure(reply) is not None), None)
    return ServerAnswer(
        url=redact.line(base),
        health_status=health.status,
        version=_version(version),
        models=listed,
        max_model_len=longest,
        problem=None if failed is None else redact.line(f"{failed.url}: {failed.problem or failed.cut}"),
        failure=None if failed is None else _failure(failed),
        models_status=None if _failure(models) is not None else models.status,
        metrics=_metrics(metrics),
    )


def _metrics(reply: "Reply") -> tuple[Metric, ...] | Unknown:
    from vllm_doctor.client import health_rules, metrics

    sample = metrics.read(reply)
    if sample is None:
        return Unknown(f"GET /metrics: {reply.status or reply.problem}, nothing of vLLM in it")
    return metrics.facts(sample, health_rules.METRICS)


def _failure(reply: "Reply") -> str | None:
    """The kind of failure in the words of the facts; a body that does not end in time is one as well."""
    if reply.cut is not None and "in time" in reply.cut:
        return "timeout"
    return {"closed": "not-http", "proxy": "other"}.get(reply.failure or "", reply.failure)


def _owner(reply: "Reply") -> str | None:
    from vllm_doctor.client.names import served

    return next((model.owner for model in served(reply) or () if model.owner), None) if reply.ok else None


def _version(reply: "Reply") -> str | None:
    if reply.status != 200:
        return None
    try:
        return redact.line(msgspec.json.decode(reply.body, type=_Version).version, 80)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def _listed(reply: "Reply") -> tuple[tuple[str, ...] | Unknown, int | None]:
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
