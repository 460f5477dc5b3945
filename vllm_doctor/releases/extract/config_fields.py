"""Turns the fields of a vLLM config class into argparse keywords, as vLLM's own `get_kwargs` does.

Source: `vllm/engine/arg_utils.py`, functions `get_kwargs` and `_compute_kwargs`, releases 0.8.4 - 0.33.0. What differs
between releases is read from the text of that function itself.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vllm_doctor.releases.extract.values import (
    ClassRef,
    FieldSpec,
    Frame,
    FunctionRef,
    Hint,
    Missing,
    Unknown,
    Value,
    text_of,
)

if TYPE_CHECKING:
    from vllm_doctor.releases.extract.expressions import Expressions

DATACLASS_DECORATORS = ("dataclass", "config")

BUILTINS = {"str", "int", "float", "bool", "dict", "list", "tuple", "set", "None", "object", "type"}


@dataclass(frozen=True)
class Dialect:
    """What one release's `get_kwargs` does that others do not."""

    free_literals: bool
    optional_value: bool
    dict_subclasses: bool
    human_integers: frozenset[str]
    human_or_auto: frozenset[str]


def dialect_of(function: Value) -> Dialect:
    """Read a release's own `get_kwargs` for its habits."""
    text = ""
    if isinstance(function, FunctionRef):
        module = function.module
        helpers = [module.bindings.get(name) for name in ("get_kwargs", "_compute_kwargs", "literal_to_kwargs")]
        text = "\n".join(ast.unparse(helper) for helper in helpers if isinstance(helper, ast.FunctionDef))
    return Dialect(
        free_literals="metavar" in text,
        optional_value="'nargs'] = '?'" in text,
        dict_subclasses="is_dict_subclass" in text,
        human_integers=frozenset(_names_before(text, "human_readable_int")),
        human_or_auto=frozenset(_names_before(text, "human_readable_int_or_auto")),
    )


def _names_before(text: str, converter: str) -> list[str]:
    """The fields that a branch sends to a converter: `if name == 'x':`, `if name in {...}:` or a named set above it."""
    found: list[str] = []
    pattern = rf"if name (?:==|in) ([^\n]*):\n[^\n]*'type'\] = {converter}\n"
    for condition in re.findall(pattern, text):
        named = re.search(rf"{re.escape(condition)} = (.*)", text) if condition.isidentifier() else None
        found += re.findall(r"'(\w+)'", named.group(1) if named else condition)
    return found


def keyword_arguments(machine: Expressions, owner: ClassRef, function: Value) -> Value:
    """`get_kwargs(owner)`: argparse keywords by field name."""
    dialect = dialect_of(function)
    found: dict[Value, Value] = {}
    for name, (annotation, default, frame, help_text) in config_fields(machine, owner).items():
        hints = hint_members(machine.annotation(annotation, frame))
        if dialect.dict_subclasses:
            hints = [Unknown("dict") if _is_dict_subclass(machine, hint) else hint for hint in hints]
        keywords: dict[Value, Value] = {"default": _resolved(machine, default, frame), "help": help_text}
        keywords.update(_typed(machine, name, hints, dialect))
        found[name] = keywords
    return found


FieldSource = tuple[ast.expr, ast.expr | None, Frame, str]


def config_fields(machine: Expressions, owner: ClassRef) -> dict[str, FieldSource]:
    """The dataclass fields of a class, inherited ones first: annotation, default, frame and docstring."""
    found: dict[str, FieldSource] = {}
    for current in reversed(list(machine.lineage(owner))):
        body = current.node.body
        for index, statement in enumerate(body):
            match statement:
                case ast.AnnAssign(target=ast.Name(id=name), annotation=annotation, value=default):
                    if not ast.unparse(annotation).split(".")[-1].startswith(("ClassVar", "InitVar")):
                        frame = Frame(current.module, owner=current)
                        found[name] = (annotation, default, frame, _docstring_after(body, index))
    return found


def _docstring_after(body: list[ast.stmt], index: int) -> str:
    following = body[index + 1] if index + 1 < len(body) else None
    match following:
        case ast.Expr(value=ast.Constant(value=str() as text)):
            return text.strip()
    return ""


def _resolved(machine: Expressions, default: ast.expr | None, frame: Frame) -> Value:
    if default is None:
        return None
    value = machine.evaluate(default, frame)
    if isinstance(value, FieldSpec):
        value = value.default
    return None if isinstance(value, Missing) else value


def hint_members(hint: Value) -> list[Value]:
    """The alternatives of a type hint: `Optional`, `Union` and `Annotated` are opened."""
    if isinstance(hint, Hint) and hint.origin == "Annotated":
        return hint_members(hint.arguments[0])
    if isinstance(hint, Hint) and hint.origin == "Union":
        return [member for argument in hint.arguments for member in hint_members(argument)]
    return [hint]


def hint_name(hint: Value) -> str:
    """The lower-case origin of a type hint: `list` for `List[int]`, `none` for None, a class's name for a class."""
    if hint is None:
        return "None"
    name = text_of(hint).split(".")[-1]
    return name.lower() if name in ("List", "Dict", "Tuple", "Set") else name


def _typed(machine: Expressions, name: str, hints: list[Value], dialect: Dialect) -> dict[Value, Value]:
    names = [hint_name(hint) for hint in hints]
    keywords = _by_type(machine, name, hints, names, dialect)
    if "None" in names and "bool" not in names:
        keywords["type"] = Unknown(f"optional_type({text_of(keywords.get('type', Unknown('str')))})")
    return keywords


def _by_type(
    machine: Expressions, name: str, hints: list[Value], names: list[str], dialect: Dialect
) -> dict[Value, Value]:
    """The same order of questions as vLLM's `_compute_kwargs`."""
    if any(is_dataclass(machine, hint) for hint in hints):
        return {"type": Unknown("parse_dataclass")}
    if dialect.optional_value and set(names) == {"bool", "str", "None"}:
        return {"type": Unknown("str"), "nargs": "?"}
    if "bool" in names:
        return {"action": Unknown("argparse.BooleanOptionalAction")}
    if "Literal" in names:
        return literal_keywords(hints[names.index("Literal")], free=dialect.free_literals and "str" in names)
    for collection in ("tuple", "list", "set"):
        if collection in names:
            return _collection_keywords(hints[names.index(collection)], collection)
    if "int" in names:
        return {"type": _integer_type(name, dialect)}
    if "float" in names:
        return {"type": Unknown("float")}
    if "dict" in names:
        mixed = "str" in names or any(hint not in BUILTINS for hint in names)
        return {"type": Unknown("union_dict_and_str" if mixed else "parse_type(json.loads)")}
    return {"type": Unknown("str")}


def _integer_type(name: str, dialect: Dialect) -> Unknown:
    if name in dialect.human_or_auto:
        return Unknown("human_readable_int_or_auto")
    return Unknown("human_readable_int" if name in dialect.human_integers else "int")


def literal_keywords(hint: Value, free: bool) -> dict[Value, Value]:
    """Type and choices of a `Literal`; as `metavar` when any other text is accepted as well."""
    options = [option for option in _flattened(hint) if option is not None]
    kind = type(options[0]).__name__ if options else "str"
    return {"type": Unknown(kind), "metavar" if free else "choices": options}


def _flattened(hint: Value) -> list[Value]:
    if not isinstance(hint, Hint):
        return [hint]
    return [option for argument in hint.arguments for option in _flattened(argument)]


def _collection_keywords(hint: Value, collection: str) -> dict[Value, Value]:
    arguments = hint.arguments if isinstance(hint, Hint) else ()
    fixed = collection == "tuple" and not any(text_of(argument) == "..." for argument in arguments)
    keywords: dict[Value, Value] = {"nargs": len(arguments) if fixed and arguments else "+"}
    element: Value = arguments[0] if arguments else Unknown("str")
    if isinstance(element, Hint) and element.origin == "Literal":
        return {**keywords, **literal_keywords(element, free=False)}
    is_union = isinstance(element, Hint) and element.origin == "Union"
    return {**keywords, "type": Unknown("str") if is_union else element}


def is_dataclass(machine: Expressions, hint: Value) -> bool:
    """Whether a type hint is a dataclass of the tree, by its decorators or those of its bases."""
    if not isinstance(hint, ClassRef):
        return False
    decorators = [ast.unparse(item) for current in machine.lineage(hint) for item in current.node.decorator_list]
    return any(text.split("(")[0].split(".")[-1] in DATACLASS_DECORATORS for text in decorators)


def _is_dict_subclass(machine: Expressions, hint: Value) -> bool:
    return isinstance(hint, ClassRef) and bool(machine.base_names(hint) & {"dict", "UserDict"})
