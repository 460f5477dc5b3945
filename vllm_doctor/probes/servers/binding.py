"""Whether this host can bind to an IP address: tried for a moment, with a port of the system's choice."""

import ipaddress
import socket


def problem(address: str) -> str | None:
    """What the system says against it; None where it can be bound to, and for a name, which is not resolved here."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return None
    family = socket.AF_INET6 if parsed.version == 6 else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as trial:
            trial.bind((address, 0))
    except OSError as refusal:
        return refusal.strerror or str(refusal)
    return None
