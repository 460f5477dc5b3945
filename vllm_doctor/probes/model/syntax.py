"""The syntax tree of a chat template: which names it reads, and whether a system message is refused."""

from collections.abc import Iterator

from jinja2 import Environment, TemplateError, nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from msgspec import Struct


class Tree(Struct, frozen=True):
    """What the tree shows; `error` where Jinja cannot parse the text."""

    uses_tools: bool
    uses_system: bool
    error: str | None = None


class _Generation(Extension):
    """`{% generation %}` of transformers (utils/chat_template_utils.py, AssistantTracker)."""

    tags = {"generation"}  # noqa: RUF012 - jinja2 declares it so

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def parsed(text: str) -> Tree:
    """The tree of a template; what cannot be parsed has its error, and reads nothing."""
    # The extensions and trimming of transformers 5.19 (`_compile_jinja_template`). Nothing is rendered here.
    environment = Environment(  # noqa: S701
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, "jinja2.ext.loopcontrols"]
    )
    try:
        tree = environment.parse(text)
        names = {n.name for n in tree.find_all(nodes.Name)}
        return Tree(uses_tools="tools" in names or "custom_tools" in names, uses_system=_uses_system(tree))
    except TemplateError as problem:
        line = getattr(problem, "lineno", None)
        where = f"line {line}: " if line else ""
        return Tree(uses_tools=False, uses_system=False, error=f"{where}{problem.message or type(problem).__name__}")
    except RecursionError:
        return Tree(uses_tools=False, uses_system=False, error="nested too deep")


def _uses_system(tree: nodes.Template) -> bool:
    """Whether a system message reaches the prompt: not where its branch raises, nor where only others are named."""
    branches = [i for i in tree.find_all(nodes.If) if _names_system(i.test)]
    if any(_raises(i) for i in branches):
        return False
    if any(_is_system(c) for c in tree.find_all(nodes.Const)):
        return True
    return any(_reads_role(o) for o in tree.find_all(nodes.Output))


def _names_system(test: nodes.Node) -> bool:
    if isinstance(test, nodes.Not) or any(o.op in ("ne", "notin") for o in test.find_all(nodes.Operand)):
        return False
    compared = test.find_all(nodes.Compare) if not isinstance(test, nodes.Compare) else iter((test,))
    return any(_is_system(c) for one in compared for c in one.find_all(nodes.Const))


def _is_system(constant: nodes.Const) -> bool:
    return bool(constant.value == "system")


def _raises(branch: nodes.If) -> bool:
    return any(_is_raise(call) for node in branch.body for call in _calls(node))


def _calls(node: nodes.Node) -> Iterator[nodes.Call]:
    """The calls that the branch makes in any case: not those of an `if` within it."""
    if isinstance(node, nodes.Output):
        yield from node.find_all(nodes.Call)


def _is_raise(call: nodes.Call) -> bool:
    return isinstance(call.node, nodes.Name) and call.node.name == "raise_exception"


def _reads_role(output: nodes.Output) -> bool:
    dotted = any(g.attr == "role" for g in output.find_all(nodes.Getattr))
    keyed = (g.arg for g in output.find_all(nodes.Getitem))
    return dotted or any(isinstance(k, nodes.Const) and k.value == "role" for k in keyed)
