"""The servers probe: vLLM servers of this host, who listens on the ports in question, and what one URL answers."""

from collections.abc import Iterable
from urllib.parse import urlsplit

from msgspec import structs

from vllm_doctor.facts import Server, ServerAnswer, Servers, Unknown
from vllm_doctor.probes.servers import answers, binding, listeners, running

# A server of this host answers in milliseconds; one that does not within this time does not answer its clients either.
LOCAL_SECONDS = 5.0

MAXIMUM_ASKED = 16


def probe_servers(
    url: str | None = None, *, ports: tuple[int, ...] = (), address: str | None = None, timeout_seconds: float = 5
) -> Servers:
    """The facts about servers; `ports` are those whose holders are to be named, `url` the server to ask.

    `address` is the one that a launch would bind to: it is tried, with a port of the system's choice.

    Raises DoctorError where `url` is no http or https URL. Nothing leaves this host unless `url` is given: the servers
    that were found here and listen are asked at an address of this host.
    """
    found = listeners.listening()
    open_ports = None if isinstance(found, Unknown) else frozenset(socket.port for socket in found)
    servers = running.servers(open_ports)
    wanted_answer = None if url is None else answers.asking(url, timeout_seconds)
    local = _local(servers, found, min(LOCAL_SECONDS, timeout_seconds))
    asked = local if wanted_answer is None else (wanted_answer.result(), *local)
    wanted = {*ports, *(server.port for server in servers if server.port is not None)}
    if url is not None:
        wanted.add(urlsplit(answers.base_url(url)).port or 80)
    return Servers(
        running=servers,
        listeners=found
        if isinstance(found, Unknown)
        else listeners.facts(found, wanted, {server.pid: server.command for server in servers}),
        answers=asked,
        bind_problem=None if address is None else binding.problem(address),
    )


def _local(
    servers: Iterable[Server], found: tuple[listeners.Socket, ...] | Unknown, timeout_seconds: float
) -> tuple[ServerAnswer, ...]:
    """What the found servers answer that listen here; all are asked at once.

    One with a certificate is not: its name is not known here, and the certificate is for its name.
    """
    sockets = () if isinstance(found, Unknown) else found
    asked: list[tuple[int, answers.Asking]] = []
    for server in servers:
        addresses = [socket.address for socket in sockets if socket.port == server.port]
        if server.listening and addresses and not server.tls and len(asked) < MAXIMUM_ASKED:
            url = f"http://{listeners.reachable(addresses)}:{server.port}"
            asked.append((server.pid, answers.asking(url, timeout_seconds)))
    return tuple(structs.replace(one.result(), pid=pid) for pid, one in asked)
