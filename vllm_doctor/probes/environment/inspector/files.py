"""Bounded reads of files and folders; what cannot be read is simply not there."""

from __future__ import annotations

import os

# A folder with more entries is not a site-packages, and reading on would cost seconds.
MAXIMUM_ENTRIES = 200_000

_listings: dict[str, frozenset[str]] = {}


def read_bytes(path: str, maximum_bytes: int = 65536) -> bytes | None:
    """The first bytes of a regular file; None where it cannot be read."""
    try:
        # Without O_NONBLOCK a FIFO in place of the file would hang the reader.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError):
        return None
    try:
        data = os.read(descriptor, maximum_bytes)
        while len(data) < maximum_bytes:
            more = os.read(descriptor, maximum_bytes - len(data))
            if not more:
                break
            data += more
    except OSError:
        return None
    finally:
        os.close(descriptor)
    return data


def read_text(path: str, maximum_bytes: int = 65536) -> str | None:
    """The text of a file that should be UTF-8; None where it cannot be read."""
    data = read_bytes(path, maximum_bytes)
    return None if data is None else data.decode("utf-8", "replace")


def names_in(folder: str) -> frozenset[str]:
    """The names in a folder, empty where it cannot be listed; remembered."""
    names = _listings.get(folder)
    if names is None:
        names = _listings[folder] = frozenset(listed(folder))
    return names


def listed(folder: str) -> list[str]:
    """The names in a folder in the order that the file system, and so Python's import, gives them."""
    try:
        return os.listdir(folder or ".")[:MAXIMUM_ENTRIES]
    except (OSError, ValueError):
        return []


def forget() -> None:
    """Drop the remembered listings (tests look at folders that change)."""
    _listings.clear()
