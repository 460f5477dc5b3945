"""GET /health with a bare socket: what asks twice a second beside a starting server has to be light."""

import socket
from urllib.parse import urlsplit

# The server is on this machine: it answers at once, or is busy with its start.
TIMEOUT_SECONDS = 3.0
_REPLY_BYTES = 64


def answers(url: str) -> bool:
    """Whether the server of that http URL answers /health with a status that means health.

    vLLM answers 200, and 503 with a dead engine (entrypoints/serve/instrumentator/health.py). A server that knows no
    /health answers 404, and is up.
    """
    parts = urlsplit(url)
    host = parts.hostname or "127.0.0.1"
    request = f"GET /health HTTP/1.0\r\nHost: {parts.netloc}\r\nConnection: close\r\n\r\n".encode()
    try:
        with socket.create_connection((host, parts.port or 80), TIMEOUT_SECONDS) as connection:
            connection.sendall(request)
            words = connection.recv(_REPLY_BYTES).split()
    except OSError:
        return False
    return len(words) > 1 and words[0].startswith(b"HTTP/") and words[1].isdigit() and 200 <= int(words[1]) < 500
