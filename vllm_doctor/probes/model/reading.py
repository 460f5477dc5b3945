"""Bounded reading of foreign files: regular files only, so many bytes, so many entries, no waiting on pipes."""

import os
import stat
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from vllm_doctor.facts import ModelProblem
from vllm_doctor.paths import is_link

# Deeper than any config there is; msgspec itself stops at the recursion limit.
MAXIMUM_DEPTH = 64
# A repository has some hundred files at most; a folder with more is not one, and is not listed to its end.
MAXIMUM_ENTRIES = 20_000
# The first line of every pointer file (https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md), which is at most
# 1024 bytes long.
LFS_START = b"version https://git-lfs.github.com/spec/"
LFS_BYTES = 1024


class Unreadable(Exception):
    """A file that cannot be read as what it should be, with the problem to record."""

    def __init__(self, kind: str, file: str, detail: str) -> None:
        super().__init__(detail)
        self.problem = ModelProblem(kind=kind, file=file, detail=detail)


def open_regular(path: Path) -> tuple[BinaryIO, int]:
    """A regular file, open, and its size in bytes; a pipe or device is never waited on.

    Raises Unreadable (`missing` where there is none, else `unreadable`).
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise Unreadable("missing", path.name, _gone(path)) from None
    except (OSError, ValueError) as problem:
        reason = problem.strerror if isinstance(problem, OSError) else str(problem)
        raise Unreadable("unreadable", path.name, reason or "cannot be opened") from None
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise Unreadable("unreadable", path.name, "not a regular file")
    return os.fdopen(descriptor, "rb"), status.st_size


def _gone(path: Path) -> str:
    if is_link(path):
        return f"a link to {os.fspath(path.readlink())}, which is not there"
    return "not there"


def read_bytes(path: Path, maximum_bytes: int) -> bytes:
    """The whole content of a regular file; raises Unreadable where it is missing, empty or larger than that."""
    file, size = open_regular(path)
    with file:
        try:
            data = file.read(maximum_bytes + 1)
        except OSError as problem:
            raise Unreadable("unreadable", path.name, problem.strerror or "cannot be read") from None
    if len(data) > maximum_bytes:
        raise Unreadable("unreadable", path.name, f"{size} bytes: larger than {maximum_bytes}")
    if not data.strip():
        raise Unreadable("empty", path.name, f"{size} bytes, nothing in it")
    if is_lfs_pointer(data):
        raise Unreadable("lfs-pointer", path.name, f"{size} bytes: a git-lfs pointer, not the file")
    return data


def is_lfs_pointer(data: bytes) -> bool:
    """Whether the bytes are a git-lfs pointer in place of the file."""
    return len(data) <= LFS_BYTES and data.startswith(LFS_START)


def read_head(path: Path, maximum_bytes: int) -> bytes:
    """The first bytes of a regular file; raises Unreadable where it cannot be read."""
    file, _ = open_regular(path)
    with file:
        try:
            return file.read(maximum_bytes)
        except OSError as problem:
            raise Unreadable("unreadable", path.name, problem.strerror or "cannot be read") from None


def read_ends(path: Path, maximum_bytes: int) -> tuple[bytes, bytes]:
    """The first and the last bytes of a regular file, which overlap where it is short; raises Unreadable."""
    file, size = open_regular(path)
    with file:
        try:
            head = file.read(maximum_bytes)
            file.seek(max(0, size - maximum_bytes))
            return head, file.read(maximum_bytes)
        except OSError as problem:
            raise Unreadable("unreadable", path.name, problem.strerror or "cannot be read") from None


def read_object(path: Path, maximum_bytes: int) -> dict[str, Any]:
    """A JSON object out of a file; raises Unreadable where it is none."""
    return parse_object(read_bytes(path, maximum_bytes), path.name)


def parse_object(data: bytes, name: str) -> dict[str, Any]:
    """A JSON object out of bytes; raises Unreadable (`not-json`) where they are none, or nested too deep.

    NaN and Infinity, which Python's json takes and writes, are read as null: configs of real models hold them.
    """
    try:
        value = msgspec.json.decode(data.removeprefix(b"\xef\xbb\xbf"))
    except (msgspec.DecodeError, UnicodeDecodeError) as problem:
        value = _lenient(data, name, str(problem))
    except RecursionError:
        raise Unreadable("not-json", name, "nested too deep") from None
    if not isinstance(value, dict):
        raise Unreadable("not-json", name, f"holds a {type(value).__name__}, not an object")
    if _deeper(value, MAXIMUM_DEPTH):
        raise Unreadable("not-json", name, f"nested deeper than {MAXIMUM_DEPTH} levels")
    return value


def _lenient(data: bytes, name: str, complaint: str) -> Any:
    import json  # the standard one takes what msgspec refuses: NaN, Infinity

    try:
        value = json.loads(data.decode("utf-8", "strict"), parse_constant=lambda _: None)
        msgspec.json.encode(value)  # refuses half surrogate pairs and integers beyond 64 bits, as the facts do
        return value
    except (ValueError, RecursionError, OverflowError) as problem:
        raise Unreadable("not-json", name, f"{_place(problem)}{complaint}, {len(data)} bytes") from None


def _place(problem: Exception) -> str:
    line = getattr(problem, "lineno", None)
    return f"line {line}: " if line is not None else ""


def _deeper(value: Any, levels: int) -> bool:
    layer = [value]
    for _ in range(levels):
        layer = [m for v in layer for m in _members(v)]
        if not layer:
            return False
    return True


def _members(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [m for m in value.values() if isinstance(m, dict | list)]
    if isinstance(value, list):
        return [m for m in value if isinstance(m, dict | list)]
    return []


def names_in(folder: Path) -> tuple[frozenset[str], bool]:
    """The names in a folder, and whether these are all (at most 20,000 are read)."""
    names: set[str] = set()
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if len(names) >= MAXIMUM_ENTRIES:
                    return frozenset(names), False
                names.add(entry.name)
    except OSError:
        return frozenset(), False
    return frozenset(names), True
