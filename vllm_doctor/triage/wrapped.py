"""Gives a text its own lines back: joins what was wrapped, parts what was escaped into one line."""

import re
from itertools import islice

from vllm_doctor.triage import reader

# Longer texts come from a file, which nothing wraps.
MAXIMUM_BYTES = 64 * 2**10

# A line shorter than this was not broken by a terminal.
MINIMUM_CHARACTERS = 38

# Fewer escaped line ends than this stand in the body of many an HTTP error.
MINIMUM_ESCAPED_LINES = 4

# Of a log that stands in one string so many lines begin as those of a log do; a chat's answer has none.
MINIMUM_LOG_LINES = 2
_LOG_LINE = re.compile(
    rb"^[ \t]{0,16}(?:\{\"\w{1,20}\": ?\")?(?:Traceback|File \"|\(?[\w.\-]{1,40} pid=\d"
    rb"|\[?(?:INFO|WARNING|ERROR|DEBUG|CRITICAL)\b|\[?\d{4}-\d\d-\d\d|[\w.]{1,80}(?:Error|Exception)\b)",
    re.MULTILINE,
)

# A line that begins like this begins a message of its own.
_BEGINS = re.compile(
    rb"\s*(?:$|\(?\w[\w.:\- ]{0,40}pid=\d|(?:\[?\x1b\[\d+m)?(?:INFO|WARNING|ERROR|DEBUG|CRITICAL)\b"
    rb"|\d{4}-\d\d-\d\d|Traceback|File \""
    rb"|[\w.]{1,80}(?:Error|Exception|Warning)\b|\[rank\d|[-*#>|`{}$]|\w+:\s)"
)


def unwrapped(data: bytes) -> bytes | None:
    """The text with every continued line joined to the one before it; None where nothing is wrapped.

    A terminal breaks in the middle of a word, a person at a space: both joints are given, one after the other.
    """
    if not data or len(data) > MAXIMUM_BYTES:
        return None
    joined: list[list[bytes]] = []
    changed = False
    for line in data.split(b"\n"):
        previous = joined[-1] if joined else None
        if previous and len(previous[-1]) >= MINIMUM_CHARACTERS and len(previous) < 8 and not _BEGINS.match(line):
            previous.append(line)
            changed = True
        else:
            joined.append([line])
    if not changed:
        return None
    return b"\n".join(_joints(parts) for parts in joined)


def _joints(parts: list[bytes]) -> bytes:
    if len(parts) == 1:
        return parts[0]
    clean = [
        parts[0].rstrip(),
        *(reader.clean(part).text.encode() for part in parts[1:]),
    ]
    return b" ".join(clean) + b"\n" + b"".join(clean)


def unescaped(data: bytes) -> bytes | None:
    """A log that stands as one string in JSON, with its lines; None where most lines are real ones."""
    escaped = data.count(b"\\n")
    if escaped < MINIMUM_ESCAPED_LINES or escaped <= 2 * data.count(b"\n"):
        return None
    head = _parted(data[:MAXIMUM_BYTES])
    lines = sum(1 for _ in islice(_LOG_LINE.finditer(head), MINIMUM_LOG_LINES))
    return _parted(data) if lines == MINIMUM_LOG_LINES else None


def _parted(data: bytes) -> bytes:
    if b"\\\\" in data:
        # Every run of backslashes to one, in one pass.
        data = b"\\".join(part for part in data.split(b"\\") if part)
    return data.replace(b"\\r", b"").replace(b"\\n", b"\n").replace(b"\\t", b"\t").replace(b'\\"', b'"')
