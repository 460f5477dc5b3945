"""The lines worth a look where no signature matches: the last exceptions, errors and warnings of a text."""

import re
from collections.abc import Iterator
from functools import lru_cache

from vllm_doctor.triage import reader
from vllm_doctor.triage.prefilter import Scanner

MAXIMUM_LINES = 6

# Only the end of a text is searched: what ended a server stands near the end of its log.
TAIL_BYTES = 64 * 2**10

# So many different lines that hold such a word are read, the last first.
MAXIMUM_READ = 300

_WORDS = ("error", "fatal", "fail", "exception", "critical", "killed", "denied", "refused", "interrupt", "exit")
_EXCEPTION = re.compile(r"^[\w.]{1,120}(?:Error|Exception|Interrupt|Exit)\b(?::|$)")
_COMPLAINT = re.compile(r"\b(?:error|fatal|failed|failure|exception|critical|killed|denied|refused)\b", re.IGNORECASE)


class Telling:
    """Remembers the last exception lines, and the last complaints for want of them."""

    def __init__(self) -> None:
        self._tail = b""
        self._line_ends = 0
        self._bytes = 0

    def feed(self, block: bytes) -> None:
        """Take more of the text; only its end is kept."""
        self._line_ends += block.count(b"\n")
        joined = block if len(block) >= TAIL_BYTES else self._tail + block
        self._bytes += len(block)
        self._tail = joined[-TAIL_BYTES:]

    @property
    def line_count(self) -> int:
        """How many lines there are, with one that has not ended."""
        return self._line_ends + bool(self._tail and not self._tail.endswith(b"\n"))

    def lines(self) -> list[tuple[int, str]]:
        """Line numbers and texts, at most six, in the order of the text."""
        exceptions: list[tuple[int, str]] = []
        complaints: list[tuple[int, str]] = []
        for number, raw in self._with_words():
            line = reader.clean(raw)
            if _EXCEPTION.search(line.text):
                exceptions.append((number, line.text))
            elif not line.quiet and _COMPLAINT.search(line.text):
                complaints.append((number, line.text))
            if len(exceptions) == MAXIMUM_LINES:
                break
        return (exceptions or complaints[:MAXIMUM_LINES])[::-1]

    def _with_words(self) -> Iterator[tuple[int, bytes]]:
        """The lines with a word that complains, each once, the last first, with their numbers."""
        tail, seen = self._tail, set[bytes]()
        number, begun = self._line_ends + 1, len(tail)
        for _, place, _ in reversed(_scanner().places(tail.lower())):
            if place >= begun:
                continue
            start = tail.rfind(b"\n", 0, place) + 1
            number -= tail.count(b"\n", start, begun)
            if not start and self._bytes > len(tail):
                # The rest of a line, which may begin with the rest of a secret.
                return
            begun = start
            end = tail.find(b"\n", place)
            raw = tail[start : end if end >= 0 else None]
            if raw not in seen:
                seen.add(raw)
                yield number, raw
            if len(seen) >= MAXIMUM_READ:
                return


@lru_cache(maxsize=1)
def _scanner() -> Scanner:
    return Scanner(tuple(word.encode() for word in _WORDS))
