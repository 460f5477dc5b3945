"""Where the dynamic loader would find libcuda.so.1: LD_LIBRARY_PATH, its cache, the standard folders."""

import os
import struct
from collections.abc import Iterator
from pathlib import Path

from vllm_doctor.paths import is_there
from vllm_doctor.probes.host import files

LIBCUDA = "libcuda.so.1"

MAXIMUM_CACHE_BYTES = 8 * 2**20
MAXIMUM_FOLDERS = 200

# glibc `sysdeps/generic/dl-cache.h`: a header of 48 bytes, entries of 24; both formats may follow each other in a file.
_MAGIC = b"glibc-ld.so.cache1.1"
_HEADER_BYTES = 48
_ENTRY = struct.Struct("=iIIIQ")

# The architecture bits of an entry's flags (`FLAG_X8664_LIB64`, `FLAG_AARCH64_LIB64`, ...).
_ARCHITECTURES = {"x86_64": 0x0300, "aarch64": 0x0A00, "ppc64le": 0x0500, "s390x": 0x0400}


def library_folders(value: str) -> tuple[str, ...]:
    """The folders of an LD_LIBRARY_PATH, in order; an empty entry is the current folder."""
    if not value:
        return ()
    return tuple(folder or "." for folder in value.replace(";", ":").split(":"))[:MAXIMUM_FOLDERS]


def libcuda_paths(library_path: tuple[str, ...], machine: str) -> tuple[str, ...]:
    """The files that the loader would take for libcuda.so.1, the first one first (ld.so(8))."""
    triple = f"{machine}-linux-gnu"
    standard = (f"/lib/{triple}", f"/usr/lib/{triple}", "/lib64", "/usr/lib64", "/lib", "/usr/lib")
    cache = files.head("/etc/ld.so.cache", MAXIMUM_CACHE_BYTES) or b""
    wanted = [f"{folder}/{LIBCUDA}" for folder in library_path]
    wanted += cached(cache, LIBCUDA, machine)
    wanted += [f"{folder}/{LIBCUDA}" for folder in standard]
    return tuple(dict.fromkeys(path for path in wanted if is_there(Path(path))))


def cached(cache: bytes, library: str, machine: str) -> list[str]:
    """The paths that an ld.so.cache holds for a library and this machine's architecture, in order."""
    start = cache.find(_MAGIC)
    if start < 0 or len(cache) < start + _HEADER_BYTES:
        return []
    table = cache[start:]
    keys = set(_places(table, library.encode() + b"\0"))
    if not keys:
        return []
    count = struct.unpack_from("=I", table, len(_MAGIC))[0]
    end = min(_HEADER_BYTES + count * _ENTRY.size, len(table))
    entries = table[_HEADER_BYTES : end - (end - _HEADER_BYTES) % _ENTRY.size]
    bits = _ARCHITECTURES.get(machine)
    return [
        path
        for flags, key, value, _, _ in _ENTRY.iter_unpack(entries)
        if key in keys and (bits is None or flags & 0xFF00 == bits) and (path := _string(table, value))
    ]


def _places(table: bytes, needle: bytes) -> Iterator[int]:
    # The strings share their tails: a name may lie within a path, and its offset is then inside that.
    place = table.find(needle)
    while place >= 0:
        yield place
        place = table.find(needle, place + 1)


def _string(table: bytes, offset: int) -> str:
    end = table.find(b"\0", offset, offset + 4096)
    return "" if end < 0 else os.fsdecode(table[offset:end])
