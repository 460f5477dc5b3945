"""Bounded reads of small kernel files."""

import os


def head(path: str, maximum_bytes: int = 4096) -> bytes | None:
    """At most that many bytes from the start of a file; None where it cannot be read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0))
    except (OSError, ValueError):
        return None
    try:
        parts = []
        while maximum_bytes > 0 and (part := os.read(descriptor, maximum_bytes)):
            parts.append(part)
            maximum_bytes -= len(part)
        return b"".join(parts)
    except OSError:
        return None
    finally:
        os.close(descriptor)


def text(path: str, maximum_bytes: int = 4096) -> str | None:
    """The same as text, ends stripped; foreign bytes are kept readable."""
    data = head(path, maximum_bytes)
    return None if data is None else data.decode("utf-8", "replace").strip()


def number(path: str) -> int | None:
    """The whole number that a kernel file holds; None for `max`, nonsense, or no file."""
    value = text(path, 64)
    return int(value) if value is not None and value.isascii() and value.isdecimal() else None
