"""The kinds of one cause: what a line of it means in particular, with the fix for that, read from `kinds/*.toml`."""

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path

import msgspec
from msgspec import Struct

from vllm_doctor.triage import filling
from vllm_doctor.triage.patterns import compiled, groups
from vllm_doctor.triage.signature import FixTemplate

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FOLDER = Path(__file__).parent / "kinds"

Fill = Callable[[Mapping[str, str]], Mapping[str, str]]

# Of a line so much is looked at.
MAXIMUM_CHARACTERS = 8192


class Kind(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A kind of a cause: known by `line`, an RE2 expression that a line of the evidence matches, in any letter case.

    The first of a cause that matches counts, unless its title has a hole that nothing fills. It brings the fixes, with
    holes for what `line` and the signature captured and for what follows from these (`filling.values`); without a title
    the signature's stays. `of` limits it to findings of these signatures. `source` says where the wording and the fix
    are from. `match` and `miss` are its test lines.
    """

    id: str
    cause: str
    line: str
    of: tuple[str, ...] = ()
    title: str = ""
    source: str
    match: tuple[str, ...]
    miss: tuple[str, ...] = ()
    fix: tuple[FixTemplate, ...]


class _Family(Struct, frozen=True, forbid_unknown_fields=True):
    kind: tuple[Kind, ...]


@cache
def kinds() -> Mapping[str, Sequence[Kind]]:
    """The kinds of every cause, in their order; raises ValueError for a file that is not well made."""
    found: dict[str, list[Kind]] = {}
    ids: set[str] = set()
    for path in sorted(FOLDER.glob("*.toml")):
        for kind in msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8")), _Family).kind:
            if kind.id in ids:
                raise ValueError(f"{path.name}: {kind.id} exists already")
            ids.add(kind.id)
            found.setdefault(kind.cause, []).append(kind)
    return found


def kind_of(cause: str, signature: str, lines: Iterable[str], fill: Fill) -> tuple[Kind, Mapping[str, str]] | None:
    """The kind of a cause that a signature has named on these lines, and what is known of it; None where none fits.

    `fill` makes the values of a kind's holes out of what its expression has captured.
    """
    shown = [line[:MAXIMUM_CHARACTERS].encode() for line in lines]
    for kind in kinds().get(cause, ()):
        if kind.of and signature not in kind.of:
            continue
        expression = compiled(kind.line)
        for match in filter(None, map(expression.search, shown)):
            known = fill(groups(match))
            if not kind.title or filling.filled(kind.title, known):
                return kind, known
    return None
