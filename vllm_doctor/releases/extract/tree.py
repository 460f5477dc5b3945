"""Reads a vLLM source tree module by module, in bounded bites, without running any of it."""

from __future__ import annotations

import ast
import os
import warnings
from dataclasses import dataclass, field
from pathlib import Path

MAXIMUM_FILE_BYTES = 4 * 1024 * 1024
"""The largest source file of vLLM 0.4.0 - 0.33.0 has 0.3 MB; anything ten times as large is not vLLM's source."""

MAXIMUM_FILES = 20_000
"""vLLM 0.33.0 has about 2,700 Python files."""


@dataclass(frozen=True)
class Imported:
    """A name that a module took from another: `from module import name` (`name` None: `import module`)."""

    module: str
    name: str | None


Binding = ast.expr | ast.ClassDef | ast.FunctionDef | Imported
"""What a module-level name stands for, unevaluated."""


@dataclass(eq=False)
class Module:
    """One parsed source file: its module-level names, those seen only by type checkers apart."""

    name: str
    is_package: bool
    body: list[ast.stmt]
    text: str
    bindings: dict[str, Binding] = field(default_factory=dict)
    typing_bindings: dict[str, Binding] = field(default_factory=dict)
    annotations: dict[str, ast.expr] = field(default_factory=dict)
    stars: list[str] = field(default_factory=list)


class SourceTree:
    """The `vllm/` folder of an unpacked source archive or of a site-packages folder."""

    def __init__(self, package: Path) -> None:
        self.package = package
        self._modules: dict[str, Module | None] = {}
        self._texts: dict[Path, str] = {}

    def module(self, name: str) -> Module | None:
        """The module of that dotted name (`vllm.config.cache`), or None when the tree has none or it does not parse."""
        if name not in self._modules:
            self._modules[name] = self._load(name)
        return self._modules[name]

    def text(self, path: Path) -> str:
        """A file's text; empty when it is missing, too large, or outside the tree."""
        if path not in self._texts:
            self._texts[path] = read_text(path) if _is_inside(path, self.package) else ""
        return self._texts[path]

    def paths(self, under: str = "") -> list[Path]:
        """Every Python file below a folder of the package, sorted; links to folders are not followed."""
        found: list[Path] = []
        for folder, folders, names in os.walk(self.package / under):
            folders[:] = sorted(name for name in folders if name != "__pycache__")
            found += [Path(folder, name) for name in sorted(names) if name.endswith(".py")]
            if len(found) > MAXIMUM_FILES:
                break
        return found[:MAXIMUM_FILES]

    def module_name(self, path: Path) -> str:
        """The dotted name of a file of this tree."""
        parts = path.relative_to(self.package).with_suffix("").parts
        return ".".join(("vllm", *(part for part in parts if part != "__init__")))

    def defining(self, word: str, under: str = "") -> list[Module]:
        """The modules below a folder whose text contains a word, for finding what has moved between releases."""
        names = [self.module_name(path) for path in self.paths(under) if word in self.text(path)]
        return [module for module in map(self.module, names) if module is not None]

    def _load(self, name: str) -> Module | None:
        parts = name.split(".")
        if parts[0] != "vllm" or not all(part.isidentifier() for part in parts):
            return None
        plain = self.package.joinpath(*parts[1:]).with_suffix(".py") if len(parts) > 1 else None
        for path in (plain, self.package.joinpath(*parts[1:], "__init__.py")):
            if path is not None and path.is_file():
                return parse_module(self.text(path), name, path.name == "__init__.py")
        return None


def read_text(path: Path) -> str:
    """A file's text with undecodable bytes replaced; empty when it cannot be read or is larger than any source file."""
    try:
        if path.stat().st_size > MAXIMUM_FILE_BYTES:
            return ""
        return path.read_bytes().decode("utf-8", errors="replace")
    except OSError:
        return ""


def parse_module(text: str, name: str, is_package: bool) -> Module | None:
    """Parse source text; None when it is not Python that this interpreter can read."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            body = ast.parse(text).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    module = Module(name, is_package, body, text)
    _bind_all(module, body, module.bindings)
    return module


def absolute_name(module: Module, name: str | None, level: int) -> str:
    """The dotted name that an import statement means (`from ..x import y` inside a module)."""
    if level == 0:
        return name or ""
    parts = module.name.split(".")
    base = parts[: len(parts) - level + (1 if module.is_package else 0)]
    return ".".join([*base, name] if name else base)


def import_bindings(module: Module, statement: ast.Import | ast.ImportFrom) -> dict[str, Imported]:
    """The names that one import statement binds."""
    if isinstance(statement, ast.Import):
        return {
            alias.asname or alias.name.split(".")[0]: Imported(
                alias.name if alias.asname else alias.name.split(".")[0], None
            )
            for alias in statement.names
        }
    source = absolute_name(module, statement.module, statement.level)
    return {alias.asname or alias.name: Imported(source, alias.name) for alias in statement.names if alias.name != "*"}


def _bind_all(module: Module, body: list[ast.stmt], into: dict[str, Binding]) -> None:
    for statement in body:
        if isinstance(statement, ast.If):
            _bind_condition(module, statement, into)
        elif isinstance(statement, ast.Try):
            _bind_all(module, statement.body, into)
            for handler in statement.handlers:
                _bind_missing(module, handler.body, into)
        else:
            _bind(module, statement, into)


def _bind_condition(module: Module, statement: ast.If, into: dict[str, Binding]) -> None:
    """`if TYPE_CHECKING:` binds for type checkers only; of any other condition the first branch wins."""
    if "TYPE_CHECKING" in ast.unparse(statement.test):
        _bind_all(module, statement.body, module.typing_bindings)
        _bind_all(module, statement.orelse, into)
        return
    _bind_all(module, statement.body, into)
    _bind_missing(module, statement.orelse, into)


def _bind_missing(module: Module, body: list[ast.stmt], into: dict[str, Binding]) -> None:
    found: dict[str, Binding] = {}
    _bind_all(module, body, found)
    for name, binding in found.items():
        into.setdefault(name, binding)


def _bind(module: Module, statement: ast.stmt, into: dict[str, Binding]) -> None:
    match statement:
        case ast.ClassDef(name=name) | ast.FunctionDef(name=name):
            into[name] = statement
        case ast.Assign(targets=[ast.Name(id=name)], value=value):
            into[name] = value
        case ast.AnnAssign(target=ast.Name(id=name), annotation=annotation, value=given):
            module.annotations[name] = annotation
            if given is not None:
                into[name] = given
        case ast.Import() | ast.ImportFrom():
            into.update(import_bindings(module, statement))
            if isinstance(statement, ast.ImportFrom) and any(alias.name == "*" for alias in statement.names):
                module.stars.append(absolute_name(module, statement.module, statement.level))


def _is_inside(path: Path, folder: Path) -> bool:
    try:
        return path.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError):
        return False
