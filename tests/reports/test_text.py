"""The text report: widths, encodings, commands that can be copied, what is left out, and what it loads."""

import io
import shlex
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from tests.reports import builders
from vllm_doctor.diagnose import Diagnosis, Status
from vllm_doctor.finding import Fix
from vllm_doctor.reports import text, words
from vllm_doctor.reports.layout import Line, Span, Style, cells, encodable, physical_lines, string

ARGV = ("vllm", "serve", "/a b/it's", "--hf-overrides", '{"a": "b"}', "x" * 150, "$HOME", "a\nb\\n'c'")


def with_fix(fix: Fix) -> Diagnosis:
    return structs.replace(builders.healthy(), findings=(builders.finding(fixes=(fix,)),))


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_prose_keeps_to_the_width_and_commands_stay_whole(width: int) -> None:
    diagnosis = builders.diagnosis()
    assert diagnosis.snapshot.launch is not None
    commands = {diagnosis.corrected, diagnosis.snapshot.launch.given}
    commands |= {words.command_line(fix.command) for f in diagnosis.findings for fix in f.fixes if fix.command}
    lines = text.plain(diagnosis, width).splitlines()
    assert [c for c in commands if not any(line.endswith(f" {c}") for line in lines)] == []
    prose = [line for line in lines if not any(line.endswith(f" {c}") for c in commands)]
    assert [line for line in prose if cells(line) > width] == []


@pytest.mark.parametrize("width", [20, 80])
def test_a_command_is_read_back_by_a_shell_as_it_was_meant(width: int) -> None:
    shown = text.plain(with_fix(Fix(title="do it", command=ARGV)), width).splitlines()
    command = next(line for line in shown if "vllm serve '/a b" in line)
    code = "import sys; print(repr(tuple(sys.argv[1:])))"
    ran = subprocess.run(
        ["bash", "-c", f"{shlex.quote(sys.executable)} -c {shlex.quote(code)} {command.strip()}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout.strip() == repr(ARGV)


@pytest.mark.parametrize("encoding", ["ascii", "cp437", "cp1252", "latin-1", "utf-8", "no-such-encoding"])
def test_every_encoding_can_print_it(encoding: str) -> None:
    diagnosis = structs.replace(builders.diagnosis(), findings=(builders.finding(title="模型 — ünïcode ✗"),))
    shown = text.plain(diagnosis, 80, encoding=encoding)
    shown.encode("ascii" if encoding == "no-such-encoding" else encoding)
    assert "driver-too-old" in shown


def test_ascii_signs() -> None:
    assert encodable("✗ 2 × a · b", "ascii") == "x 2 x a - b"  # noqa: RUF001 - the reports' signs


@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_a_console_of_any_encoding(encoding: str) -> None:
    from rich.console import Console

    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding)
    text.render(builders.diagnosis(), Console(file=stream, width=80))
    stream.flush()
    assert raw.getvalue().decode(encoding).rstrip().endswith("1 check crashed.")


def test_markup_and_escapes_of_others_are_text() -> None:
    from rich.console import Console

    title = "[bold red]not markup[/] :boom: \x1b[31mred\x1b[0m \x1b]8;;http://x\x07link"
    diagnosis = structs.replace(builders.healthy(), findings=(builders.finding(title=title),))
    stream = io.StringIO()
    text.render(diagnosis, Console(file=stream, width=200, color_system=None))
    assert "[bold red]not markup[/] :boom: red link" in stream.getvalue()
    assert "\x1b" not in stream.getvalue()


def test_one_reason_takes_one_line() -> None:
    checks = tuple(builders.result(f"check-{n}", Status.SKIPPED, "no launch command was given") for n in range(30))
    shown = text.plain(structs.replace(builders.healthy(), checks=checks), 200).splitlines()
    assert [line for line in shown if "no launch" in line] == [
        "  skipped  no launch command was given (check-0, check-1, check-2, check-3, check-4, check-5 and 24 more)"
    ]
    everything = text.plain(structs.replace(builders.healthy(), checks=checks), 200, verbose=True)
    assert all(check.id in everything for check in checks)


VERDICTS = [
    (builders.healthy(), "ok", "No fault was found."),
    (
        structs.replace(builders.diagnosis(), findings=(builders.shm_finding(),), checks=()),
        "warning",
        "No error was found, but 1 warning.",
    ),
    (
        structs.replace(builders.diagnosis(), findings=(builders.name_finding(),), checks=()),
        "ok",
        "No fault was found.",
    ),
    (
        Diagnosis(snapshot=builders.snapshot(with_launch=False), findings=(builders.finding(),), checks=()),
        "error",
        "vLLM will fail as things are: 1 error.",
    ),
    (
        structs.replace(
            builders.healthy(),
            snapshot=structs.replace(
                builders.snapshot(with_launch=False), environment=structs.replace(builders.environment(), vllm=None)
            ),
        ),
        "ok",
        "No fault was found, but there is no vLLM here to judge.",
    ),
    (
        builders.bare(),
        "ok",
        "Nothing could be judged; 1 check could not be evaluated, the host probe failed, the GPUs probe failed.",
    ),
]


@pytest.mark.parametrize(("diagnosis", "verdict", "sentence"), VERDICTS)
def test_verdicts(diagnosis: Diagnosis, verdict: str, sentence: str) -> None:
    assert (words.verdict(diagnosis), words.verdict_sentence(diagnosis)) == (verdict, sentence)
    assert text.plain(diagnosis, 400).splitlines()[-1] == sentence
    assert text.plain(diagnosis, 400, quiet=True).splitlines()[-1] == sentence


SPANS = st.lists(st.tuples(st.text("ab -漢", max_size=20), st.sampled_from(list(Style))), max_size=6)


@given(SPANS, st.integers(1, 60))
def test_breaking_loses_no_word_and_breaks_none(pairs: list[tuple[str, Style]], width: int) -> None:
    spans = tuple(Span(*pair) for pair in pairs)
    rows = [string(row) for row in physical_lines(Line(words=spans, hang=2), width)]
    assert " ".join(rows).split() == "".join(s.text for s in spans).split()
    assert all(cells(row) <= max(22, width) or len(row.split()) == 1 for row in rows)


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=200))
def test_no_control_character_of_others_is_printed(foreign: str) -> None:
    finding = builders.finding(
        title=foreign, evidence=(foreign,), cause=foreign, fixes=(Fix(title=foreign, command=("do", foreign)),)
    )
    shown = text.plain(structs.replace(builders.diagnosis(), findings=(finding,), corrected=foreign), 80)
    assert not [c for c in shown if (c < " " and c != "\n") or "\x7f" <= c < "\xa0"]


def test_a_plain_report_loads_neither_rich_nor_jinja() -> None:
    code = (
        "import sys; from tests.reports import builders; from vllm_doctor.reports import FORMATS, text;"
        "text.show(builders.diagnosis()); FORMATS['json'](builders.diagnosis());"
        "print({'rich', 'jinja2', 'click'} & set(sys.modules))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines()[-1] == "set()"


def test_importing_the_formats_loads_no_format() -> None:
    code = "import sys, vllm_doctor.reports; print(sorted(m for m in sys.modules if m.startswith('vllm_doctor')))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "['vllm_doctor', 'vllm_doctor.reports']"


def test_a_line_of_shell_is_shown_as_it_is_typed() -> None:
    assert (
        words.command_line(("sh", "-c", "dmesg -T | grep -i 'killed process'")) == "dmesg -T | grep -i 'killed process'"
    )
    assert words.command_line(("sh", "-c")) == "sh -c"
