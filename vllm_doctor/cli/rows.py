"""Rows of plain text and JSON, as the verbs that print tables write them."""

import json
import shutil
import sys
import textwrap


def wrapped(name: str, text: str, column: int = 20, *, indent: str = "  ") -> str:
    """A row: a name, and text from `column` on that is broken under itself to the width of the terminal."""
    width = max(50, shutil.get_terminal_size((100, 24)).columns)
    return textwrap.fill(
        text,
        width,
        initial_indent=f"{indent}{name}".ljust(column),
        subsequent_indent=" " * column,
        break_on_hyphens=False,
    )


def as_json(value: object) -> str:
    """The value as JSON, in ASCII where the output is not in a Unicode encoding."""
    return json.dumps(value, indent=2, ensure_ascii=not str(sys.stdout.encoding).lower().startswith("utf"))
