"""`vllm-doctor verify`: launch, wait until it serves, walk what a client does, take it down, tell what served."""

import os
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from msgspec import structs

from vllm_doctor import registry, settings
from vllm_doctor.cli import options, printing
from vllm_doctor.cli.options import Output
from vllm_doctor.cli.run import request
from vllm_doctor.errors import DoctorError
from vllm_doctor.finding import Finding, Severity

if TYPE_CHECKING:
    from vllm_doctor.trial.mending import Remedy
    from vllm_doctor.trial.verification import Verification
    from vllm_doctor.trial.verifying import Wanted

DEFAULT_ATTEMPTS = 3


@click.command("verify", context_settings={"allow_interspersed_args": False})
@click.option("--tp", type=click.IntRange(1, 1024), metavar="N", help="The canary on N GPUs: proves NCCL as well [1].")
@click.option("--matrix", is_flag=True, help="The canary with every dtype and attention backend of this platform.")
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    metavar="PORT",
    help="The server's port [LAUNCH's own; the canary's: a free one].",
)
@click.option("--attempts", type=click.IntRange(1, 20), metavar="N", help="Commands to try at most [3].")
@click.option("--limit", type=click.FloatRange(5, 86400), metavar="SECONDS", help="Limit of one start [3600].")
@click.option("--tools", is_flag=True, help="Also walk tool calls [where LAUNCH enables them].")
@click.option(
    "--calibrate",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Keep what memory was reported.",
)
@click.option("--fix", is_flag=True, help="Also try changes that need a yes; each is asked for.")
@options.probing
@options.reporting
@click.argument("launch", nargs=-1, type=click.UNPROCESSED, metavar="[-- LAUNCH...]")
def command(launch: tuple[str, ...], **given: Any) -> int:
    """Launch LAUNCH, or the built-in canary, prove that it serves, and take it down without a trace.

    LAUNCH is the command as you type it: `vllm serve MODEL ...`, with leading NAME=value words. The canary is a tiny
    model whose right answers are known: where they come, driver, CUDA, torch, vLLM and its kernels compute right.

    Where LAUNCH fails, the cause is named and changes of the command that need no yes are tried; a command that serves
    is printed, also as a file. The exit code is 0 only where LAUNCH serves as it was given.
    """
    found_settings = settings.find(options.working_folder())
    output = options.output(found_settings, given)
    _refuse_contradictions(launch, given)
    from vllm_doctor.trial.interruption import interruptible
    from vllm_doctor.trial.verifying import verify

    wanted = _wanted(launch, given, found_settings)
    shown = structs.replace(output, quiet=True) if given["fix"] else output
    with interruptible(), printing.live(shown) as progress:
        found = verify(wanted, progress)
    found = _kept(found, given["calibrate"])
    findings = found.findings(wanted.selection)
    _report(found, findings, output)
    return exit_code(found, findings, output.fail_on)


def _wanted(launch: tuple[str, ...], given: dict[str, Any], found: settings.Settings) -> "Wanted":
    from vllm_doctor.trial.progress import Limits
    from vllm_doctor.trial.verifying import Wanted

    checks = registry.load()
    wanted = Wanted(
        request=request(launch, given, found),
        registry=checks,
        selection=options.selection(found, given, checks),
        inherited=dict(os.environ),
        limits=Limits() if given["limit"] is None else Limits(total_seconds=given["limit"]),
        maximum_attempts=given["attempts"] or DEFAULT_ATTEMPTS,
        port=given["port"],
        tools=given["tools"],
        tp=given["tp"] or 1,
        matrix=given["matrix"],
    )
    if given["timeout"] is not None:
        wanted = structs.replace(wanted, answer_seconds=given["timeout"])
    return structs.replace(wanted, ask=_ask) if given["fix"] else wanted


def _refuse_contradictions(launch: tuple[str, ...], given: dict[str, Any]) -> None:
    if launch and (given["matrix"] or given["tp"]):
        name = "--matrix" if given["matrix"] else "--tp"
        raise DoctorError(f"{name} is for the canary", "leave LAUNCH out, or write the flag into it")
    if given["fix"] and not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise DoctorError("--fix asks, and there is no terminal", "leave it out: what costs little is tried unasked")
    if given["calibrate"] is not None and given["calibrate"].exists():
        from vllm_doctor.trial import calibration

        calibration.read(given["calibrate"])


def _ask(finding: Finding) -> "Remedy | None":
    """The first change of the launch that the user says yes to."""
    from vllm_doctor.reports import words
    from vllm_doctor.trial.mending import needing_yes

    for remedy in needing_yes(finding):
        changes = "; ".join(words.edit_lines(remedy.edit))
        click.echo(f"{words.line(finding.title)}\n  {words.line(remedy.title)}: {words.line(changes)}", err=True)
        if click.confirm("  Try that?", err=True):
            return remedy
    return None


def _kept(found: "Verification", path: Path | None) -> "Verification":
    """The verification with what became of the file that was asked for: written, or nothing to be kept."""
    if path is None:
        return found
    from vllm_doctor.trial import calibration
    from vllm_doctor.trial.verifying import planned

    plan, good = planned(found), found.good
    if plan is None or good is None or good.outcome is None:
        why = "nothing served" if good is None else "there is no plan of this launch to compare with"
        return structs.replace(found, kept=f"Nothing was kept in {path}: {why}.")
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    entry = calibration.entry_of(plan, good.outcome.reported, now)
    if entry is None:
        why = "the size of the KV cache was given, or was not reported"
        return structs.replace(found, kept=f"Nothing was kept in {path}: {why}.")
    before = calibration.read(path) if path.exists() else calibration.Calibration()
    calibration.write(path, before.with_entry(entry))
    return structs.replace(found, kept=f"Kept in {path}, for `vllm-doctor plan MODEL --calibration {path}`.")


def exit_code(found: "Verification", findings: tuple[Finding, ...], fail_on: str) -> int:
    """1 where the launch did not serve as it was given, or (`--fail-on warning`) something is warned of; else 0."""
    if fail_on == "never":
        return 0
    warned = any(finding.severity is Severity.WARNING for finding in findings)
    return 0 if found.ok and not (warned and fail_on == "warning") else 1


def _report(found: "Verification", findings: tuple[Finding, ...], output: Output) -> None:
    from vllm_doctor.reports import text, verification

    if output.format_name == "json":
        printing.write(verification.render(found, findings), output.path)
    elif output.format_name == "text":
        lines = tuple(verification.lines(found, findings, quiet=output.quiet, verbose=output.verbose))
        if output.path is None:
            text.show_lines(lines)
        else:
            printing.write(text.plain_lines(lines), output.path)
    else:
        printing.report(verification.diagnosis(found, findings), output)
