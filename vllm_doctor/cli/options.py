"""The options that the reporting commands share, and the exit code."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
from msgspec import Struct

from vllm_doctor.diagnose import Diagnosis, Selection, Status
from vllm_doctor.errors import DoctorError, SelectionError
from vllm_doctor.finding import Severity
from vllm_doctor.registry import Registry
from vllm_doctor.reports import FORMATS
from vllm_doctor.settings import Settings

F = TypeVar("F", bound=Callable[..., Any])

FAIL_ON = ("error", "warning", "never")
FORMAT_NAMES = ("text", *FORMATS)
DEFAULT_TIMEOUT_SECONDS = 30.0
MINIMUM_TIMEOUT_SECONDS = 0.5
MAXIMUM_TIMEOUT_SECONDS = 3600.0


def reporting(function: F) -> F:
    """Add --format, -o, --fail-on, --select, --ignore, -q and -v to a command."""
    for option in reversed(
        (
            click.option("--format", "format_name", type=click.Choice(FORMAT_NAMES), help="How to report [text]."),
            click.option(
                "-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="Write the report to a file."
            ),
            click.option("--fail-on", type=click.Choice(FAIL_ON), help="What makes the exit code 1 [error]."),
            click.option("--select", multiple=True, metavar="ID", help="Only these checks or causes (repeat, or a,b)."),
            click.option("--ignore", multiple=True, metavar="ID", help="Without these checks or causes."),
            click.option("-q", "--quiet", is_flag=True, help="The verdict and what fails, nothing else."),
            click.option("-v", "--verbose", is_flag=True, help="Also the checks that passed."),
        )
    ):
        function = option(function)
    return function


def probing(function: F) -> F:
    """Add --python, --timeout, --offline and --deep to a command."""
    for option in reversed(
        (
            click.option(
                "--python",
                type=click.Path(path_type=Path),
                metavar="PATH",
                help="The interpreter, or the folder of the environment, that vLLM runs in.",
            ),
            click.option(
                "--timeout",
                type=click.FloatRange(MINIMUM_TIMEOUT_SECONDS, MAXIMUM_TIMEOUT_SECONDS),
                metavar="SECONDS",
                help="Limit of a probe [30].",
            ),
            click.option("--offline", is_flag=True, default=None, help="Never ask the model hub."),
            click.option("--deep", is_flag=True, help="Also import torch and vLLM, in a child of that interpreter."),
        )
    ):
        function = option(function)
    return function


def working_folder() -> Path:
    """The folder that the command was called in; raises DoctorError where it is gone."""
    try:
        return Path.cwd()
    except OSError:
        raise DoctorError("the working folder is not there any more", "change to one that is, and try again") from None


def timeout_seconds(settings: Settings, given: dict[str, Any]) -> float:
    """The limit of a probe; raises SelectionError where it is out of range, or no number at all (`nan`)."""
    wanted = given["timeout"] or settings.timeout or DEFAULT_TIMEOUT_SECONDS
    if not MINIMUM_TIMEOUT_SECONDS <= wanted <= MAXIMUM_TIMEOUT_SECONDS:
        least, most = MINIMUM_TIMEOUT_SECONDS, MAXIMUM_TIMEOUT_SECONDS
        raise SelectionError(f"timeout is {wanted:g} seconds", f"it is a number from {least:g} to {most:g}")
    return float(wanted)


class Output(Struct, frozen=True, kw_only=True):
    """Where and how to report."""

    format_name: str
    path: Path | None
    fail_on: str
    quiet: bool
    verbose: bool


def output(settings: Settings, given: dict[str, Any]) -> Output:
    """The output options: the command line before the settings file before the defaults."""
    return Output(
        format_name=_choice("format", given["format_name"] or settings.format or "text", FORMAT_NAMES),
        path=given["output"],
        fail_on=_choice("fail-on", given["fail_on"] or settings.fail_on or "error", FAIL_ON),
        quiet=given["quiet"],
        verbose=given["verbose"],
    )


def _choice(name: str, value: str, choices: tuple[str, ...]) -> str:
    if value not in choices:
        raise SelectionError(f"{name} is {value!r} in the settings file", f"it is one of {', '.join(choices)}")
    return value


def selection(settings: Settings, given: dict[str, Any], registry: Registry) -> Selection:
    """What --select and --ignore name; raises SelectionError for an id that is neither a check nor a cause."""
    select = _ids(given["select"]) or frozenset(settings.select)
    ignore = _ids(given["ignore"]) or frozenset(settings.ignore)
    from vllm_doctor.causes import catalogue

    known = set(catalogue()) | {c.id for c in registry.checks} | {x for c in registry.checks for x in c.causes}
    for name in sorted(select | ignore):
        if name not in known:
            raise SelectionError(f"{name!r} is neither a check nor a cause", _nearest(name, known))
    return Selection(select, ignore)


def _ids(values: tuple[str, ...]) -> frozenset[str]:
    return frozenset(part.strip() for value in values for part in value.split(",") if part.strip())


def _nearest(name: str, known: set[str]) -> str:
    from difflib import get_close_matches

    near = get_close_matches(name, sorted(known), n=1)
    return f"did you mean {near[0]}?" if near else "`vllm-doctor checks` lists them"


def fails_at(fail_on: str) -> Severity | None:
    """The least severity that fails a run; None for `never`."""
    return None if fail_on == "never" else Severity(fail_on)


def exit_code(diagnosis: Diagnosis, fail_on: str) -> int:
    """0, 1 for findings at or above `fail_on`, 3 where the doctor itself failed or could judge nothing."""
    least = fails_at(fail_on)
    worst = diagnosis.worst
    if worst is not None and least is not None and worst.rank <= least.rank:
        return 1
    found_less = worst is Severity.ERROR or worst is Severity.WARNING
    return 3 if _doctor_failed(diagnosis) and not found_less else 0


def _doctor_failed(diagnosis: Diagnosis) -> bool:
    statuses = {c.status for c in diagnosis.checks}
    judged = statuses & {Status.PASSED, Status.FOUND}
    broken = Status.CRASHED in statuses or bool(diagnosis.snapshot.failed_probes)
    return broken or (Status.UNKNOWN in statuses and not judged)
