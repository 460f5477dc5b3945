"""Styled lines and how they are broken: at spaces only, with a hanging indent, and commands never."""

import unicodedata
from collections.abc import Iterator
from enum import Enum

from msgspec import Struct

# What the signs become where the output cannot encode them.
ASCII_SIGNS = str.maketrans(
    {"✗": "x", "✓": "+", "·": "-", "×": "x", "…": "...", "█": "#", "▓": "=", "▒": "+", "◦": "o", "░": ":", "–": "-"}  # noqa: RUF001 - the signs of the reports
)


class Style(str, Enum):
    """What a piece of text is; a painter gives it a colour."""

    PLAIN = "plain"
    STRONG = "strong"
    MUTED = "muted"
    GOOD = "good"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"
    COMMAND = "command"


class Span(Struct, frozen=True):
    """A piece of text of one style."""

    text: str
    style: Style = Style.PLAIN


class Line(Struct, frozen=True, kw_only=True):
    """One logical line: a label that opens it, and words that are broken under each other after the label.

    `indent` is the column of the label, `hang` that of the words; `whole` keeps the words on one physical line, so that
    a command is copied as it was meant. An empty line has neither label nor words.
    """

    words: tuple[Span, ...] = ()
    label: Span | None = None
    indent: int = 0
    hang: int = 0
    whole: bool = False


BLANK = Line()

PhysicalLine = tuple[Span, ...]


def cells(text: str) -> int:
    """The columns that the text takes on a terminal."""
    if text.isascii():
        return len(text)
    return sum(_cell(character) for character in text)


def _cell(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def physical_lines(line: Line, width: int) -> Iterator[PhysicalLine]:
    """The line broken to `width` columns; a word that is longer than that stays whole."""
    lead = _lead(line)
    if line.whole:
        yield (*lead, *line.words)
        return
    room = max(20, width - line.hang)
    rows = list(_broken(line.words, room))
    yield (*lead, *(rows[0] if rows else ()))
    for row in rows[1:]:
        yield (Span(" " * line.hang), *row)


def _lead(line: Line) -> PhysicalLine:
    if line.label is None:
        return (Span(" " * line.hang),) if line.hang and line.words else ()
    gap = max(1, line.hang - line.indent - cells(line.label.text)) if line.words else 0
    indent = (Span(" " * line.indent),) if line.indent else ()
    return (*indent, line.label, *((Span(" " * gap),) if gap else ()))


def _broken(spans: tuple[Span, ...], room: int) -> Iterator[PhysicalLine]:
    row: list[Span] = []
    used = 0
    for word in _words(spans):
        size = sum(cells(piece.text) for piece in word)
        if row and used + 1 + size > room:
            yield tuple(row)
            row, used = [], 0
        if row:
            _extend(row, Span(" ", word[0].style))
            used += 1
        for piece in word:
            _extend(row, piece)
        used += size
    if row:
        yield tuple(row)


def _extend(row: list[Span], span: Span) -> None:
    if row and row[-1].style is span.style:
        row[-1] = Span(row[-1].text + span.text, span.style)
    else:
        row.append(span)


def _words(spans: tuple[Span, ...]) -> Iterator[list[Span]]:
    """Every word; one that runs on from span to span has a piece of each style."""
    word: list[Span] = []
    for span in spans:
        for number, piece in enumerate(span.text.split(" ")):
            if number and word:
                yield word
                word = []
            if piece:
                word.append(Span(piece, span.style))
    if word:
        yield word


def string(line: PhysicalLine) -> str:
    """The physical line without styles."""
    return "".join(span.text for span in line).rstrip()


def encodable(text: str, encoding: str) -> str:
    """The text as that encoding can hold it; its own signs become ASCII ones where they cannot be encoded."""
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return text.translate(ASCII_SIGNS).encode(encoding, "replace").decode(encoding)
    except LookupError:
        return text.translate(ASCII_SIGNS).encode("ascii", "replace").decode("ascii")
    return text
