"""Follows the statements and calls that declare flags: parsers, groups, `get_kwargs`, small helper functions."""

from __future__ import annotations

import ast
import contextlib
import itertools

from vllm_doctor.releases.extract.config_fields import keyword_arguments
from vllm_doctor.releases.extract.expressions import MAXIMUM_ITEMS, Expressions
from vllm_doctor.releases.extract.tree import import_bindings
from vllm_doctor.releases.extract.values import (
    ClassRef,
    Declaration,
    FieldSpec,
    Frame,
    FunctionRef,
    Hint,
    Instance,
    LambdaRef,
    Missing,
    ParserRef,
    Unknown,
    Value,
    is_bulky,
    text_of,
    weight_of,
)

MAXIMUM_DEPTH = 12
"""Nested helper calls that are followed; vLLM's own nest four deep."""

SHORT_FUNCTION = 3
"""Statements, docstring included: a function this short with nothing but data in it is followed as well."""

CONVERTER_MAKERS = ("optional_type", "parse_type")
"""Functions that wrap an argparse converter; which one they wrap is what matters."""

GROUP_MAKERS = {"add_argument_group", "add_mutually_exclusive_group", "add_subparsers"}


class Return(Exception):
    """Carries the value of a `return` out of a function body."""

    def __init__(self, value: Value) -> None:
        super().__init__()
        self.value = value


class Machine(Expressions):
    """The reader: follows function bodies as far as they declare flags or build registries."""

    def run(self, function: FunctionRef, arguments: list[Value], keywords: dict[str, Value], depth: int) -> Value:
        """Follow a function's body and give what it returns."""
        frame = Frame(function.module, self._bind(function, arguments, keywords), function.owner, depth + 1)
        try:
            self.execute(function.node.body, frame)
        except Return as returned:
            return returned.value
        return None

    def locals_of(self, function: FunctionRef, arguments: list[Value]) -> dict[str, Value]:
        """The local names of a function after its body was followed."""
        frame = Frame(function.module, self._bind(function, arguments, {}), function.owner, 1)
        with contextlib.suppress(Return):
            self.execute(function.node.body, frame)
        return frame.names

    def _bind(self, function: FunctionRef, given: list[Value], keywords: dict[str, Value]) -> dict[str, Value]:
        specification = function.node.args
        names = [argument.arg for argument in (*specification.posonlyargs, *specification.args)]
        bound: dict[str, Value] = {}
        positional = zip(reversed(names), reversed(specification.defaults), strict=False)
        keyword_only = [argument.arg for argument in specification.kwonlyargs]
        for name, default in (*positional, *zip(keyword_only, specification.kw_defaults, strict=True)):
            if default is not None:
                bound[name] = self.evaluate(default, Frame(function.module))
        bound.update(zip(names, given, strict=False))
        bound.update(keywords)
        return bound

    def execute(self, body: list[ast.stmt], frame: Frame) -> None:
        """Follow statements in order."""
        for statement in body:
            self.step()
            self._execute_one(statement, frame)

    def _execute_one(self, statement: ast.stmt, frame: Frame) -> None:
        match statement:
            case ast.Expr(value=value):
                self.evaluate(value, frame)
            case ast.Return(value=value):
                raise Return(None if value is None else self.evaluate(value, frame))
            case ast.Assign() | ast.AnnAssign() | ast.Delete():
                self._rebind(statement, frame)
            case ast.If():
                self._branch(statement, frame)
            case ast.For():
                self._loop(statement, frame)
            case ast.With(body=body) | ast.Try(body=body):
                self.execute(body, frame)
            case ast.FunctionDef(name=name):
                frame.names[name] = FunctionRef(frame.module, statement, frame.owner)
            case ast.Import() | ast.ImportFrom():
                for name, binding in import_bindings(frame.module, statement).items():
                    frame.names[name] = self.imported(binding)

    def _rebind(self, statement: ast.Assign | ast.AnnAssign | ast.Delete, frame: Frame) -> None:
        if isinstance(statement, ast.Delete):
            for target in statement.targets:
                self._delete(target, frame)
        elif statement.value is not None:
            result = self.evaluate(statement.value, frame)
            for target in statement.targets if isinstance(statement, ast.Assign) else [statement.target]:
                self.assign(target, result, frame)

    def _branch(self, statement: ast.If, frame: Frame) -> None:
        """An undecidable condition: both branches may declare flags, but neither ends the function."""
        truth = self.truth(statement.test, frame)
        if truth is not None:
            self.execute(statement.body if truth else statement.orelse, frame)
            return
        for body in (statement.orelse, statement.body):
            with contextlib.suppress(Return):
                self.execute(body, frame)

    def _loop(self, statement: ast.For, frame: Frame) -> None:
        for item in self.items_of(self.evaluate(statement.iter, frame)):
            self.assign(statement.target, item, frame)
            self.execute(statement.body, frame)

    def _delete(self, target: ast.expr, frame: Frame) -> None:
        if isinstance(target, ast.Subscript):
            holder, key = self.evaluate(target.value, frame), self.evaluate(target.slice, frame)
            if isinstance(holder, dict):
                holder.pop(key, None)

    def call(self, node: ast.Call, frame: Frame) -> Value:
        """The value of a call; calls that neither declare flags nor handle plain data are `Unknown`."""
        arguments, keywords = self._arguments(node, frame)
        if isinstance(node.func, ast.Attribute):
            return self._method(node, node.func, arguments, keywords, frame)
        function = self.evaluate(node.func, frame)
        return self._apply(function, node, arguments, keywords, frame)

    def _arguments(self, node: ast.Call, frame: Frame) -> tuple[list[Value], dict[str, Value]]:
        arguments: list[Value] = []
        for argument in node.args:
            if isinstance(argument, ast.Starred):
                arguments += self.items_of(self.evaluate(argument.value, frame))
            else:
                arguments.append(self.evaluate(argument, frame))
        keywords: dict[str, Value] = {}
        for keyword in node.keywords:
            value = self.evaluate(keyword.value, frame)
            if keyword.arg is not None:
                keywords[keyword.arg] = value
            elif isinstance(value, dict):
                keywords.update({key: item for key, item in value.items() if isinstance(key, str)})
        return arguments, keywords

    def _apply(
        self, function: Value, node: ast.Call, arguments: list[Value], keywords: dict[str, Value], frame: Frame
    ) -> Value:
        name = text_of(function).split(".")[-1] if isinstance(function, Unknown | FunctionRef | ClassRef) else ""
        if name in ("get_kwargs", "_compute_kwargs") and arguments and isinstance(arguments[0], ClassRef):
            return keyword_arguments(self, arguments[0], function)
        if name == "get_field" and len(arguments) == 2 and isinstance(arguments[0], ClassRef):
            return self.attribute(arguments[0], str(arguments[1]))
        if name in ("field", "Field", "PydanticField"):
            return FieldSpec(self._default(arguments, keywords, frame))
        if name in ("FlexibleArgumentParser", "ArgumentParser"):
            return ParserRef()
        if isinstance(function, ClassRef):
            return self._instance(function)
        if name.endswith(CONVERTER_MAKERS) and arguments:
            return Unknown(f"{name}({text_of(arguments[0])})")
        if isinstance(function, FunctionRef) and self._is_followed(function, arguments, frame):
            return self.run(function, arguments, keywords, frame.depth)
        return self._builtin(name, arguments, node)

    def _is_followed(self, function: FunctionRef, arguments: list[Value], frame: Frame) -> bool:
        if frame.depth > MAXIMUM_DEPTH:
            return False
        declares = any(isinstance(argument, ParserRef | dict) for argument in arguments)
        return declares or len(function.node.body) <= SHORT_FUNCTION

    def _default(self, arguments: list[Value], keywords: dict[str, Value], frame: Frame) -> Value:
        if "default_factory" in keywords:
            return self._made_by(keywords["default_factory"], frame)
        if "default" in keywords:
            return keywords["default"]
        return arguments[0] if arguments else Missing()

    def _made_by(self, factory: Value, frame: Frame) -> Value:
        match factory:
            case LambdaRef(node=node, frame=inner):
                return self.evaluate(node.body, inner)
            case ClassRef():
                return self._instance(factory)
            case FunctionRef() if self._is_followed(factory, [], frame):
                return self.run(factory, [], {}, frame.depth)
        empty: dict[str, Value] = {"list": [], "dict": {}, "set": [], "tuple": ()}
        return empty.get(text_of(factory), Unknown(f"{text_of(factory)}()"))

    def _instance(self, owner: ClassRef) -> Value:
        return {} if self.base_names(owner) & {"dict", "UserDict"} else Instance(owner.name)

    def _builtin(self, name: str, arguments: list[Value], node: ast.Call) -> Value:
        first: Value = arguments[0] if arguments else None
        if name == "get_args" and isinstance(first, Hint):
            return tuple(flatten_literal(first))
        if name in ("list", "tuple", "sorted", "set", "deepcopy", "copy") and isinstance(first, list | tuple | dict):
            return _copied(name, first)
        if name in ("list", "tuple", "sorted") and isinstance(first, ClassRef):
            return self.items_of(first)
        if name == "dict" and (first is None or isinstance(first, dict)):
            extra = {keyword.arg: Unknown(ast.unparse(keyword.value)) for keyword in node.keywords if keyword.arg}
            return {**(first or {}), **extra}
        if name == "cast" and len(arguments) == 2:
            return arguments[1]
        if name == "int" and isinstance(first, int | float):
            return int(first)
        if name == "permutations" and isinstance(first, list | tuple) and len(first) <= 8:
            return list(itertools.permutations(first, 2))
        return Unknown(ast.unparse(node))

    def _method(
        self,
        node: ast.Call,
        function: ast.Attribute,
        arguments: list[Value],
        keywords: dict[str, Value],
        frame: Frame,
    ) -> Value:
        if ast.unparse(function.value) == "super()":
            return self._super(function.attr, arguments, keywords, frame)
        receiver = self.evaluate(function.value, frame)
        if isinstance(receiver, ParserRef):
            return _parser_method(receiver, function.attr, arguments, keywords)
        if isinstance(receiver, dict | list | str):
            self.step(weight_of(receiver))
            return _data_method(receiver, function.attr, arguments, node)
        found = self.attribute_of(function, frame)
        if isinstance(found, FunctionRef):
            bound = [receiver, *arguments] if _takes_class(found) else arguments
            if self._is_followed(found, bound, frame):
                return self.run(
                    FunctionRef(found.module, found.node, _owner(receiver, found)), bound, keywords, frame.depth
                )
            return Unknown(ast.unparse(node))
        return self._apply(found, node, arguments, keywords, frame)

    def _super(self, name: str, arguments: list[Value], keywords: dict[str, Value], frame: Frame) -> Value:
        bases = list(self.lineage(frame.owner))[1:] if frame.owner else []
        for base in bases:
            found = self.attribute(base, name)
            if isinstance(found, FunctionRef) and frame.depth <= MAXIMUM_DEPTH:
                bound = [base, *arguments] if _takes_class(found) else arguments
                return self.run(found, bound, keywords, frame.depth)
        return Unknown(f"super().{name}()")


def flatten_literal(hint: Hint) -> list[Value]:
    """The options of a `Literal`, nested ones and unions of them included, as `typing.get_args` flattens them."""
    options: list[Value] = []
    for argument in hint.arguments:
        options += flatten_literal(argument) if isinstance(argument, Hint) else [argument]
    return options


def _copied(name: str, value: list[Value] | tuple[Value, ...] | dict[Value, Value]) -> Value:
    if name in ("deepcopy", "copy"):
        return dict(value) if isinstance(value, dict) else list(value)
    items = list(value)[:MAXIMUM_ITEMS]
    return sorted(items, key=str) if name == "sorted" else items


def _parser_method(parser: ParserRef, name: str, arguments: list[Value], keywords: dict[str, Value]) -> Value:
    if name == "add_argument":
        options = tuple(item for item in arguments if isinstance(item, str))
        parser.declared.append(Declaration(options, keywords))
        return Unknown("action")
    if name in GROUP_MAKERS:
        return parser
    if name == "add_parser":
        child = ParserRef(str(arguments[0]) if arguments else str(keywords.get("name", "")))
        parser.children.append(child)
        return child
    return Unknown(name)


def _data_method(receiver: Value, name: str, arguments: list[Value], node: ast.Call) -> Value:
    """The methods of dicts, lists and strings that flag declarations use."""
    unknown = Unknown(ast.unparse(node))
    match receiver:
        case dict():
            return _dict_method(receiver, name, arguments, unknown)
        case list():
            return _list_method(receiver, name, arguments, unknown)
        case str():
            return _text_method(receiver, name, arguments, unknown)
    return unknown


def _dict_method(holder: dict[Value, Value], name: str, arguments: list[Value], unknown: Unknown) -> Value:
    views = {"items": holder.items, "keys": holder.keys, "values": holder.values}
    if name in views:
        return list(views[name]())
    if name == "copy":
        return dict(holder)
    if name == "update":
        given = arguments[0] if arguments else None
        holder.update(given if isinstance(given, dict) else {})
    elif name in ("get", "pop", "setdefault") and arguments and isinstance(arguments[0], str):
        return getattr(holder, name)(arguments[0], arguments[1] if len(arguments) > 1 else None)
    return unknown


def _list_method(holder: list[Value], name: str, arguments: list[Value], unknown: Unknown) -> Value:
    for argument in arguments[:1]:
        if is_bulky(holder) or is_bulky(argument):
            continue
        if name == "append":
            holder.append(argument)
        elif name == "extend" and isinstance(argument, list | tuple):
            holder.extend(argument)
        elif name == "remove" and argument in holder:
            holder.remove(argument)
    return unknown


def _text_method(text: str, name: str, arguments: list[Value], unknown: Unknown) -> Value:
    words = [argument for argument in arguments if isinstance(argument, str)]
    if name == "replace" and len(words) == len(arguments) == 2:
        return text.replace(words[0], words[1])
    if name in ("lower", "upper", "strip") and not arguments:
        return str(getattr(text, name)())
    if name == "join" and arguments and isinstance(arguments[0], list | tuple):
        parts = [item for item in arguments[0] if isinstance(item, str)]
        return text.join(parts) if len(parts) == len(arguments[0]) else unknown
    return unknown


def _takes_class(function: FunctionRef) -> bool:
    decorators = {ast.unparse(decorator) for decorator in function.node.decorator_list}
    return function.owner is not None and "staticmethod" not in decorators


def _owner(receiver: Value, found: FunctionRef) -> ClassRef | None:
    return found.owner or (receiver if isinstance(receiver, ClassRef) else None)
