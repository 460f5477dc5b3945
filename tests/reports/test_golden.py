"""Each report of one constructed diagnosis, compared whole; `VLLM_DOCTOR_WRITE_GOLDEN=1` writes the files anew."""

import io
import os
from pathlib import Path

import pytest

from tests.reports import builders
from vllm_doctor.diagnose import Diagnosis
from vllm_doctor.reports import FORMATS, text

GOLDEN = Path(__file__).parent / "golden"


def compare(name: str, found: str) -> None:
    path = GOLDEN / name
    if os.environ.get("VLLM_DOCTOR_WRITE_GOLDEN"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(found + "\n", encoding="utf-8")
    assert found + "\n" == path.read_text(encoding="utf-8")


ENDINGS = {"json": "json", "junit": "xml", "github": "txt", "html": "html", "markdown": "md"}


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_formats(name: str) -> None:
    compare(f"{name}.{ENDINGS[name]}", FORMATS[name](builders.diagnosis()))


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_text(width: int) -> None:
    compare(f"text-{width}.txt", text.plain(builders.diagnosis(), width))


def test_text_quiet() -> None:
    compare("text-quiet.txt", text.plain(builders.diagnosis(), 80, quiet=True))


def test_text_verbose() -> None:
    compare("text-verbose.txt", text.plain(builders.diagnosis(), 80, verbose=True))


@pytest.mark.parametrize(("name", "diagnosis"), [("healthy", builders.healthy()), ("bare", builders.bare())])
def test_text_of_little(name: str, diagnosis: Diagnosis) -> None:
    compare(f"text-{name}.txt", text.plain(diagnosis, 80))


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_a_terminal_shows_the_same_lines(width: int) -> None:
    from rich.console import Console

    stream = io.StringIO()
    text.render(builders.diagnosis(), Console(file=stream, width=width, color_system=None, emoji=False))
    shown = [line.rstrip() for line in stream.getvalue().splitlines()]
    assert shown == text.plain(builders.diagnosis(), min(width, text.MAXIMUM_WIDTH)).splitlines()


def test_a_terminal_with_colours() -> None:
    from rich.console import Console

    stream = io.StringIO()
    console = Console(
        file=stream, width=80, color_system="standard", force_terminal=True, no_color=False, legacy_windows=False
    )
    text.render(builders.healthy(), console)
    assert stream.getvalue().splitlines()[-1] == "\x1b[32mNo fault was found.\x1b[0m"


def test_without_colours_a_terminal_gets_no_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    from rich.console import Console

    monkeypatch.setenv("NO_COLOR", "1")
    stream = io.StringIO()
    text.render(builders.diagnosis(), Console(file=stream, width=80, force_terminal=True, legacy_windows=False))
    assert "\x1b[3" not in stream.getvalue()
