"""Reads the distributions: name, version and requirements from the headers of METADATA or PKG-INFO."""

from __future__ import annotations

import os

from .files import listed, read_bytes, read_text

MAXIMUM_DISTRIBUTIONS = 5000
MAXIMUM_REQUIREMENTS = 1000
MAXIMUM_HEADER_BYTES = 2**20
_FIRST_READ_BYTES = 32768


class Installed:
    """One distribution; `folder` is its .dist-info or .egg-info (a folder, or a single PKG-INFO file)."""

    def __init__(self, location: str, folder: str) -> None:
        self.location = location
        self.folder = folder
        self.name = ""
        self.version: str | None = None
        self.requires: list[str] = []
        self.requires_python: str | None = None
        self.missing: list[str] = []
        self.missing_count = 0
        self.editable = False

    @property
    def record(self) -> str:
        """The list of its files."""
        return os.path.join(self.location, self.folder, "RECORD")

    def fields(self) -> dict[str, object]:
        """What is told of it."""
        return {
            "name": self.name,
            "version": self.version,
            "location": self.location,
            "requires": self.requires,
            "requires_python": self.requires_python,
            "missing": self.missing,
            "missing_count": self.missing_count,
            "editable": self.editable,
        }


def distributions(search_path: list[str]) -> tuple[list[Installed], list[str], bool]:
    """All distributions in the order of the search path, pip's leftovers, and whether the list is complete.

    Within one folder the order is the file system's: where two versions of a package lie side by side, that order is
    what importlib.metadata decides by.
    """
    found: list[Installed] = []
    leftovers: list[str] = []
    for location in dict.fromkeys(search_path):
        for folder in listed(location):
            if folder.startswith("~"):
                # pip renames what it is about to delete (pip, _internal/utils/temp_dir.py, AdjacentTempDirectory).
                leftovers.append(os.path.join(location, folder))
            elif folder.endswith((".dist-info", ".egg-info")):
                if len(found) >= MAXIMUM_DISTRIBUTIONS:
                    return found, leftovers[:100], False
                found.append(read(location, folder))
    return found, leftovers[:100], True


def read(location: str, folder: str) -> Installed:
    """One distribution; where its metadata is gone, the folder's name gives the name and the version is None."""
    item = Installed(location, folder)
    path = os.path.join(location, folder)
    headers = _headers(os.path.join(path, "METADATA"))
    if headers is None:
        headers = _headers(os.path.join(path, "PKG-INFO")) or _headers(path)
        _add_requires_txt(item, path)
    for line in (headers or b"").splitlines():
        _add_header(item, line)
    if not item.name:
        item.name = normalised(folder.rpartition(".")[0].split("-", 1)[0])
    direct_url = read_text(os.path.join(path, "direct_url.json"), 8192)
    item.editable = direct_url is not None and '"editable":true' in direct_url.replace(" ", "")
    return item


def _headers(path: str) -> bytes | None:
    """The headers, up to the first blank line."""
    data = read_bytes(path, _FIRST_READ_BYTES)
    if data is None:
        return None
    if len(data) == _FIRST_READ_BYTES and b"\n\n" not in data and b"\n\r\n" not in data:
        data = read_bytes(path, MAXIMUM_HEADER_BYTES) or data
    for blank in (b"\n\n", b"\n\r\n"):
        data = data.split(blank, 1)[0]
    return data


def _add_header(item: Installed, line: bytes) -> None:
    # The first letters decide: most lines are classifiers, keywords and licences.
    if line[:13] == b"Requires-Dist":
        if len(item.requires) < MAXIMUM_REQUIREMENTS:
            item.requires.append(_value(line))
    elif line[:5] == b"Name:":
        item.name = item.name or normalised(_value(line))
    elif line[:8] == b"Version:":
        item.version = item.version or _value(line) or None
    elif line[:16] == b"Requires-Python:":
        item.requires_python = _value(line) or None


def _value(line: bytes) -> str:
    return line.partition(b":")[2].decode("utf-8", "replace").strip()


def _add_requires_txt(item: Installed, path: str) -> None:
    """setuptools' requires.txt beside an old PKG-INFO: plain requirements up to the first [section]."""
    text = read_text(os.path.join(path, "requires.txt")) or ""
    for line in text.splitlines()[:MAXIMUM_REQUIREMENTS]:
        if line.startswith("["):
            return
        if line.strip():
            item.requires.append(line.strip())


def normalised(name: str) -> str:
    """The name as PEP 503 compares it."""
    return "-".join([part for part in name.lower().replace("_", "-").replace(".", "-").split("-") if part])


def required_names(item: Installed) -> list[str]:
    """The normalised names that it requires without an extra."""
    names = []
    for requirement in item.requires:
        head, _, marker = requirement.partition(";")
        if "extra" in marker:
            continue
        end = 0
        while end < len(head) and (head[end].isalnum() or head[end] in "-_."):
            end += 1
        names.append(normalised(head[:end]))
    return names
