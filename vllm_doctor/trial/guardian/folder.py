"""The job's own folder: made for it alone, and removed with everything in it."""

import os
import stat
from collections.abc import Callable

# What a server logs is kept up to here: its beginning, and what came last. A flood costs no disk.
LOG_BYTES = 64 * 2**20
LOG_HEAD_BYTES = 16 * 2**20
LOG_TAIL_BYTES = 2**20


def make(path: str) -> None:
    """The folder, with one for TMPDIR in it; raises OSError, also where the name is taken."""
    os.mkdir(path, 0o700)
    os.mkdir(temporary(path), 0o700)


def temporary(path: str) -> str:
    """The folder that is the server's TMPDIR: as short as can be, for the paths of sockets hold 107 characters."""
    return f"{path}/t"


def log(path: str) -> str:
    """The file that the server writes to."""
    return f"{path}/log"


def open_log(path: str) -> int:
    """The log: whatever is written goes to its end, so that it can be cut at any time."""
    return os.open(log(path), os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)


def cut(descriptor: int) -> bool:
    """Cut a log that has grown too long down to its beginning and its end; True where that was done."""
    size = os.fstat(descriptor).st_size
    if size <= LOG_BYTES:
        return False
    tail = os.pread(descriptor, LOG_TAIL_BYTES, size - LOG_TAIL_BYTES)
    os.ftruncate(descriptor, LOG_HEAD_BYTES)
    os.write(descriptor, b"\n" + tail)
    return True


def sockets(path: str) -> "list[str]":
    """The sockets in the folder."""
    return [f"{where}/{name}" for where, _, names in os.walk(path) for name in names if _is_socket(f"{where}/{name}")]


def remove(path: str) -> None:
    """The folder with everything in it; links are removed, never followed."""
    for where, folders, names in os.walk(path, topdown=False):
        for name in names:
            _quietly(os.unlink, f"{where}/{name}")
        for name in folders:
            # A link to a folder is listed among the folders.
            inner = f"{where}/{name}"
            _quietly(os.unlink if os.path.islink(inner) else os.rmdir, inner)
    _quietly(os.rmdir, path)


def _is_socket(path: str) -> bool:
    try:
        return stat.S_ISSOCK(os.lstat(path).st_mode)
    except OSError:
        return False


def _quietly(action: Callable[[str], None], path: str) -> None:
    try:
        action(path)
    except OSError:
        return
