"""Facts about servers: vLLM servers of this host, who listens on which port, and what one URL answers."""

from collections.abc import Mapping

from vllm_doctor.facts.base import Count, Facts, Section, Unknown


class Listener(Facts, frozen=True, kw_only=True):
    """A TCP port of this host that somebody listens on; `pid` is None where it may not be seen or was not asked for."""

    address: str
    port: Count
    pid: Count | None = None
    command: str | None = None
    user: str | None = None


class Server(Facts, frozen=True, kw_only=True):
    """A vLLM server in the process table; `port` is what its command line says or implies, None where it cannot tell.

    `listening` says whether that port accepts connections: a server that still loads does not. `other_network`: it has
    a network of its own (a container), where the same port is another one; `tls`: it was given a certificate.
    """

    pid: Count
    user: str | Unknown
    command: str
    model: str | None
    port: Count | None
    age_seconds: float | Unknown
    listening: bool | None = None
    other_network: bool = False
    tls: bool = False


class Metric(Facts, frozen=True, kw_only=True):
    """A row of /metrics: a finite value and its labels."""

    name: str
    labels: Mapping[str, str]
    value: float


class ServerAnswer(Section, frozen=True, kw_only=True):
    """What the server at one URL answered; statuses are HTTP's, None where the request failed (see `problem`).

    `failure` is the kind of failure: refused, timeout, name, unreachable, tls, not-http, other. `url` has no /v1.
    `server` is what its answers show it to be, `other_server` that it is a server of models other than vLLM.
    `pid` names the server of this host that was asked because it was found, None where the user gave the URL.
    `metrics` are the rows that the rules of the live server's health read.
    """

    url: str
    health_status: Count | None = None
    version: str | None = None
    models: tuple[str, ...] | Unknown
    max_model_len: Count | None = None
    problem: str | None = None
    failure: str | None = None
    models_status: Count | None = None
    server: str | None = None
    other_server: bool = False
    pid: Count | None = None
    metrics: tuple[Metric, ...] | Unknown = Unknown("/metrics was not asked for")


class Servers(Section, frozen=True):
    """The servers of this host, and what those that listen, and the one of `--url`, answer.

    `bind_problem` is what the system says of binding to the IP address of the launch's `--host`; None where it can be
    bound to, where no such address is given, and in a container.
    """

    running: tuple[Server, ...]
    listeners: tuple[Listener, ...] | Unknown
    answers: tuple[ServerAnswer, ...] = ()
    bind_problem: str | None = None
