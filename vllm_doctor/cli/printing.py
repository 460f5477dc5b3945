"""Prints a diagnosis where it was asked for, and the live lines while it is made."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vllm_doctor.cli import options, streams
from vllm_doctor.cli.options import Output
from vllm_doctor.collect import Progress, silent
from vllm_doctor.diagnose import Diagnosis
from vllm_doctor.errors import InputFileError
from vllm_doctor.reports import FORMATS, text


@contextmanager
def live(output: Output) -> Iterator[Progress]:
    """Live lines on standard error while probes and checks run: on a terminal, for a text report."""
    if output.format_name != "text" or output.quiet or not sys.stderr.isatty():
        yield silent
        return
    from vllm_doctor.reports.live import show

    with show() as progress:
        yield progress


def report(diagnosis: Diagnosis, output: Output) -> None:
    """Write the report to the file asked for, else to standard output, alone."""
    if output.format_name == "github":
        _append_summary(diagnosis)
    if output.path is None and output.format_name == "text":
        text.show(diagnosis, quiet=output.quiet, verbose=output.verbose)
        return
    write(_rendered(diagnosis, output), output.path)


def _rendered(diagnosis: Diagnosis, output: Output) -> str:
    if output.format_name == "text":
        return text.plain(diagnosis, quiet=output.quiet, verbose=output.verbose)
    if output.format_name == "junit":
        from vllm_doctor.reports.junit import render

        return render(diagnosis, options.fails_at(output.fail_on))
    return FORMATS[output.format_name](diagnosis)


def write(document: str, path: Path | None) -> None:
    """The document to the file, else to standard output."""
    if path is None:
        streams.write_document(document)
        return
    _to_file(path, document + "\n", "w")


def _append_summary(diagnosis: Diagnosis) -> None:
    """The step summary of GitHub Actions, where the runner names a file for it."""
    named = os.environ.get("GITHUB_STEP_SUMMARY")
    if named:
        from vllm_doctor.reports.github import step_summary

        _to_file(Path(named), step_summary(diagnosis) + "\n", "a")


def _to_file(path: Path, document: str, mode: str) -> None:
    try:
        with path.open(mode, encoding="utf-8", errors="replace") as file:
            file.write(document)
    except OSError as problem:
        raise InputFileError(f"{path}: {problem.strerror}", "name a file that can be written") from None
