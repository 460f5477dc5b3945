"""What this host itself tells of a port: who listens where, and which vLLM servers are still loading."""

import socket

from vllm_doctor.facts import Server, Unknown
from vllm_doctor.probes.servers import listeners, running


def is_here(address: str) -> bool:
    """Whether the IP address is one of this machine's: only those can be bound to."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.bind((address, 0))
    except OSError:
        return False
    return True


def servers() -> tuple[Server, ...]:
    """The vLLM servers in this host's process table."""
    found = listeners.listening()
    ports = None if isinstance(found, Unknown) else frozenset(each.port for each in found)
    return running.servers(ports)


def addresses(port: int) -> tuple[str, ...]:
    """The addresses on which somebody listens on that port here."""
    found = listeners.listening()
    return () if isinstance(found, Unknown) else tuple(each.address for each in found if each.port == port)
