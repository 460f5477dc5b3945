"""What a vLLM source expression can stand for when it is read instead of run.

Plain Python values (str, int, list, dict, ...) stand for themselves; everything else is one of the types below.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass, field
from typing import TypeAlias

from vllm_doctor.releases.extract.tree import Module

Value: TypeAlias = object

MAXIMUM_WEIGHT = 50_000
"""Parts in one value. The largest of any release, the model registry, has about 2,000; source that doubles a value over
and over would otherwise fill the memory."""

CHARACTERS_PER_PART = 100
"""How much text weighs as much as one part."""


@dataclass(frozen=True)
class Unknown:
    """A value that only running the code would tell, with its source text (`str`, `json.loads`, `get_ip()`)."""

    text: str


@dataclass(frozen=True)
class Hint:
    """A type hint with arguments: `Literal["a"]`, `dict[str, int]`, `Union` of its members."""

    origin: str
    arguments: tuple[Value, ...]


@dataclass(frozen=True, eq=False)
class ClassRef:
    """A class of the examined tree."""

    module: Module
    node: ast.ClassDef

    @property
    def name(self) -> str:
        """The class's own name."""
        return self.node.name


@dataclass(frozen=True, eq=False)
class FunctionRef:
    """A function or method of the examined tree, with the class that owns it."""

    module: Module
    node: ast.FunctionDef
    owner: ClassRef | None = None


@dataclass(frozen=True, eq=False)
class ModuleRef:
    """A module of the examined tree."""

    module: Module


@dataclass(frozen=True)
class EnumMember:
    """One member of an enum of the examined tree."""

    owner: str
    name: str
    value: Value


@dataclass(frozen=True)
class Instance:
    """An object made by calling a class: only the class's name is kept."""

    class_name: str


@dataclass(frozen=True)
class Missing:
    """No default given."""


@dataclass(frozen=True, eq=False)
class FieldSpec:
    """`dataclasses.field(...)` or pydantic's `Field(...)`, its default already worked out."""

    default: Value


@dataclass(eq=False)
class ParserRef:
    """An argparse parser or one of its groups; `declared` collects what `add_argument` was called with."""

    name: str = ""
    declared: list[Declaration] = field(default_factory=list)
    children: list[ParserRef] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class Declaration:
    """One call of `add_argument`: the option strings and the keyword arguments."""

    options: tuple[str, ...]
    keywords: dict[str, Value]


@dataclass(eq=False)
class Frame:
    """Where a name is looked up: local names first, then the module's."""

    module: Module
    names: dict[str, Value] = field(default_factory=dict)
    owner: ClassRef | None = None
    depth: int = 0


@dataclass(frozen=True, eq=False)
class LambdaRef:
    """An unevaluated `lambda`, with the frame that it closes over."""

    node: ast.Lambda
    frame: Frame

    @property
    def text(self) -> str:
        """The source of the lambda."""
        return ast.unparse(self.node)


def is_bulky(value: Value) -> bool:
    """Whether a value has more parts than any that vLLM's own source builds."""
    return weight_of(value) > MAXIMUM_WEIGHT


def weight_of(value: Value) -> int:
    """How many parts a value has; stops counting soon after `MAXIMUM_WEIGHT`."""
    pending, weight = [value], 0
    while pending and weight <= MAXIMUM_WEIGHT:
        part = pending.pop()
        weight += 1
        match part:
            case str():
                weight += len(part) // CHARACTERS_PER_PART
            case list() | tuple() | set():
                pending += part
            case dict():
                pending += [*part.keys(), *part.values()]
            case Hint():
                pending += part.arguments
    return weight


def text_of(value: Value) -> str:
    """A short name of a value, for deciding what a converter or a type hint is called."""
    match value:
        case Unknown(text=text) | LambdaRef(text=text):
            return text
        case ClassRef():
            return value.name
        case FunctionRef():
            return value.node.name
        case Hint(origin=origin):
            return origin
    return value if isinstance(value, str) else type(value).__name__
