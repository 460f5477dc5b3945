"""The report as text: in colour on a terminal, plain everywhere else."""

import os
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, TextIO

from vllm_doctor.diagnose import Diagnosis
from vllm_doctor.reports import document
from vllm_doctor.reports.layout import Line, Style, encodable, physical_lines, string

if TYPE_CHECKING:
    from rich.console import Console

# Prose wider than this is hard to read, however wide the terminal is.
MAXIMUM_WIDTH = 110

# The width of a report that no terminal shows.
PLAIN_WIDTH = 100

RICH_STYLES = {
    Style.PLAIN: "",
    Style.STRONG: "bold",
    Style.MUTED: "dim",
    Style.GOOD: "green",
    Style.INFO: "cyan",
    Style.WARNING: "yellow",
    Style.ERROR: "bold red",
    Style.COMMAND: "bold cyan",
}


def plain(
    diagnosis: Diagnosis,
    width: int = PLAIN_WIDTH,
    *,
    quiet: bool = False,
    verbose: bool = False,
    encoding: str = "utf-8",
) -> str:
    """The report without colours, its prose at most `width` columns wide; no line of it ends in a space."""
    return plain_lines(document.lines(diagnosis, quiet=quiet, verbose=verbose), width, encoding)


def plain_lines(lines: Iterable[Line], width: int = PLAIN_WIDTH, encoding: str = "utf-8") -> str:
    """Any styled lines without colours."""
    rows = (string(row) for line in lines for row in physical_lines(line, width))
    return encodable("\n".join(rows), encoding)


def render(diagnosis: Diagnosis, console: "Console", *, quiet: bool = False, verbose: bool = False) -> None:
    """Print the report to a terminal, as wide as it is up to a readable width."""
    render_lines(document.lines(diagnosis, quiet=quiet, verbose=verbose), console)


def render_lines(lines: Iterable[Line], console: "Console") -> None:
    """Print any styled lines to a terminal."""
    from rich.text import Text

    width = min(console.width, MAXIMUM_WIDTH)
    for line in lines:
        for row in physical_lines(line, width):
            text = Text()
            for span in row:
                text.append(encodable(span.text, console.encoding), RICH_STYLES[span.style])
            # Soft wrap: a long command is broken by the terminal, which copies it as one line.
            console.print(text, soft_wrap=True, highlight=False)


def show(diagnosis: Diagnosis, *, quiet: bool = False, verbose: bool = False) -> None:
    """Print the report to standard output: with colours where that is a terminal that takes them."""
    show_lines(document.lines(diagnosis, quiet=quiet, verbose=verbose))


def show_lines(lines: Iterable[Line]) -> None:
    """Print any styled lines to standard output: with colours where that is a terminal that takes them."""
    if _takes_colours(sys.stdout):
        from rich.console import Console

        render_lines(lines, Console(highlight=False, emoji=False))
        return
    encoding = sys.stdout.encoding or "ascii"
    print(plain_lines(lines, _columns(sys.stdout), encoding))  # noqa: T201 - this is the report


def _takes_colours(stream: TextIO) -> bool:
    """Whether rich is worth its import: not into files and pipes, nor where colours are not wanted (no-color.org)."""
    if os.environ.get("FORCE_COLOR"):
        return True
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _columns(stream: TextIO) -> int:
    if not stream.isatty():
        return PLAIN_WIDTH
    try:
        return min(os.get_terminal_size(stream.fileno()).columns or PLAIN_WIDTH, MAXIMUM_WIDTH)
    except OSError:
        return PLAIN_WIDTH
