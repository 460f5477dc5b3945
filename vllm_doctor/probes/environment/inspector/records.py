"""Finds the files of a RECORD that are gone, by listing each folder once instead of asking for every file."""

from __future__ import annotations

import os

from .files import read_bytes

MAXIMUM_RECORD_BYTES = 24 * 2**20
SAMPLE = 20

# Images are slimmed by deleting such folders; no import meets them.
_NOT_MISSED = frozenset((b"tests", b"test", b"examples", b"docs", b"benchmarks"))

# Files below that many folders are looked at in vLLM and torch only: the 500 model folders of transformers alone cost
# as much as the rest of the inspection, and a half deleted distribution has lost files higher up.
SHALLOW = 2


def missing_files(location: str, record: str, shallow: bool) -> tuple[list[str], int]:
    """The modules and libraries of a RECORD that are not there: a sample, and how many."""
    data = read_bytes(record, MAXIMUM_RECORD_BYTES)
    if data is None:
        return [], 0
    missing: list[bytes] = []
    base = os.fsencode(location)
    for folder, names in _by_folder(data, shallow).items():
        missing += [folder + b"/" + n if folder else n for n in _absent(base, folder, names)]
    sample = sorted(missing)[:SAMPLE]
    return [os.fsdecode(m) for m in sample], len(missing)


def _by_folder(data: bytes, shallow: bool) -> dict[bytes, list[bytes]]:
    """The modules and libraries by folder.

    RECORD is `path,sha256=...,size` per line. Splitting at the hash is done in C, and drops the lines without one (the
    byte code that pip compiled) at no cost.
    """
    folders: dict[bytes, list[bytes]] = {}
    for piece in data.split(b",sha256="):
        if piece[-3:] in (b".py", b".so") or b".so." in piece[-14:]:
            folder, _, name = piece[piece.rfind(b"\n") + 1 :].rpartition(b"/")
            if shallow and folder.count(b"/") >= SHALLOW:
                continue
            if folder in folders:
                folders[folder].append(name)
            elif not folder.startswith((b"../", b"/", b'"')) and folder != b"..":
                folders[folder] = [name]
    return folders


def _absent(base: bytes, folder: bytes, names: list[bytes]) -> list[bytes]:
    try:
        present = os.listdir(os.path.join(base, folder))
    except (FileNotFoundError, NotADirectoryError):
        present = []
    except (OSError, ValueError):
        return []
    absent = set(names).difference(present)
    if not absent or not _NOT_MISSED.isdisjoint(folder.split(b"/")):
        return []
    there = frozenset(present)
    # Byte code alone (`module.pyc` beside where module.py was) imports as well.
    return [n for n in absent if n + b"c" not in there]
