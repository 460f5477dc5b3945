"""The base of all facts, and the value that stands for one that could not be had."""

from typing import Annotated, TypeVar

from msgspec import Meta, Struct

Bytes = Annotated[int, Meta(ge=0, le=2**60)]
Count = Annotated[int, Meta(ge=0, le=2**53)]

T = TypeVar("T")


class Facts(Struct, frozen=True, kw_only=True):
    """A frozen group of facts."""


class Section(Facts, frozen=True, kw_only=True, tag_field="fact", tag=str.lower):
    """A group of facts that may be unknown as a whole; tagged, so that a file tells the two apart."""


class Unknown(Section, frozen=True, kw_only=False):
    """A fact that could not be had, and why; never read as a pass."""

    reason: str


def known_or_none(value: T | Unknown) -> T | None:
    """The value, or None where the fact is unknown and its absence changes nothing."""
    return None if isinstance(value, Unknown) else value
