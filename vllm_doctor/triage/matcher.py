"""Text in, matches out: streams through any size in constant memory and in time linear in the bytes."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any

import re2
from msgspec import Struct

from vllm_doctor.triage import reader
from vllm_doctor.triage.conditions import CONDITIONS
from vllm_doctor.triage.literals import literals
from vllm_doctor.triage.prefilter import Prefilter, options
from vllm_doctor.triage.reader import CleanLine
from vllm_doctor.triage.signature import Signature, book

BLOCK_BYTES = 2**20

# A literal that was looked at so often has said what it has to say; the time per byte stays bounded.
MAXIMUM_LOOKS = 300

# Looks at lines that any text may have, and one more for so many bytes; beyond that a literal has its first looks only.
# A line counts once more for so many of its own bytes.
FREE_LOOKS = 250
BYTES_PER_LOOK = 16384
LINE_BYTES_PER_LOOK = 1024
FIRST_LOOKS = 2

# Lines that are also read together with those that follow them: so many, and one more for so many bytes.
FREE_JOINS = 40
BYTES_PER_JOIN = 32768

# Matches kept of one signature: its first ones decide.
MAXIMUM_MATCHES = 16

# The same line over and over says nothing new; so many different lines are remembered.
MAXIMUM_REPEATS = 16
REMEMBERED_LINES = 20_000

# So many hits that lead to no look pay for an automaton without their literals, for the rest of the block.
MAXIMUM_IDLE_HITS = 250

# The lines after a hit that a wrapped message may go on in.
FOLLOWING_LINES = 3


class Match(Struct, frozen=True, kw_only=True):
    """One signature found on one line; `captures` are the named groups."""

    signature: Signature
    number: int
    line: CleanLine
    captures: Mapping[str, str]


class _Pattern:
    """One expression of a signature, compiled when it is needed first."""

    def __init__(self, signature: Signature, expression: str) -> None:
        self.signature = signature
        self.literals = literals(expression)
        if not self.literals:
            raise ValueError(f"{signature.id}: no literal in {expression!r}")
        self._expression = expression
        self._compiled: Any = None
        self._unless: Any = None

    def captures(self, text: bytes) -> dict[str, str] | None:
        """The named groups where the text matches, else None."""
        if self._compiled is None:
            self._compiled = re2.compile(self._expression.encode(), options())
            if self.signature.unless:
                self._unless = re2.compile(self.signature.unless.encode(), options())
        found = self._compiled.search(text)
        if found is None or (self._unless is not None and self._unless.search(text)):
            return None
        return {n.decode(): v.decode("utf-8", "replace") for n, v in found.groupdict().items() if v is not None}


class Patterns:
    """All expressions by their literals."""

    def __init__(self, signatures: Iterable[Signature]) -> None:
        everything = [_Pattern(s, expression) for s in signatures for expression in s.patterns]
        self.literals = frozenset(literal for p in everything for literal in p.literals)
        by_literal: dict[bytes, list[_Pattern]] = {}
        for pattern in everything:
            for literal in pattern.literals:
                by_literal.setdefault(literal.encode(), []).append(pattern)
        self._by_literal = by_literal
        self._inner: dict[bytes, tuple[bytes, ...]] = {}
        self.prefilter = Prefilter(self.literals)

    def of(self, literals: Iterable[bytes]) -> list[_Pattern]:
        """The expressions that these literals may lead to."""
        inner = {part for literal in literals for part in self._within(literal)}
        found = (pattern for literal in sorted(inner) for pattern in self._by_literal[literal])
        return list({id(pattern): pattern for pattern in found}.values())

    def _within(self, literal: bytes) -> tuple[bytes, ...]:
        """The literal and those that stand inside it: the prefilter names the longest of a place."""
        if literal not in self._inner:
            self._inner[literal] = tuple(other for other in self._by_literal if other in literal)
        return self._inner[literal]


@lru_cache(maxsize=1)
def patterns() -> Patterns:
    """The expressions of the whole book."""
    return Patterns(book().values())


class Matcher:
    """Takes the text block by block; `matches` holds what was found so far, in the order of lines."""

    def __init__(self, known: Patterns | None = None) -> None:
        self.matches: list[Match] = []
        self.lines = 0
        self._patterns = known or patterns()
        self._usual = self._prefilter = self._patterns.prefilter
        self._left_out: frozenset[bytes] = frozenset()
        self._idle: Counter[bytes] = Counter()
        self._idle_hits = MAXIMUM_IDLE_HITS
        self._looks: dict[bytes, int] = {}
        self._counts: dict[str, int] = {}
        self._worn: set[bytes] = set()
        self._repeats: dict[int, int] = {}
        self._total_looks = 0
        self._joins = 0
        self._bytes = 0
        self._rest = b""

    def feed(self, data: bytes) -> None:
        """Take more bytes; whole lines are looked at, the rest waits."""
        data = self._rest + data
        end = data.rfind(b"\n") + 1
        if not end and len(data) < BLOCK_BYTES:
            self._rest = data
            return
        end = end or len(data)
        self._rest = data[end:]
        self._look(data if end == len(data) else data[:end])

    def finish(self) -> None:
        """Look at the last line, which nothing ends."""
        if self._rest:
            self._look(self._rest)
            self._rest = b""

    def _look(self, block: bytes) -> None:
        self._bytes += len(block)
        self._start_block()
        counted, place = 0, 0
        number = self.lines + 1
        while (hit := self._prefilter.next_place(block, place)) is not None:
            literal = block[hit[0] : hit[1]].lower()
            if self._is_worn(literal):
                # The rest of the line may hold another literal.
                place = hit[1]
                self._note_idle(literal)
                continue
            start, end = _window(block, *hit)
            place = end
            raw = block[start:end]
            if self._is_repeated(raw):
                self._note_idle(literal)
                continue
            number += block.count(b"\n", counted, start)
            counted = start
            self._line(block, raw, end, number)
        self.lines += block.count(b"\n") + (not block.endswith(b"\n"))

    def _is_worn(self, literal: bytes) -> bool:
        if literal in self._worn:
            return True
        exhausted = self._total_looks > FREE_LOOKS + self._bytes // BYTES_PER_LOOK
        return exhausted and self._looks.get(literal, 0) >= FIRST_LOOKS

    def _start_block(self) -> None:
        if self._worn - self._left_out:
            self._left_out = frozenset(self._worn)
            self._usual = self._patterns.prefilter.without(_words(self._left_out))
        self._prefilter = self._usual
        self._idle.clear()
        self._idle_hits = MAXIMUM_IDLE_HITS

    def _note_idle(self, literal: bytes) -> None:
        """Count a hit that leads to no look; of many, the rest of the block is read without their literals."""
        self._idle[literal] += 1
        if self._idle.total() < self._idle_hits:
            return
        often = self._idle_hits // 4
        dropped = {word for word, hits in self._idle.items() if hits >= often or self._is_worn(word)}
        self._prefilter = self._prefilter.without(_words(dropped))
        self._idle.clear()
        # A new automaton costs as much as some thousand hits.
        self._idle_hits *= 4

    def _line(self, block: bytes, raw: bytes, end: int, number: int) -> None:
        literals = self._prefilter.all_in(raw)
        candidates = [p for p in self._patterns.of(literals) if not self._is_full(p.signature)]
        self._note_looks(literals, 1 + len(raw) // LINE_BYTES_PER_LOOK)
        if not candidates:
            return
        line = reader.clean(raw)
        missed = self._match(candidates, line, line.text.encode(), number)
        if missed and self._joins < FREE_JOINS + self._bytes // BYTES_PER_JOIN:
            self._joins += 1
            if joined := _joined(line, block, end):
                self._match(missed, line, joined, number)

    def _is_repeated(self, raw: bytes) -> bool:
        key = hash(raw)
        repeats = self._repeats.get(key, 0)
        if repeats or len(self._repeats) < REMEMBERED_LINES:
            self._repeats[key] = repeats + 1
        return repeats >= MAXIMUM_REPEATS

    def _is_full(self, signature: Signature) -> bool:
        return self._counts.get(signature.id, 0) >= MAXIMUM_MATCHES

    def _note_looks(self, literals: Iterable[bytes], cost: int) -> None:
        """Count the look; a literal is worn where it was looked at often, or all its signatures have their matches."""
        self._total_looks += cost
        for literal in literals:
            self._looks[literal] = looks = self._looks.get(literal, 0) + 1
            if looks >= MAXIMUM_LOOKS or (
                looks >= MAXIMUM_MATCHES and all(self._is_full(p.signature) for p in self._patterns.of((literal,)))
            ):
                self._worn.add(literal)

    def _match(self, candidates: list[_Pattern], line: CleanLine, text: bytes, number: int) -> list[_Pattern]:
        """Keep what matches; the expressions that do not are given back."""
        missed: list[_Pattern] = []
        done: set[str] = set()
        for pattern in candidates:
            signature = pattern.signature
            if signature.id in done or (line.quiet and not signature.quiet_levels):
                continue
            captures = pattern.captures(text)
            if captures is None or not _holds(signature, captures):
                missed.append(pattern)
                continue
            done.add(signature.id)
            self._counts[signature.id] = self._counts.get(signature.id, 0) + 1
            self.matches.append(Match(signature=signature, number=number, line=line, captures=captures))
        return [p for p in missed if p.signature.id not in done]


def _words(literals: Iterable[bytes]) -> frozenset[str]:
    return frozenset(literal.decode() for literal in literals)


def _holds(signature: Signature, captures: Mapping[str, str]) -> bool:
    return not signature.when or CONDITIONS[signature.when](captures)


def _window(block: bytes, start: int, end: int) -> tuple[int, int]:
    """The line around a hit, or as much of a very long one as is looked at."""
    most = reader.MAXIMUM_LINE_BYTES
    begin = block.rfind(b"\n", max(0, start - most // 2), start) + 1 or max(0, start - most // 2)
    stop = block.find(b"\n", end, begin + most)
    return begin, stop if stop >= 0 else min(len(block), max(end, begin + most))


def _joined(line: CleanLine, block: bytes, end: int) -> bytes:
    """The line with the few that follow it, each without its prefixes: messages of several lines, and wrapped ones."""
    parts = [line.text]
    for _ in range(FOLLOWING_LINES):
        start = end + 1
        if start >= len(block):
            break
        end = block.find(b"\n", start, start + reader.MAXIMUM_LINE_BYTES)
        if end < 0:
            end = min(len(block), start + reader.MAXIMUM_LINE_BYTES)
        following = reader.clean(block[start:end])
        parts.append(following.text)
    return " ".join(parts).encode() if len(parts) > 1 else b""


def blocks(read: Any) -> Iterator[bytes]:
    """The blocks of a binary stream."""
    while data := read(BLOCK_BYTES):
        yield data
