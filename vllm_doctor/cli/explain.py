"""`vllm-doctor explain`: the root cause out of a log, a traceback, an HTTP body or a report; or the page of a cause."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vllm_doctor import causes, settings
from vllm_doctor.cli import options
from vllm_doctor.errors import InputFileError, SelectionError

if TYPE_CHECKING:
    from vllm_doctor.triage.explain import Explained, Explanation

# How long `--follow` waits for a file to grow before it looks again.
FOLLOW_SECONDS = 0.5

FIFO_HINT = "name a file that can be read, `-` for standard input, or a cause (`vllm-doctor explain` lists them)"


@click.command("explain")
@click.option("--follow", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Watch a growing log.")
@options.reporting
@click.argument("what", required=False, metavar="[FILE | - | CAUSE]")
def command(what: str | None, follow: Path | None, **given: Any) -> int:
    """Name the root cause in a server log, a traceback, an HTTP error body, an issue text or a collect-env report.

    CAUSE prints the page of that cause; without an argument the causes are listed. A file called like a cause is read
    when it is given as ./NAME.
    """
    if follow is not None:
        if what is not None:
            raise SelectionError("--follow names the file itself", "leave out the other argument")
        return _follow(follow, options.output(settings.find(Path.cwd()), given), given)
    if what is None:
        return _list_causes()
    if what in causes.catalogue():
        click.echo(causes.page(what).rstrip())
        return 0
    return _explain(what, options.output(settings.find(Path.cwd()), given), given)


def _list_causes() -> int:
    for name, group in causes.catalogue().items():
        click.echo(f"{name:26}  {group}")
    return 0


def _explain(what: str, output: options.Output, given: dict[str, Any]) -> int:
    from vllm_doctor.triage.explain import explain_stream

    if what == "-":
        explanation = explain_stream(sys.stdin.buffer)
    else:
        path = _existing(what)
        try:
            with path.open("rb") as file:
                explanation = explain_stream(file)
        except OSError as problem:
            raise InputFileError(f"{path}: {problem.strerror}", FIFO_HINT) from None
    explanation = _selected(explanation, given)
    _print(explanation, output)
    return _exit_code(explanation.findings, output.fail_on)


def _existing(what: str) -> Path:
    path = Path(what)
    if path.is_dir():
        raise InputFileError(f"{what}: a folder", FIFO_HINT)
    if not path.exists():
        from difflib import get_close_matches

        near = get_close_matches(what, list(causes.catalogue()), n=1)
        raise SelectionError(
            f"{what!r} is neither a file nor a cause",
            f"did you mean {near[0]}?" if near else "`vllm-doctor explain` lists the causes",
        )
    return path


def _selected(explanation: "Explanation", given: dict[str, Any]) -> "Explanation":
    """The explanation with --select and --ignore applied; they name causes."""
    from msgspec import structs

    select, ignore = (_ids(given[name]) for name in ("select", "ignore"))
    for name in sorted(select | ignore):
        if name not in causes.catalogue():
            raise SelectionError(f"{name!r} is no cause", "`vllm-doctor explain` lists them")
    kept = tuple(
        f for f in explanation.findings if f.finding.cause not in ignore and (not select or f.finding.cause in select)
    )
    return structs.replace(explanation, findings=kept)


def _ids(values: tuple[str, ...]) -> frozenset[str]:
    return frozenset(part.strip() for value in values for part in value.split(",") if part.strip())


def _print(explanation: "Explanation", output: options.Output) -> None:
    from vllm_doctor.reports import explanation as document
    from vllm_doctor.reports import text

    if output.format_name != "text":
        report = document.render(explanation, output.format_name)
    elif output.path is None:
        text.show_lines(document.lines(explanation, quiet=output.quiet))
        return
    else:
        report = text.plain_lines(document.lines(explanation, quiet=output.quiet))
    if output.path is None:
        click.echo(report)
        return
    try:
        output.path.write_text(report + "\n", encoding="utf-8", errors="replace")
    except OSError as problem:
        raise InputFileError(f"{output.path}: {problem.strerror}", "name a file that can be written") from None


def _exit_code(findings: "tuple[Explained, ...]", fail_on: str) -> int:
    at_least = {"error": {"error"}, "warning": {"error", "warning"}, "never": set()}[fail_on]
    return 1 if any(f.finding.severity.value in at_least for f in findings) else 0


def _follow(path: Path, output: options.Output, given: dict[str, Any]) -> int:
    """Print what the log says whenever that changes, until interrupted.

    A file that was cut off, or replaced by another of its name, is read anew; one that is gone is waited for.
    """
    import time

    from vllm_doctor.triage.explain import Reading

    said: tuple[str, ...] = ()
    reading, place = Reading(), 0
    file_id: tuple[int, int] | None = None
    while True:
        try:
            with path.open("rb") as file:
                status = os.fstat(file.fileno())
                if status.st_size < place or file_id not in (None, (status.st_dev, status.st_ino)):
                    reading, place, said = Reading(), 0, ()
                file_id = (status.st_dev, status.st_ino)
                file.seek(place)
                while block := file.read(2**20):
                    reading.feed(block)
                    place += len(block)
        except FileNotFoundError as problem:
            if file_id is None:
                raise InputFileError(f"{path}: {problem.strerror}", "name a log that can be read") from None
            # The next file of this name is another one, even where it gets the same number.
            file_id = (-1, -1)
        except OSError as problem:
            raise InputFileError(f"{path}: {problem.strerror}", "name a log that can be read") from None
        explanation = _selected(reading.so_far(), given)
        causes_now = tuple(f.finding.cause for f in explanation.findings)
        if causes_now != said and causes_now:
            _print(explanation, output)
            sys.stdout.flush()
        said = causes_now
        time.sleep(FOLLOW_SECONDS)
