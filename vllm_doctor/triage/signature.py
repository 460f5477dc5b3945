"""What a signature is, and the book of all of them, read from `signatures/*.toml`."""

import sys
from collections.abc import Iterator, Mapping
from enum import Enum
from functools import lru_cache
from pathlib import Path

import msgspec
from msgspec import Struct

from vllm_doctor.causes import catalogue

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FOLDER = Path(__file__).parent / "signatures"


class Role(str, Enum):
    """What a match says.

    `cause` names the root cause for certain; `likely` does with known exceptions; `hint` counts only where nothing
    better is found; `consequence` says that something died and never of what; `marker` only tells the stage; `fact` is
    only looked at by other signatures (`needs`).
    """

    CAUSE = "cause"
    LIKELY = "likely"
    HINT = "hint"
    CONSEQUENCE = "consequence"
    MARKER = "marker"
    FACT = "fact"

    @property
    def rank(self) -> int:
        """The order among roles: smaller comes first."""
        return {"cause": 20, "likely": 40, "hint": 60, "consequence": 80}.get(self.value, 99)


class FixTemplate(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A fix with holes (`{name}`) for what the signature captured; left out where a hole has no value."""

    title: str
    command: tuple[str, ...] = ()
    set: Mapping[str, str] = {}
    unset: tuple[str, ...] = ()
    env: Mapping[str, str] = {}
    settings: Mapping[str, str] = {}


class Signature(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One message, in all its wordings.

    `patterns` are RE2 expressions for one line without its prefixes, in any letter case; every one of them holds a
    literal of four bytes or more outside brackets (the prefilter looks for it). `stages` limits the match to
    stages of the start. `by_stage` gives another cause for a stage. `unless` is an expression that the line must not
    match. `needs` and `not_with` name signatures that must, or must not, have matched anywhere in the text. `outranks`
    names causes and signatures that this one explains away. `quiet_levels` takes part of lines up to WARNING too.
    `when` is a condition of `conditions.py` on the captures. `bare_title` is the title where a hole of the other has no
    value. `releases` and `source` say where the wording is from. `match` and `miss` are its test lines.
    """

    id: str
    cause: str = ""
    patterns: tuple[str, ...]
    role: Role = Role.CAUSE
    rank: int | None = None
    title: str = ""
    bare_title: str = ""
    stage: str = ""
    stages: tuple[str, ...] = ()
    by_stage: Mapping[str, str] = {}
    unless: str = ""
    needs: tuple[str, ...] = ()
    not_with: tuple[str, ...] = ()
    outranks: tuple[str, ...] = ()
    quiet_levels: bool = False
    releases: str = "all"
    source: str
    match: tuple[str, ...]
    miss: tuple[str, ...] = ()
    when: str = ""
    fix: tuple[FixTemplate, ...] = ()

    @property
    def order(self) -> int:
        """Its place among matches: the role's, or its own."""
        return self.role.rank if self.rank is None else self.rank

    @property
    def causes(self) -> frozenset[str]:
        """Every cause that it may name."""
        return frozenset({self.cause, *self.by_stage.values()} - {""})


class _Family(Struct, frozen=True, forbid_unknown_fields=True):
    signature: tuple[Signature, ...]


def read_family(path: Path) -> tuple[Signature, ...]:
    """The signatures of one file; raises ValueError for one that is not well made."""
    data = tomllib.loads(path.read_text(encoding="utf-8"))
    family = msgspec.convert(data, _Family).signature
    for signature in family:
        if faults := list(_faults(signature)):
            raise ValueError(f"{path.name}: {signature.id}: {'; '.join(faults)}")
    return family


def _faults(signature: Signature) -> Iterator[str]:
    names_none = signature.role in (Role.MARKER, Role.FACT)
    if not names_none and not signature.causes:
        yield "names no cause"
    for cause in signature.causes - catalogue().keys():
        yield f"{cause} is no cause"
    if not signature.patterns or not signature.match:
        yield "has no pattern or no line that it matches"
    if not names_none and not signature.title:
        yield "has no title"


@lru_cache(maxsize=1)
def book() -> Mapping[str, Signature]:
    """Every signature by its id, family by family."""
    found: dict[str, Signature] = {}
    for path in sorted(FOLDER.glob("*.toml")):
        for signature in read_family(path):
            if signature.id in found:
                raise ValueError(f"{path.name}: {signature.id} exists already")
            found[signature.id] = signature
    return found
