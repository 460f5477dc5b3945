"""`vllm-doctor run`: collect or read the facts, run the checks, report."""

import os
from pathlib import Path
from typing import Any

import click
from msgspec import structs

from vllm_doctor import correct, diagnose, registry, settings
from vllm_doctor.cli import options, printing
from vllm_doctor.collect import Progress, Request, collect
from vllm_doctor.errors import DoctorError
from vllm_doctor.facts import Launch, Unknown
from vllm_doctor.snapshot import Snapshot, read, read_bounded

# The reports of collect-env are a few pages; a pasted issue may hold a log as well.
MAXIMUM_REPORT_BYTES = 8 * 2**20


@click.command("run", context_settings={"allow_interspersed_args": False})
@options.probing
@click.option("--url", metavar="URL", help="Also ask this server: /health, /version, /v1/models.")
@click.option("--snapshot", type=click.Path(path_type=Path), metavar="FILE", help="Diagnose a snapshot, not this host.")
@click.option(
    "--env-report", type=click.Path(path_type=Path), metavar="FILE", help="Diagnose the text of `vllm collect-env`."
)
@options.reporting
@click.argument("launch", nargs=-1, type=click.UNPROCESSED, metavar="[-- LAUNCH...]")
def command(launch: tuple[str, ...], **given: Any) -> int:
    """The check-up of this host and, with LAUNCH, of that command.

    LAUNCH is the command as you type it: `vllm serve MODEL ...`, `python -m vllm.entrypoints.openai.api_server ...`
    (with leading NAME=value words), or `docker run ... vllm/vllm-openai ...`.
    """
    found_settings = settings.find(options.working_folder())
    output = options.output(found_settings, given)
    checks = registry.load()
    selection = options.selection(found_settings, given, checks)
    with printing.live(output) as progress:
        snapshot = _snapshot(launch, given, found_settings, progress)
        progress("checks", "started")
        diagnosis = correct.correct(diagnose.diagnose(snapshot, checks, selection), checks, selection)
        diagnosis = diagnose.with_plan(diagnosis)
        progress("checks", "done")
    printing.report(diagnosis, output)
    return options.exit_code(diagnosis, output.fail_on)


def _snapshot(launch: tuple[str, ...], given: dict[str, Any], found: settings.Settings, progress: Progress) -> Snapshot:
    sources = [name for name in ("snapshot", "env_report") if given[name] is not None]
    if len(sources) == 2:
        raise DoctorError("--snapshot and --env-report exclude each other", "give one of them")
    if given["snapshot"] is not None:
        return _with_launch(read(given["snapshot"]), launch)
    if given["env_report"] is not None:
        return _with_launch(_reported(given["env_report"]), launch)
    return collect(request(launch, given, found), progress)


def request(launch: tuple[str, ...], given: dict[str, Any], found: settings.Settings) -> Request:
    """The options as a request to the probes."""
    offline = given["offline"] if given["offline"] is not None else found.offline
    return Request(
        launch_words=launch,
        python=given["python"] or (Path(found.python) if found.python else None),
        url=given.get("url"),
        offline=bool(offline) or os.environ.get("HF_HUB_OFFLINE", "0").lower() in ("1", "true", "yes", "on"),
        deep=given["deep"],
        timeout_seconds=options.timeout_seconds(found, given),
        folder=options.working_folder(),
    )


def _reported(path: Path) -> Snapshot:
    from vllm_doctor import redact
    from vllm_doctor.probes.env_report import read_env_report

    text = read_bounded(path, MAXIMUM_REPORT_BYTES).decode("utf-8", "replace")
    return redact.clean(read_env_report(text))


def _with_launch(snapshot: Snapshot, words: tuple[str, ...]) -> Snapshot:
    """The snapshot of another machine with the launch given here: its model files cannot be looked at."""
    if not words:
        return snapshot
    from vllm_doctor.launch.parse import parse_launch

    launch = _elsewhere(parse_launch(words))
    same = snapshot.launch is not None and snapshot.launch.model == launch.model
    model = snapshot.model if same else Unknown("the model's files are on the machine of the snapshot")
    return structs.replace(snapshot, launch=launch, model=model if launch.model is not None else None)


def _elsewhere(launch: Launch) -> Launch:
    """The launch as it is on the machine of the snapshot: what its `--config` names is not missing there."""
    unread = f"--config: {launch.config_file} is on the machine of the snapshot and was not read"
    problems = (unread if p.startswith("--config:") and "cannot be read" in p else p for p in launch.problems)
    return structs.replace(launch, problems=tuple(problems))
