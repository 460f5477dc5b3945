"""Evaluates the expressions that flags, defaults and registries are made of; anything else becomes `Unknown`."""

from __future__ import annotations

import ast
from collections.abc import Iterable

from vllm_doctor.releases.extract.names import KNOWN_CONSTANTS, Names
from vllm_doctor.releases.extract.values import (
    MAXIMUM_WEIGHT,
    ClassRef,
    EnumMember,
    Frame,
    FunctionRef,
    Hint,
    Instance,
    LambdaRef,
    Missing,
    ModuleRef,
    Unknown,
    Value,
    is_bulky,
    weight_of,
)

MAXIMUM_ITEMS = 10_000
"""The largest literal of any release, the model registry, has about 420 entries."""

SCALARS = (str, int, float, bool, type(None))


def is_known(value: Value) -> bool:
    """Whether a value is plain data all the way down."""
    if is_bulky(value):
        return False
    if isinstance(value, list | tuple | set):
        return all(is_known(item) for item in value)
    if isinstance(value, dict):
        return all(is_known(item) for pair in value.items() for item in pair)
    return isinstance(value, SCALARS)


class Expressions(Names):
    """The expression half of the reader; `call` is given by the statement half."""

    def call(self, node: ast.Call, frame: Frame) -> Value:
        """The value of a call (see `Machine`)."""
        raise NotImplementedError

    def evaluate(self, node: ast.expr, frame: Frame) -> Value:
        """The value of an expression, `Unknown` with its source text where only running it would tell."""
        self.step()
        match node:
            case ast.Constant(value=value):
                return Unknown("...") if value is ... else value
            case ast.Name(id=name):
                return self.name(name, frame)
            case ast.Attribute():
                return self.attribute_of(node, frame)
            case ast.Lambda():
                return LambdaRef(node, frame)
        made = self.call(node, frame) if isinstance(node, ast.Call) else self._made(node, frame)
        weight = weight_of(made)
        self.step(weight)
        return Unknown("...") if weight > MAXIMUM_WEIGHT else made

    def _made(self, node: ast.expr, frame: Frame) -> Value:
        """The value of an expression that builds something."""
        match node:
            case ast.Dict() | ast.List() | ast.Tuple() | ast.Set():
                return self._display(node, frame)
            case ast.ListComp() | ast.GeneratorExp() | ast.SetComp():
                return self._comprehension(node, frame)
            case ast.JoinedStr():
                return self._joined(node, frame)
            case ast.Subscript():
                return self._subscript(node, frame)
        return self._operation(node, frame)

    def annotation(self, node: ast.expr, frame: Frame) -> Value:
        """The value of a type hint; a quoted one is parsed first."""
        value = self.evaluate(node, frame)
        if not isinstance(value, str):
            return value
        try:
            return self.evaluate(ast.parse(value.strip(), mode="eval").body, frame)
        except (SyntaxError, ValueError):
            return Unknown(value)

    def attribute_of(self, node: ast.Attribute, frame: Frame) -> Value:
        """The value of `receiver.name`."""
        receiver = self.evaluate(node.value, frame)
        found: Value = Missing()
        match receiver:
            case ModuleRef(module=module):
                found = self.member(module, node.attr)
                if isinstance(found, Missing):
                    submodule = self.tree.module(f"{module.name}.{node.attr}")
                    found = ModuleRef(submodule) if submodule else found
            case ClassRef():
                found = self.attribute(receiver, node.attr)
            case EnumMember(value=value, name=name) if node.attr in ("value", "name"):
                found = value if node.attr == "value" else name
        if not isinstance(found, Missing):
            return found
        text = ast.unparse(node)
        return KNOWN_CONSTANTS.get(text, Unknown(text))

    def _display(self, node: ast.Dict | ast.List | ast.Tuple | ast.Set, frame: Frame) -> Value:
        if isinstance(node, ast.Dict):
            return self._dictionary(node, frame)
        items: list[Value] = []
        for item in node.elts[:MAXIMUM_ITEMS]:
            if isinstance(item, ast.Starred):
                inner = self.evaluate(item.value, frame)
                items += self.items_of(inner)
            else:
                items.append(self.evaluate(item, frame))
        return tuple(items) if isinstance(node, ast.Tuple) else items

    def _dictionary(self, node: ast.Dict, frame: Frame) -> dict[Value, Value]:
        found: dict[Value, Value] = {}
        for key_node, value_node in list(zip(node.keys, node.values, strict=True))[:MAXIMUM_ITEMS]:
            value = self.evaluate(value_node, frame)
            if key_node is None:
                found.update(value if isinstance(value, dict) else {})
                continue
            key = self.evaluate(key_node, frame)
            found[key if _is_hashable(key) else Unknown(ast.unparse(key_node))] = value
        return found

    def items_of(self, value: Value) -> list[Value]:
        """What iterating over a value gives; nothing when that is not known."""
        if isinstance(value, ClassRef):
            return list(self.members(value))
        if isinstance(value, list | tuple | set | dict | str):
            return list(value)[:MAXIMUM_ITEMS]
        return []

    def _comprehension(self, node: ast.ListComp | ast.GeneratorExp | ast.SetComp, frame: Frame) -> Value:
        if len(node.generators) != 1:
            return Unknown(ast.unparse(node))
        generator = node.generators[0]
        items: list[Value] = []
        for item in self.items_of(self.evaluate(generator.iter, frame)):
            inner = Frame(frame.module, dict(frame.names), frame.owner, frame.depth)
            self.assign(generator.target, item, inner)
            if all(self.truth(test, inner) is not False for test in generator.ifs):
                items.append(self.evaluate(node.elt, inner))
        return items

    def assign(self, target: ast.expr, value: Value, frame: Frame) -> None:
        """Bind a value to a name, to each name of a tuple, or to a key of a known dict."""
        match target:
            case ast.Name(id=name):
                frame.names[name] = value
            case ast.Tuple(elts=targets) | ast.List(elts=targets):
                items = self.items_of(value)
                for index, inner in enumerate(targets):
                    self.assign(inner, items[index] if index < len(items) else Unknown(ast.unparse(inner)), frame)
            case ast.Subscript(value=holder, slice=key):
                known, index_value = self.evaluate(holder, frame), self.evaluate(key, frame)
                if isinstance(known, dict) and _is_hashable(index_value):
                    weight = weight_of(value)
                    self.step(weight)
                    known[index_value] = Unknown("...") if weight > MAXIMUM_WEIGHT else value

    def truth(self, node: ast.expr, frame: Frame) -> bool | None:
        """Whether a condition holds; None when only running would tell. The platform is taken to be CUDA."""
        text = ast.unparse(node)
        if text.startswith("current_platform.is_"):
            return text.startswith(("current_platform.is_cuda()", "current_platform.is_cuda_alike()"))
        if isinstance(node, ast.BoolOp):
            return self._truth_of_all([self.truth(item, frame) for item in node.values], isinstance(node.op, ast.And))
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            inner = self.truth(node.operand, frame)
            return None if inner is None else not inner
        value = self.evaluate(node, frame)
        self.step(weight_of(value))
        return bool(value) if is_known(value) else None

    @staticmethod
    def _truth_of_all(parts: list[bool | None], conjunction: bool) -> bool | None:
        decisive = not conjunction
        if decisive in parts:
            return decisive
        return None if None in parts else conjunction

    def _joined(self, node: ast.JoinedStr, frame: Frame) -> Value:
        parts: list[str] = []
        for part in node.values:
            value = self.evaluate(part.value if isinstance(part, ast.FormattedValue) else part, frame)
            if not isinstance(value, str | int | float):
                return Unknown(ast.unparse(node))
            parts.append(str(value))
        return "".join(parts)

    def _subscript(self, node: ast.Subscript, frame: Frame) -> Value:
        holder = self.evaluate(node.value, frame)
        if isinstance(holder, Unknown | ClassRef):
            return self._hint(node, holder, frame)
        key = self.evaluate(node.slice, frame) if not isinstance(node.slice, ast.Slice) else Unknown("slice")
        if isinstance(holder, dict) and _is_hashable(key):
            return holder.get(key, Unknown(ast.unparse(node)))
        if isinstance(holder, list | tuple | str) and isinstance(key, int) and -len(holder) <= key < len(holder):
            return holder[key]
        if isinstance(holder, dict | list | tuple | str):
            return Unknown(ast.unparse(node))
        return holder

    def _hint(self, node: ast.Subscript, holder: Unknown | ClassRef, frame: Frame) -> Value:
        """`Literal[...]`, `dict[str, int]`, `Optional[X]`: a type hint, not an index."""
        if isinstance(holder, ClassRef):
            member = next((found for found in self.members(holder) if found.name == _constant(node.slice)), None)
            return member or holder
        origin = holder.text.split(".")[-1]
        parts = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        inner = self.evaluate if origin == "Literal" else self.annotation
        arguments = tuple(inner(part, frame) for part in parts)
        return Hint("Union", (*arguments, None)) if origin == "Optional" else Hint(origin, arguments)

    def _operation(self, node: ast.expr, frame: Frame) -> Value:
        match node:
            case ast.BinOp():
                return self._binary(node, frame)
            case ast.BoolOp(op=ast.Or(), values=values):
                return self._first_true(values, frame)
            case ast.Compare(left=left, ops=[operator], comparators=[right]):
                return _compare(self.evaluate(left, frame), operator, self.evaluate(right, frame), node)
            case ast.IfExp(test=test, body=body, orelse=orelse):
                return self.evaluate(orelse if self.truth(test, frame) is False else body, frame)
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                value = self.evaluate(operand, frame)
                return -value if isinstance(value, int | float) else Unknown(ast.unparse(node))
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                truth = self.truth(operand, frame)
                return Unknown(ast.unparse(node)) if truth is None else not truth
        return Unknown(ast.unparse(node))

    def _first_true(self, nodes: Iterable[ast.expr], frame: Frame) -> Value:
        value: Value = None
        for node in nodes:
            value = self.evaluate(node, frame)
            if not is_known(value) or value:
                return value
        return value

    def _binary(self, node: ast.BinOp, frame: Frame) -> Value:
        left, right = self.evaluate(node.left, frame), self.evaluate(node.right, frame)
        if isinstance(node.op, ast.BitOr):
            if isinstance(left, dict) and isinstance(right, dict):
                return {**left, **right}
            return Hint("Union", (*_union_members(left), *_union_members(right)))
        if isinstance(node.op, ast.Add):
            return _sum(left, right, node)
        return _arithmetic(left, node.op, right, node)


def _sum(left: Value, right: Value, node: ast.BinOp) -> Value:
    if isinstance(left, str) and isinstance(right, str):
        return left + right
    if isinstance(left, list | tuple) and isinstance(right, list | tuple):
        joined = [*left, *right]
        return joined if isinstance(left, list) else tuple(joined)
    if isinstance(left, list) and isinstance(right, Unknown):
        return [*left, right]
    if isinstance(left, int | float) and isinstance(right, int | float):
        return left + right
    return Unknown(ast.unparse(node))


def _arithmetic(left: Value, operator: ast.operator, right: Value, node: ast.BinOp) -> Value:
    """Sizes are written `4 * 1024**2` or `1 << 22`; operands are bounded so that no source can make them explode."""
    if not isinstance(left, int | float) or not isinstance(right, int | float) or abs(left) > 2**64 or abs(right) > 64:
        small = isinstance(left, int | float) and isinstance(right, int | float) and max(abs(left), abs(right)) <= 2**64
        if not (small and isinstance(operator, ast.Mult | ast.Sub)):
            return Unknown(ast.unparse(node))
    if not isinstance(left, int | float) or not isinstance(right, int | float):
        return Unknown(ast.unparse(node))
    try:
        match operator:
            case ast.Mult():
                return left * right
            case ast.Sub():
                return left - right
            case ast.Div():
                return left / right
            case ast.Pow():
                return float(left) ** right if isinstance(left, float) else int(left) ** int(right)
            case ast.LShift() if isinstance(left, int) and isinstance(right, int):
                return left << right
    except (ArithmeticError, ValueError):
        pass
    return Unknown(ast.unparse(node))


def _compare(left: Value, operator: ast.cmpop, right: Value, node: ast.expr) -> Value:
    if not is_known(left) or not is_known(right):
        return Unknown(ast.unparse(node))
    match operator:
        case ast.Eq() | ast.Is():
            return left == right
        case ast.NotEq() | ast.IsNot():
            return left != right
        case ast.In() if isinstance(right, list | tuple | dict):
            return left in right
        case ast.NotIn() if isinstance(right, list | tuple | dict):
            return left not in right
    return Unknown(ast.unparse(node))


def _union_members(value: Value) -> tuple[Value, ...]:
    return value.arguments if isinstance(value, Hint) and value.origin == "Union" else (value,)


def _constant(node: ast.expr) -> Value:
    return node.value if isinstance(node, ast.Constant) else None


def _is_hashable(value: Value) -> bool:
    return isinstance(value, (*SCALARS, Unknown, EnumMember, ClassRef, FunctionRef, Instance))
