"""Finds, in a block of bytes, the places where any literal stands: one pass of an automaton, whatever the bytes are."""

from collections.abc import Iterable
from functools import lru_cache

import re2

# The automaton of some 700 literals takes about 2 MB; RE2 starts it anew where it would outgrow this.
AUTOMATON_BYTES = 24 * 2**20

# No message holds more literals than this.
MAXIMUM_PLACES = 32

# So many known literals one after the other: the line repeats itself.
MAXIMUM_STALE_PLACES = 8


def options(maximum_bytes: int = AUTOMATON_BYTES) -> re2.Options:
    """RE2's options for all expressions: bytes, any letter case, `.` stops at a line's end, no complaints printed."""
    chosen = re2.Options()
    chosen.max_mem = maximum_bytes
    chosen.case_sensitive = False
    chosen.log_errors = False
    return chosen


@lru_cache(maxsize=4096)
def _escaped(literal: str) -> str:
    return str(re2.escape(literal))


class Prefilter:
    """Looks for literals (lower case); of several at one place the longest counts."""

    def __init__(self, literals: Iterable[str], within: "Prefilter | None" = None) -> None:
        # The longest first: of several that begin at one place, RE2 takes the first of the alternation.
        self.literals = tuple(sorted(set(literals), key=lambda literal: (-len(literal), literal)))
        self._overlaps: dict[bytes, int] = {} if within is None else within._overlaps
        self._beginnings: set[bytes] = set() if within is None else within._beginnings
        chosen = options()
        chosen.never_capture = True
        chosen.encoding = re2.Options.Encoding.LATIN1
        expression = "|".join(_escaped(literal) for literal in self.literals) or r"[^\x00-\xff]"
        self._search = re2.compile(expression.encode(), chosen).search

    def without(self, literals: Iterable[str]) -> "Prefilter":
        """One that looks for the others only."""
        return Prefilter(frozenset(self.literals) - frozenset(literals), self)

    def next_place(self, block: bytes, start: int) -> tuple[int, int] | None:
        """The first literal that begins at or after `start`: its beginning and end."""
        found = self._search(block, start)
        return None if found is None else found.span()

    def all_in(self, line: bytes) -> set[bytes]:
        """The literals in the line, in lower case, but for those inside another; of very many, the first."""
        found: set[bytes] = set()
        start = stale = 0
        for _ in range(MAXIMUM_PLACES):
            place = self.next_place(line, start)
            if place is None:
                break
            literal = line[place[0] : place[1]].lower()
            start = max(place[0] + 1, place[1] - self._overlap(literal))
            stale = stale + 1 if literal in found else 0
            if stale >= MAXIMUM_STALE_PLACES:
                break
            found.add(literal)
        return found

    def _overlap(self, literal: bytes) -> int:
        """How many of the literal's last characters another one may begin with: looking goes on there."""
        if not self._beginnings:
            self._beginnings.update(word[:n].encode() for word in self.literals for n in range(1, len(word)))
        if literal not in self._overlaps:
            lengths = (n for n in range(len(literal) - 1, 0, -1) if literal[-n:] in self._beginnings)
            self._overlaps[literal] = next(lengths, 0)
        return self._overlaps[literal]
