"""Text in, matches out: streams through any size in constant memory and in time linear in the bytes."""

from collections.abc import Iterable, Iterator, Mapping

from msgspec import Struct

from vllm_doctor.triage import reader
from vllm_doctor.triage.conditions import CONDITIONS
from vllm_doctor.triage.effort import Effort, Mode
from vllm_doctor.triage.patterns import Pattern, Patterns, patterns
from vllm_doctor.triage.prefilter import Place
from vllm_doctor.triage.reader import CleanLine
from vllm_doctor.triage.signature import Signature

BLOCK_BYTES = 2**20

# So much is searched for literals at a time: their places are a list in memory.
PART_BYTES = 32 * 2**10

# Literals that are left out of the search are looked for again after so many bytes, the next time after twice as many.
LEFT_OUT_BYTES = 8 * 2**20
MAXIMUM_LEFT_OUT_BYTES = 64 * 2**20

# What is done with a line, in bytes of a plain log that are read in the same time.
LOOK_COST = 3500
LOOK_COST_PER_BYTE = 4
CHECK_COST = 150
BYTES_PER_CHECK_COST = 4
CANDIDATE_COST = 400
CANDIDATE_COST_PER_BYTE = 2
MATCH_COST = 5000
JOIN_COST = 6000
REPEATED_COST = 600

# Expressions that are looked at for one line: messages hold the literals of a hundred ("is not supported with").
# All that a match needs is held by few: so many of these are tried.
MAXIMUM_CANDIDATES = 256
MAXIMUM_TRIED = 64

# Of a line longer than the first, so much is looked at before and behind a literal.
LONG_LINE_BYTES = 1536
BYTES_BEFORE = 256
BYTES_BEHIND = 1024

# Lines that are also read together with those that follow them: so many, and one more for so many bytes.
FREE_JOINS = 40
BYTES_PER_JOIN = 32768

# Matches kept of one signature: its first ones decide.
MAXIMUM_MATCHES = 16

# The same line over and over says nothing new; so many different lines are remembered.
MAXIMUM_REPEATS = 16
REMEMBERED_LINES = 20_000

# The lines after a hit that a wrapped message may go on in.
FOLLOWING_LINES = 3

# What ended a server stands at the end of its log: its last lines are looked at in any case, for so much, and for a
# fiftieth of what the whole text took to read.
END_BYTES = 128 * 2**10
END_COST = 500_000
BYTES_PER_END_COST = 50


class Match(Struct, frozen=True, kw_only=True):
    """One signature found on one line; `captures` are the named groups."""

    signature: Signature
    number: int
    line: CleanLine
    captures: Mapping[str, str]


class Matcher:
    """Takes the text block by block; `matches` holds what was found so far, in the order of lines."""

    def __init__(self, known: Patterns | None = None) -> None:
        self.matches: list[Match] = []
        self._line_ends = 0
        self._patterns = known or patterns()
        self._prefilter = self._patterns.prefilter
        self._scanner = self._prefilter.scanner
        self._effort = Effort(len(self._prefilter.literals))
        self._complete_from = 0
        self._left_out_bytes = LEFT_OUT_BYTES
        self._refused_at = -1
        self._counts: dict[str, int] = {}
        self._full: set[str] = set()
        self._repeats: dict[int, int] = {}
        self._joins = 0
        self._bytes = 0
        self._done = 0
        self._rest = b""
        self._end = b""

    @property
    def lines(self) -> int:
        """How many lines were looked at, with one that has not ended."""
        return self._line_ends + bool(self._end and not self._end.endswith(b"\n"))

    def feed(self, data: bytes) -> None:
        """Take more bytes; lines are looked at once those that follow them are there, the rest waits."""
        data = self._rest + data
        end = _behind_followed(data)
        if not end and len(data) < BLOCK_BYTES:
            self._rest = data
            return
        end = end or data.rfind(b"\n") + 1 or len(data)
        self._rest = data[end:]
        self._look(data, end)

    def look_at_rest(self) -> None:
        """Look at the whole lines that wait for others to follow."""
        if end := self._rest.rfind(b"\n") + 1:
            block, self._rest = self._rest, self._rest[end:]
            self._look(block, end)

    def finish(self) -> None:
        """Look at all that waits, also at a last line that nothing ends."""
        if self._rest:
            self._look(self._rest, len(self._rest))
            self._rest = b""
        self.look_at_end()

    def look_at_end(self) -> None:
        """Look at the last lines that were read, where the many before them had left no time for all of these."""
        if self._refused_at < self._bytes - len(self._end):
            return
        self._refused_at = -1
        text, known = self._end, {(m.signature.id, m.number) for m in self.matches}
        number, begun = self._line_ends + 1, len(text)
        least = self._effort.balance - END_COST - self._bytes // BYTES_PER_END_COST
        for _, start, end in reversed(self._prefilter.scanner.places(text.lower())):
            if start >= begun:
                continue
            seen = _seen(text, start, end, cut=self._bytes > len(text))
            number -= text.count(b"\n", seen.begin, begun)
            begun = seen.begin
            self._line(text, seen, number, known)
            if self._effort.balance < least:
                break
        self.matches.sort(key=lambda match: match.number)

    def _look(self, block: bytes, until: int) -> None:
        """Look at a block up to there; what is behind is only read as what follows its lines."""
        self._effort.earn(until)
        lower = block.lower()
        self._done = place = 0
        cut = bool(self._end) and not self._end.endswith(b"\n")
        counted, number = 0, self._line_ends + 1
        while place < until:
            end = min(_part_end(block, place), until)
            # A part that ends within a line is searched a little further, for what stands across its end.
            further = end if block[end - 1 : end] == b"\n" else end + self._prefilter.longest
            for start, stop in self._places(lower[place:further], place):
                seen = _seen(block, start, stop, cut=cut)
                number += block.count(b"\n", counted, seen.begin)
                counted, self._done = seen.begin, seen.end
                self._line(block, seen, number)
            place = end
        self._bytes += until
        self._end = (self._end + block[max(0, until - END_BYTES) : until])[-END_BYTES:]
        self._line_ends += block.count(b"\n", 0, until)

    def _places(self, part: bytes, offset: int) -> Iterator[tuple[int, int]]:
        """The places in a part of a block that are worth a look, behind what is done, while there is time for it."""
        here = self._bytes + offset
        self._restore(here)
        effort, numbers = self._effort, self._scanner.numbers
        found = self._scanner.places(part)
        mode = effort.mode
        left = effort.worthwhile(found, numbers, here)
        if len(left) < len(found) or self._complete_from or mode is not Mode.FREELY:
            self._refused_at = here + len(part)
        if len(left) < len(found):
            self._leave_out(found, here)
        while left and mode is not Mode.NOTHING:
            last = 0
            for last, (literal, start, end) in enumerate(left, 1):  # noqa: B007 - where the loop was left
                if offset + start >= self._done and effort.is_worthwhile(literal, here + start, mode):
                    yield offset + start, offset + end
                    if effort.mode is not mode:
                        break
            left, mode = left[last:], effort.mode

    def _leave_out(self, found: list[Place], here: int) -> None:
        """Go on without literals that stand everywhere and lead nowhere, and without those inside them."""
        if tiresome := self._effort.tiresome(found, self._scanner.numbers, here):
            resting = self._effort.resting(here) - tiresome
            inner = {number for number in resting if self._prefilter.is_within(number, tiresome)}
            self._scanner = self._prefilter.without(tiresome | inner | self._effort.retired)
            self._complete_from = here + self._left_out_bytes
            self._left_out_bytes = min(2 * self._left_out_bytes, MAXIMUM_LEFT_OUT_BYTES)

    def _restore(self, here: int) -> None:
        """Look for all literals again, but for those that have said what they can."""
        if self._complete_from and here >= self._complete_from:
            self._scanner = self._prefilter.without(self._effort.retired)
            self._complete_from = 0

    def _line(self, block: bytes, seen: "_Seen", number: int, known: "set[tuple[str, int]] | None" = None) -> None:
        """Look at one line; `known` are the matches that are not to be noted again."""
        raw = block[seen.begin : seen.end]
        literals = self._prefilter.all_in(raw.lower())
        here = self._bytes + seen.begin
        if known is None and self._is_repeated(raw):
            self._effort.spend(REPEATED_COST)
            self._effort.note(literals, here, useful=False)
            return
        candidates = self._candidates(literals, number, known)
        self._effort.spend(LOOK_COST + LOOK_COST_PER_BYTE * len(raw))
        before = len(self.matches)
        if candidates:
            line = reader.clean(raw, block[seen.head : seen.begin])
            missed = self._match(candidates, line, line.text.encode(), number)
            if missed and self._joins < FREE_JOINS + self._bytes // BYTES_PER_JOIN:
                self._join(missed, line, block, seen.end, number)
        self._effort.spend(MATCH_COST * (len(self.matches) - before))
        self._effort.note(literals, here, useful=len(self.matches) > before)
        if self._full and (not candidates or len(self.matches) > before):
            self._retire(literals)

    def _candidates(self, literals: Iterable[int], number: int, known: "set[tuple[str, int]] | None") -> list[Pattern]:
        """The expressions to try on a line, of signatures that have not all their matches yet."""
        found = self._patterns.of(literals)
        if self._full:
            found = [p for p in found if p.signature.id not in self._full]
        if known:
            found = [p for p in found if (p.signature.id, number) not in known]
        return found[:MAXIMUM_CANDIDATES]

    def _retire(self, literals: Iterable[int]) -> None:
        """Give up the literals of which every signature has its matches."""
        for literal in literals:
            if all(p.signature.id in self._full for p in self._patterns.with_literal[literal]):
                self._effort.retire(literal)

    def _join(self, missed: list[Pattern], line: CleanLine, block: bytes, end: int, number: int) -> None:
        self._joins += 1
        self._effort.spend(JOIN_COST)
        if joined := _joined(line, block, end):
            self._match(missed, line, joined, number)

    def _is_repeated(self, raw: bytes) -> bool:
        key = hash(raw)
        repeats = self._repeats.get(key, 0)
        if repeats or len(self._repeats) < REMEMBERED_LINES:
            self._repeats[key] = repeats + 1
        return repeats >= MAXIMUM_REPEATS

    def _match(self, candidates: list[Pattern], line: CleanLine, text: bytes, number: int) -> list[Pattern]:
        """Keep what matches, with what all expressions of a signature captured; those that do not are given back."""
        if line.quiet:
            candidates = [p for p in candidates if p.signature.quiet_levels]
        missed: list[Pattern] = []
        found: dict[str, tuple[Signature, dict[str, str]]] = {}
        lower = text.lower()
        self._effort.spend((CHECK_COST + len(lower) // BYTES_PER_CHECK_COST) * len(candidates))
        tried = 0
        for pattern in candidates:
            worthwhile = tried < MAXIMUM_TRIED and pattern.may_match(lower)
            tried += worthwhile
            captures = self._captures(pattern, text) if worthwhile else None
            if captures is None:
                missed.append(pattern)
            else:
                signature, first = found.get(pattern.signature.id, (pattern.signature, {}))
                found[signature.id] = signature, {**captures, **first}
        for signature, captured in found.values():
            self._keep(Match(signature=signature, number=number, line=line, captures=captured))
        return [p for p in missed if p.signature.id not in found] if found else missed

    def _captures(self, pattern: Pattern, text: bytes) -> dict[str, str] | None:
        self._effort.spend(CANDIDATE_COST + CANDIDATE_COST_PER_BYTE * len(text))
        captures = pattern.captures(text)
        return captures if captures is not None and _holds(pattern.signature, captures) else None

    def _keep(self, match: Match) -> None:
        name = match.signature.id
        self.matches.append(match)
        self._counts[name] = count = self._counts.get(name, 0) + 1
        if count >= MAXIMUM_MATCHES:
            self._full.add(name)


def _behind_followed(data: bytes) -> int:
    """Behind the last line that as many whole lines follow as a message may go on in; 0 where there is none."""
    end = len(data)
    for _ in range(FOLLOWING_LINES + 1):
        end = data.rfind(b"\n", 0, end)
        if end < 0:
            return 0
    return end + 1


def _part_end(block: bytes, start: int) -> int:
    """Where a part ends: behind a line, or within one that is too long."""
    if len(block) - start <= PART_BYTES:
        return len(block)
    return block.rfind(b"\n", start, start + PART_BYTES) + 1 or start + PART_BYTES


def _holds(signature: Signature, captures: Mapping[str, str]) -> bool:
    return not signature.when or CONDITIONS[signature.when](captures)


class _Seen(Struct, frozen=True):
    """What is looked at in a block: a line from `begin` to `end`, or a part of a long one that begins at `head`."""

    head: int
    begin: int
    end: int


def _seen(block: bytes, start: int, end: int, *, cut: bool) -> _Seen:
    """The line around a literal, or as much of a long one as is looked at; `cut`: the block begins within a line."""
    most = reader.MAXIMUM_LINE_BYTES
    head = block.rfind(b"\n", max(0, start - most), start) + 1
    begins = head > 0 or (start <= most and not cut)
    head = head or max(0, start - most)
    limit = max(head + LONG_LINE_BYTES, end + BYTES_BEHIND)
    stop = block.find(b"\n", end, limit)
    if stop < 0:
        stop = min(len(block), limit)
    if begins and stop - head <= LONG_LINE_BYTES:
        return _Seen(head, head, stop)
    return _Seen(head, _behind_words(block, max(head, start - BYTES_BEFORE), start), min(stop, end + BYTES_BEHIND))


def _behind_words(block: bytes, begin: int, most: int) -> int:
    """Behind two words: what is left of a secret, or of the value of one, would no longer look like a secret."""
    for _ in range(2):
        space = block.find(b" ", begin, most)
        if space < 0:
            return most
        begin = space + 1
    return begin


def _joined(line: CleanLine, block: bytes, end: int) -> bytes:
    """The line with the few that follow it, each without its prefixes: messages of several lines, and wrapped ones."""
    parts = [line.text]
    for _ in range(FOLLOWING_LINES):
        start = end + 1
        if start >= len(block):
            break
        end = block.find(b"\n", start, start + BYTES_BEHIND)
        if end < 0:
            end = min(len(block), start + BYTES_BEHIND)
        following = reader.clean(block[start:end])
        parts.append(following.text)
    return " ".join(parts).encode() if len(parts) > 1 else b""
