"""The servers probe: vLLM servers of this host, who listens on the ports in question, and what one URL answers."""

from urllib.parse import urlsplit

from vllm_doctor.facts import Servers, Unknown
from vllm_doctor.probes.servers import answers, binding, listeners, running


def probe_servers(
    url: str | None = None, *, ports: tuple[int, ...] = (), address: str | None = None, timeout_seconds: float = 5
) -> Servers:
    """The facts about servers; `ports` are those whose holders are to be named, `url` the server to ask.

    `address` is the one that a launch would bind to: it is tried, with a port of the system's choice.

    Raises DoctorError where `url` is no http or https URL. Nothing is sent anywhere unless `url` is given.
    """
    found = listeners.listening()
    open_ports = None if isinstance(found, Unknown) else frozenset(socket.port for socket in found)
    servers = running.servers(open_ports)
    asked = () if url is None else (answers.ask(url, timeout_seconds),)
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
