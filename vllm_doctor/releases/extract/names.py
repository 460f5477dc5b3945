"""Looks names up across the modules of an examined tree: imports, re-exports, classes and their bases."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from vllm_doctor.releases.extract.tree import Binding, Imported, Module, SourceTree
from vllm_doctor.releases.extract.values import (
    ClassRef,
    EnumMember,
    FieldSpec,
    Frame,
    FunctionRef,
    Missing,
    ModuleRef,
    Unknown,
    Value,
)

MAXIMUM_STEPS = 500_000
"""vLLM 0.33.0, the largest so far, takes about 19,000 steps for its flags."""

KNOWN_CONSTANTS: dict[str, Value] = {"ssl.CERT_NONE": 0, "ssl.CERT_OPTIONAL": 1, "ssl.CERT_REQUIRED": 2}
"""Constants of the standard library that defaults are made of (documentation of `ssl`)."""


class BudgetSpent(Exception):
    """The source took more steps than any release of vLLM does: reading stops."""


class Names:
    """The lookup half of the reader; `evaluate` is given by the expression half."""

    def __init__(self, tree: SourceTree) -> None:
        self.tree = tree
        self.steps = 0
        self._values: dict[tuple[str, str], Value] = {}
        self._open: set[tuple[str, str]] = set()

    def evaluate(self, node: ast.expr, frame: Frame) -> Value:
        """The value of an expression (see `Expressions`)."""
        raise NotImplementedError

    def step(self, weight: int = 1) -> None:
        """Count one step of work, or as many as a value has parts."""
        self.steps += weight
        if self.steps > MAXIMUM_STEPS:
            raise BudgetSpent

    def name(self, name: str, frame: Frame) -> Value:
        """The value of a bare name."""
        if name in frame.names:
            return frame.names[name]
        found = self.member(frame.module, name)
        return Unknown(name) if isinstance(found, Missing) else found

    def member(self, module: Module, name: str) -> Value:
        """The value of a module's name, `Missing` when the module has none; evaluated once."""
        key = (module.name, name)
        if key in self._values:
            return self._values[key]
        if key in self._open:
            return Unknown(name)
        self._open.add(key)
        try:
            self._values[key] = self._member(module, name)
        finally:
            self._open.discard(key)
        return self._values[key]

    def _member(self, module: Module, name: str) -> Value:
        binding = module.bindings.get(name)
        if binding is None:
            for star in module.stars:
                source = self.tree.module(star)
                found = self.member(source, name) if source else Missing()
                if not isinstance(found, Missing):
                    return found
            binding = module.typing_bindings.get(name)
        return Missing() if binding is None else self._bound(module, binding)

    def _bound(self, module: Module, binding: Binding) -> Value:
        match binding:
            case ast.ClassDef():
                return ClassRef(module, binding)
            case ast.FunctionDef():
                return FunctionRef(module, binding)
            case Imported():
                return self.imported(binding)
        return self.evaluate(binding, Frame(module))

    def imported(self, binding: Imported) -> Value:
        """What an import statement brings: a module of the tree, a name of one, or a foreign name."""
        source = self.tree.module(binding.module)
        if binding.name is None:
            return ModuleRef(source) if source else Unknown(binding.module)
        found = self.member(source, binding.name) if source else Missing()
        if not isinstance(found, Missing):
            return found
        submodule = self.tree.module(f"{binding.module}.{binding.name}")
        return ModuleRef(submodule) if submodule else Unknown(binding.name)

    def lineage(self, owner: ClassRef) -> Iterator[ClassRef]:
        """A class and the bases that the tree defines, nearest first."""
        pending, seen = [owner], set[ast.ClassDef]()
        while pending:
            self.step()
            current = pending.pop(0)
            if current.node in seen:
                continue
            seen.add(current.node)
            yield current
            bases = (self.evaluate(base, Frame(current.module)) for base in current.node.bases)
            pending += [base for base in bases if isinstance(base, ClassRef)]

    def base_names(self, owner: ClassRef) -> set[str]:
        """The names of every base of a class, also of those outside the tree."""
        nodes = [base for current in self.lineage(owner) for base in current.node.bases]
        return {ast.unparse(base).split("[")[0].split(".")[-1] for base in nodes}

    def attribute(self, owner: ClassRef, name: str) -> Value:
        """A class attribute as `Class.name` gives it: an enum member, a method, a field's default."""
        for current in self.lineage(owner):
            for statement in current.node.body:
                match statement:
                    case ast.FunctionDef() if statement.name == name:
                        return FunctionRef(current.module, statement, current)
                    case (
                        ast.Assign(targets=[ast.Name(id=found)], value=value)
                        | ast.AnnAssign(target=ast.Name(id=found), value=ast.expr() as value)
                    ) if found == name:
                        return self._class_value(owner, name, value, current)
        return Missing()

    def _class_value(self, owner: ClassRef, name: str, node: ast.expr, current: ClassRef) -> Value:
        value = self.evaluate(node, Frame(current.module, owner=current))
        if self.is_enum(owner):
            return EnumMember(owner.name, name, value)
        return value.default if isinstance(value, FieldSpec) else value

    def is_enum(self, owner: ClassRef) -> bool:
        """Whether a class is an `Enum` of any kind."""
        return any(name.endswith("Enum") or name == "Flag" for name in self.base_names(owner))

    def members(self, owner: ClassRef) -> list[EnumMember]:
        """The members of an enum, in order; none for any other class."""
        if not self.is_enum(owner):
            return []
        names = [
            statement.targets[0].id
            for statement in owner.node.body
            if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name)
        ]
        found = [self.attribute(owner, name) for name in names if not name.startswith("_")]
        return [member for member in found if isinstance(member, EnumMember)]
