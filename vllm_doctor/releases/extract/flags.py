"""Reads the command line flags of `vllm serve` from a release's source."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from vllm_doctor.releases.extract.machine import Machine
from vllm_doctor.releases.extract.values import (
    ClassRef,
    Declaration,
    EnumMember,
    FunctionRef,
    Instance,
    LambdaRef,
    ParserRef,
    Unknown,
    Value,
    is_bulky,
    text_of,
)

NO_VALUE_ACTIONS = {"store_true", "store_false", "store_const", "append_const", "count"}

INVISIBLE_ACTIONS = {"help", "version"}

REPEATING_ACTIONS = {"append", "append_const", "extend"}

CONVERTERS = (
    ("human_readable_int_or_auto", "human-int-or-auto"),
    ("human_readable_int", "human-int"),
    ("union_dict_and_str", "json-or-str"),
    ("parse_dataclass", "json"),
    ("nullable_kvs", "key-value"),
    ("json.loads", "json"),
    ("dataclass_init", "json"),
    ("from_cli", "json"),
    ("float", "float"),
    ("bool", "bool"),
    ("int", "int"),
)
"""What the name of an argparse `type=` says about the values, most telling first (source: `engine/arg_utils.py`)."""


@dataclass(frozen=True)
class FlagFacts:
    """One flag as argparse would know it; `nargs` is argparse's: "0", "1", "?", "+", "*" or a number."""

    name: str
    kind: str = "str"
    choices: tuple[str, ...] | None = None
    open_choices: bool = False
    default: str | None = None
    repeated: bool = False
    short: tuple[str, ...] = ()
    deprecated: str | None = None
    nargs: str = "1"
    negatable: bool = False
    folded: bool = False
    alias_of: str | None = None


def read_flags(machine: Machine) -> dict[str, FlagFacts]:
    """Every flag of `vllm serve` (before 0.5.2: of the API server) by long name; an alias has an entry of its own."""
    found: dict[str, FlagFacts] = {}
    for declaration in serve_declarations(machine):
        for flag in flags_of(declaration, machine):
            found[flag.name] = flag
    return dict(sorted(found.items()))


def serve_declarations(machine: Machine) -> list[Declaration]:
    """What the parser of `vllm serve` was told, in the order in which it was told."""
    for name, function in (("vllm.entrypoints.cli.serve", "ServeSubcommand"), ("vllm.scripts", "main")):
        module = machine.tree.module(name)
        found = machine.member(module, function) if module else None
        parser = ParserRef()
        if isinstance(found, ClassRef):
            method = machine.attribute(found, "subparser_init")
            if isinstance(method, FunctionRef):
                machine.run(method, [found, parser], {}, 0)
        elif isinstance(found, FunctionRef):
            machine.locals_of(found, [])
            parser = machine_parsers(machine, found)
        serve = next((child for child in parser.children if child.name == "serve"), None)
        if serve and len(serve.declared) > 10:
            return serve.declared
    return _server_declarations(machine)


def machine_parsers(machine: Machine, main: FunctionRef) -> ParserRef:
    """The parser that a `main` function builds, with its subcommands."""
    parsers = [value for value in machine.locals_of(main, []).values() if isinstance(value, ParserRef)]
    return next((parser for parser in parsers if parser.children), ParserRef())


def _server_declarations(machine: Machine) -> list[Declaration]:
    for module in machine.tree.defining("def make_arg_parser", "entrypoints"):
        function = machine.member(module, "make_arg_parser")
        if isinstance(function, FunctionRef) and "cli_args" in module.name:
            parser = ParserRef()
            built = machine.run(function, [parser], {}, 0)
            return built.declared if isinstance(built, ParserRef) and built.declared else parser.declared
    return []


def flags_of(declaration: Declaration, machine: Machine) -> list[FlagFacts]:
    """The flags that one `add_argument` call declares: one, and one more for each further long name."""
    keywords = declaration.keywords
    action = _action_name(keywords.get("action"), machine)
    names = [option for option in declaration.options if option.startswith("--")]
    if not names or action in INVISIBLE_ACTIONS:
        return []
    short = tuple(option for option in declaration.options if option.startswith("-") and option not in names)
    kind = _kind(keywords, action)
    choices, is_open = _choices(keywords, machine)
    facts = {
        "kind": kind,
        "choices": choices,
        "open_choices": is_open,
        "default": _default(keywords, action),
        "nargs": _nargs(keywords, action),
        "short": short,
        "negatable": action == "BooleanOptionalAction",
        "folded": "lower()" in text_of(keywords.get("type")),
    }
    repeated = facts["nargs"] in ("+", "*") or action in REPEATING_ACTIONS
    return [
        FlagFacts(
            name=name,
            repeated=repeated,
            deprecated=_deprecation(name, keywords),
            alias_of=None if name == names[0] else names[0],
            **facts,  # type: ignore[arg-type]
        )
        for name in names
    ]


def _action_name(action: Value, machine: Machine) -> str:
    if isinstance(action, ClassRef):
        bases = machine.base_names(action)
        known = {"_StoreTrueAction": "store_true", "_StoreFalseAction": "store_false", "_AppendAction": "append"}
        return next((known[base] for base in bases if base in known), action.name)
    return action if isinstance(action, str) else text_of(action or "store").split(".")[-1].strip("'")


def _kind(keywords: dict[str, Value], action: str) -> str:
    if action in NO_VALUE_ACTIONS or action in ("BooleanOptionalAction", "StoreBoolean"):
        return "bool"
    given = keywords.get("type", Unknown("str"))
    converter = text_of(given)
    if isinstance(given, LambdaRef):
        return "json" if "json.loads" in converter else "str"
    return next((kind for word, kind in CONVERTERS if re.search(rf"\b{re.escape(word)}\b", converter)), "str")


def _nargs(keywords: dict[str, Value], action: str) -> str:
    if action in NO_VALUE_ACTIONS or action == "BooleanOptionalAction":
        return "0"
    given = keywords.get("nargs")
    return "1" if given is None else str(given)


def _choices(keywords: dict[str, Value], machine: Machine) -> tuple[tuple[str, ...] | None, bool]:
    """The choices as text, and whether others are accepted (or may be: a choice is computed at run time)."""
    closed = keywords.get("choices")
    offered = closed if closed is not None else keywords.get("metavar")
    if not isinstance(offered, list | tuple | dict | ClassRef):
        return None, False
    options = [option for option in machine.items_of(offered) if option is not None]
    known = [shown(option) for option in options if not isinstance(option, Unknown)]
    texts = tuple(dict.fromkeys(text for text in known if text not in (None, "None")))
    return tuple(text for text in texts if text) or None, closed is None or len(known) < len(options)


def _default(keywords: dict[str, Value], action: str) -> str | None:
    implied = {"store_true": False, "store_false": True}.get(action)
    value = keywords.get("default", implied)
    if isinstance(value, Unknown) and value.text.endswith("SUPPRESS"):
        return None
    return shown(value)


def shown(value: Value) -> str | None:
    """A value as text: str as it is, JSON for lists and dicts, a class name for objects, `<source>` if computed."""
    match value:
        case None | str():
            return value
        case bool() | int() | float():
            return str(value)
        case EnumMember(value=inner, name=name):
            is_typed = isinstance(inner, int) or str(inner).lower() == name.lower()
            return str(inner) if is_typed else name
        case Instance(class_name=name):
            return name
        case list() | tuple() | dict() | set():
            return _as_json(value)
        case Unknown() | LambdaRef():
            return f"<{text_of(value)}>"
    return text_of(value)


def _as_json(value: Value) -> str:
    plain = list(value) if isinstance(value, tuple | set) else value
    if is_bulky(plain):
        return f"<{type(plain).__name__}>"
    try:
        return json.dumps(plain, default=shown)
    except (TypeError, ValueError, RecursionError):
        return f"<{type(plain).__name__}>"


def _deprecation(name: str, keywords: dict[str, Value]) -> str | None:
    """What the release says about a flag's end; only when it is the flag, not one of its values, that is deprecated."""
    text = keywords.get("help")
    sentence = " ".join(str(text).split()).split(". ")[0] if isinstance(text, str) else ""
    own = re.search(rf"^\W*deprecated\b|`?{re.escape(name)}`? is deprecated", sentence, re.IGNORECASE)
    if own:
        return sentence[:200]
    return "deprecated" if keywords.get("deprecated") is True else None
