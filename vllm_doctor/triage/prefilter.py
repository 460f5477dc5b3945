"""Finds, in a block of bytes, the places where any literal stands: one pass of an automaton, whatever the bytes are.

The automaton is the Aho-Corasick one of the `aho-corasick` crate (as in ripgrep): its states are the beginnings of the
literals, all made beforehand, and it lists every place in one call. RE2 makes states while it reads and begins anew
where they outgrow its memory, which a text made of literals brings about at once (25 times the time per place).
"""

from collections.abc import Container, Iterable

from ahocorasick_rs import MATCHKIND_LEFTMOST_LONGEST, MATCHKIND_STANDARD, BytesAhoCorasick, Implementation

# A literal by its number, its beginning and its end.
Place = tuple[int, int, int]


class Scanner:
    """Lists the places of literals; of several that overlap, the first, and the longest that begins there."""

    def __init__(self, literals: tuple[bytes, ...], left_out: Container[int] = ()) -> None:
        self.numbers = tuple(number for number in range(len(literals)) if number not in left_out)
        self._automaton = BytesAhoCorasick(
            [literals[number] for number in self.numbers] or [b"\0" * 64],
            matchkind=MATCHKIND_LEFTMOST_LONGEST,
            implementation=Implementation.ContiguousNFA,
        )

    def places(self, text: bytes) -> list[Place]:
        """Every place in a text in lower case; a literal is given by its place in `numbers`."""
        found: list[Place] = self._automaton.find_matches_as_indexes(text)
        return found


class Prefilter:
    """The literals, in lower case and in order: a literal's number is its place among them."""

    def __init__(self, literals: Iterable[bytes]) -> None:
        self.literals = tuple(sorted(set(literals)))
        self.longest = max(map(len, self.literals), default=1)
        self.scanner = Scanner(self.literals)
        self._every = BytesAhoCorasick(
            self.literals, matchkind=MATCHKIND_STANDARD, implementation=Implementation.ContiguousNFA
        )

    def without(self, numbers: Container[int]) -> Scanner:
        """A scanner for the others only."""
        return Scanner(self.literals, numbers)

    def is_within(self, number: int, others: Iterable[int]) -> bool:
        """Whether the literal is a part of one of the others."""
        return any(self.literals[number] in self.literals[other] for other in others)

    def all_in(self, text: bytes) -> set[int]:
        """The numbers of all literals in a text in lower case, those inside others too."""
        return {number for number, _, _ in self._every.find_matches_as_indexes(text, overlapping=True)}
