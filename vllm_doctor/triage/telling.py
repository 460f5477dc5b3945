"""The lines worth a look where no signature matches: the last exceptions, errors and warnings of a text."""

import re
from collections import deque

from vllm_doctor.triage import reader

MAXIMUM_LINES = 6

# Only the end of a block is searched: what ended a server stands near the end of its log.
TAIL_BYTES = 64 * 2**10

_EXCEPTION = re.compile(r"^[\w.]{1,120}(?:Error|Exception|Interrupt|Exit)\b(?::|$)")
_COMPLAINT = re.compile(r"\b(?:error|fatal|failed|failure|exception|critical|killed|denied|refused)\b", re.IGNORECASE)


class Telling:
    """Remembers the last exception lines, and the last complaints for want of them."""

    def __init__(self) -> None:
        self._tail = b""
        self._lines_before = 0

    def feed(self, block: bytes) -> None:
        """Take more of the text; only its end is kept."""
        joined = self._tail + block[-TAIL_BYTES:] if len(block) <= TAIL_BYTES else block[-TAIL_BYTES:]
        dropped = len(self._tail) + len(block) - len(joined)
        if dropped > 0:
            self._lines_before += (self._tail + block)[:dropped].count(b"\n")
        keep = joined[-TAIL_BYTES:]
        self._lines_before += joined[: len(joined) - len(keep)].count(b"\n")
        self._tail = keep

    def lines(self) -> list[tuple[int, str]]:
        """Line numbers and texts, at most six, in the order of the text."""
        exceptions: deque[tuple[int, str]] = deque(maxlen=MAXIMUM_LINES)
        complaints: deque[tuple[int, str]] = deque(maxlen=MAXIMUM_LINES)
        seen: set[bytes] = set()
        for number, raw in enumerate(self._tail.split(b"\n"), self._lines_before + 1):
            if raw in seen:
                continue
            seen.add(raw)
            line = reader.clean(raw)
            if _EXCEPTION.search(line.text):
                exceptions.append((number, line.text))
            elif not line.quiet and _COMPLAINT.search(line.text):
                complaints.append((number, line.text))
        return list(exceptions or complaints)
