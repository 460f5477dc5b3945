"""Finds which file an import would take, by the rules of Python's path finder."""

from __future__ import annotations

import os

from .files import names_in, read_text

_SUFFIXES = (".abi3.so", ".so", ".py", ".pyc")
MAXIMUM_FINDER_BYTES = 2**20


class Modules:
    """The importable modules of a search path; `finders` are setuptools' editable finders, which come last."""

    def __init__(self, finders: list[str]) -> None:
        self._finders = finders
        self._mapping: dict[str, str] | None = None

    def find(self, name: str, folders: list[str]) -> str | None:
        """The folder of a package or the file of a module, in the first folder that has it."""
        for folder in folders:
            found = in_folder(name, folder)
            if found is not None:
                return found
        return None

    def find_installed(self, name: str, folders: list[str]) -> str | None:
        """The same, and then where an editable install says that it is."""
        return self.find(name, folders) or self._editable(name)

    def _editable(self, name: str) -> str | None:
        if self._mapping is None:
            self._mapping = {}
            for finder in self._finders:
                self._mapping.update(_finder_mapping(read_text(finder, MAXIMUM_FINDER_BYTES) or ""))
        path = self._mapping.get(name)
        return path if path is not None and os.path.exists(path) else None


def in_folder(name: str, folder: str) -> str | None:
    """A package before a module; a folder without `__init__` is a namespace, which any real one beats."""
    names = names_in(folder)
    if name in names:
        package = os.path.join(folder, name)
        if any(("__init__" + suffix) in names_in(package) for suffix in _SUFFIXES) and _has_init(package):
            return package
    for other in names:
        if other.startswith(name + ".") and _is_module(name, other):
            return os.path.join(folder, other)
    return None


def _has_init(package: str) -> bool:
    """Whether it is really there: uv can install links into its cache, which may have been cleaned."""
    return any(os.path.isfile(os.path.join(package, "__init__" + suffix)) for suffix in _SUFFIXES)


def _is_module(name: str, file: str) -> bool:
    rest = file[len(name) :]
    return rest in _SUFFIXES or (rest.startswith(".cpython-") and rest.endswith(".so"))


def _finder_mapping(text: str) -> dict[str, str]:
    """`MAPPING = {...}` of setuptools' finder (setuptools, command/editable_wheel.py), as a literal."""
    import ast

    for line in text.splitlines():
        if line.startswith("MAPPING"):
            try:
                value = ast.literal_eval(line.partition("= ")[2])
            except (ValueError, SyntaxError, MemoryError, RecursionError):
                return {}
            if isinstance(value, dict):
                return {k: v for k, v in value.items() if isinstance(k, str) and isinstance(v, str) and "\0" not in v}
    return {}
