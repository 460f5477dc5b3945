"""Reads the environment variables of a release from `vllm/envs.py` and from every other place that asks for one."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass

from vllm_doctor.releases.extract.config_fields import hint_members, hint_name, literal_keywords
from vllm_doctor.releases.extract.flags import shown
from vllm_doctor.releases.extract.machine import Machine
from vllm_doctor.releases.extract.tree import Module
from vllm_doctor.releases.extract.values import Frame, Hint, Missing, Unknown, Value

ELSEWHERE = re.compile(r"""(?:environ(?:\.get|\.setdefault|\.pop)?\s*[\[(]|getenv\s*\()\s*["'](VLLM_[A-Z0-9_]+)["']""")
"""`os.environ["VLLM_X"]`, `os.environ.get("VLLM_X")`, `os.getenv("VLLM_X")`."""

CHOICE_HELPERS = ("env_with_choices", "env_list_with_choices", "env_set_with_choices")


@dataclass(frozen=True)
class VariableFacts:
    """One environment variable; `registered` ones stand in `vllm/envs.py`, `converter` is what a value must survive."""

    name: str
    kind: str = "str"
    choices: tuple[str, ...] | None = None
    default: str | None = None
    converter: str | None = None
    registered: bool = True


def read_variables(machine: Machine) -> dict[str, VariableFacts]:
    """Every variable of the release by name, the registered ones with type, choices and default."""
    module = machine.tree.module("vllm.envs")
    found = _registered(machine, module) if module else {}
    for path in machine.tree.paths():
        for name in ELSEWHERE.findall(machine.tree.text(path)):
            found.setdefault(name, VariableFacts(name, registered=False))
    return dict(sorted(found.items()))


def _registered(machine: Machine, module: Module) -> dict[str, VariableFacts]:
    registry = module.bindings.get("environment_variables")
    if not isinstance(registry, ast.Dict):
        return {}
    found: dict[str, VariableFacts] = {}
    for key, getter in zip(registry.keys, registry.values, strict=True):
        match key:
            case ast.Constant(value=str() as name):
                found[name] = _variable(machine, module, name, getter)
    return found


def _variable(machine: Machine, module: Module, name: str, getter: ast.expr) -> VariableFacts:
    frame = Frame(module)
    annotation = module.annotations.get(name)
    hints = hint_members(machine.annotation(annotation, frame)) if annotation is not None else []
    declared = module.typing_bindings.get(name)
    default = machine.evaluate(declared, frame) if isinstance(declared, ast.expr) else None
    choices = _choices(machine, getter, frame) or _literal_choices(hints)
    return VariableFacts(name, _kind(hints), choices, shown(default), _converter(getter, name))


def _kind(hints: list[Value]) -> str:
    names = [hint_name(hint) for hint in hints]
    return next((name for name in ("bool", "int", "float") if name in names), "str")


def _literal_choices(hints: list[Value]) -> tuple[str, ...] | None:
    literals = [hint for hint in hints if isinstance(hint, Hint) and hint.origin == "Literal"]
    if not literals:
        return None
    options = literal_keywords(literals[0], free=False)["choices"]
    return tuple(str(option) for option in options) if isinstance(options, list) else None


def _choices(machine: Machine, getter: ast.expr, frame: Frame) -> tuple[str, ...] | None:
    """The choices given to vLLM's `env_with_choices(name, default, choices)`."""
    match getter:
        case ast.Call(func=ast.Name(id=helper), args=[_, _, options, *_]) if helper in CHOICE_HELPERS:
            value = machine.evaluate(options, frame)
            known = [shown(option) for option in machine.items_of(value) if not isinstance(option, Missing | Unknown)]
            return tuple(option for option in known if option) or None
    return None


def _converter(getter: ast.expr, name: str) -> str | None:
    """`int` or `float` when the value goes through it unprotected: any other text ends the start with ValueError."""
    text = ast.unparse(getter)
    found = re.search(rf"\b(int|float)\(\s*os\.(?:getenv|environ\.get)\(\s*'{name}'", text)
    return found.group(1) if found else None
