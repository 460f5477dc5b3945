"""The standard streams of this process: closed, full, or of an encoding that cannot hold what is written."""

import contextlib
import os
import sys
from typing import TextIO


def prepare() -> None:
    """Make every standard stream one that can be written to.

    A descriptor that the caller closed would be given to the next file or child that is opened, which would then
    receive what is meant for the caller: /dev/null takes its place.
    """
    for descriptor in (0, 1, 2):
        _occupy(descriptor)
    sys.stdout = _usable(sys.stdout, 1)
    sys.stderr = _usable(sys.stderr, 2)


def _occupy(descriptor: int) -> None:
    try:
        os.fstat(descriptor)
    except OSError:
        # The lowest free descriptor is this one, for those below it are open by now.
        os.open(os.devnull, os.O_RDONLY if descriptor == 0 else os.O_WRONLY)


def _usable(stream: TextIO | None, descriptor: int) -> TextIO:
    if stream is None:
        return open(descriptor, "w", encoding="utf-8", errors="backslashreplace", closefd=False)
    reconfigure = getattr(stream, "reconfigure", None)
    if reconfigure is not None and getattr(stream, "errors", "") in ("strict", "surrogateescape"):
        reconfigure(errors="backslashreplace")
    return stream


def write_document(document: str) -> None:
    """Write a document and a line break to standard output, in UTF-8, which is what JSON and our XML and HTML are."""
    data = (document + "\n").encode("utf-8", "replace")
    sys.stdout.flush()
    binary = getattr(sys.stdout, "buffer", None)
    if binary is None:
        sys.stdout.write(data.decode("utf-8"))
        return
    binary.write(data)
    binary.flush()


def flush() -> None:
    """Write out what is still held back; raises OSError where it cannot be written."""
    sys.stdout.flush()


def abandon() -> None:
    """Send what nobody can receive to /dev/null, so that the interpreter does not complain about it at its end."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
