"""`vllm-doctor plan`: does this launch fit, what takes the memory, and which command fits."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from vllm_doctor import redact
from vllm_doctor.cli import options
from vllm_doctor.errors import DoctorError, InputFileError
from vllm_doctor.facts import Gpu, Gpus, Launch, Model, Unknown

if TYPE_CHECKING:
    from vllm_doctor.memory.advice import Advice
    from vllm_doctor.memory.facts import Device, Release
    from vllm_doctor.memory.measured import Measured
    from vllm_doctor.memory.planning import Config, Planned

PLAIN_WIDTH = 100
HUB_TIMEOUT_SECONDS = 10.0


@click.command("plan")
@click.argument("model", metavar="MODEL")
@click.option("--gpu", metavar="NAME[:COUNT]", help="Plan for this GPU, as in 'H100 80GB:2' [the GPUs of this host].")
@click.option("--all-gpus", is_flag=True, help="Which GPUs would do, and how many of each.")
@click.option("--vllm", "version", metavar="VERSION", help="Plan for this release [0.33.0, the newest that was read].")
@click.option(
    "--calibration",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Take what this host measured (`vllm-doctor verify --calibrate`).",
)
@click.option(
    "--format", "format_name", type=click.Choice(("text", "json")), default="text", help="How to report [text]."
)
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="Write the plan to a file.")
@click.option(
    "--fail-on",
    type=click.Choice(("error", "warning", "never")),
    default="error",
    help="What makes the exit code 1 [error].",
)
@click.option("--offline", is_flag=True, help="Never ask the model hub.")
@click.argument("flags", nargs=-1, type=click.UNPROCESSED, metavar="[-- FLAGS...]")
def command(
    model: str,
    gpu: str | None,
    all_gpus: bool,
    version: str | None,
    calibration: Path | None,
    format_name: str,
    output: Path | None,
    fail_on: str,
    offline: bool,
    flags: tuple[str, ...],
) -> int:
    """Whether `vllm serve MODEL FLAGS` fits the GPU, before any weight is loaded.

    MODEL is a hub id or a local folder; FLAGS are those of `vllm serve`.
    """
    launch = _launch(model, flags)
    release = _release(version)
    config = _config(model, launch, offline=offline)
    if all_gpus:
        text, starts = _every_gpu(launch, config, release, format_name)
        _write(text, output)
        return 0 if starts or fail_on == "never" else 1
    from vllm_doctor.memory.planning import of_launch, refused

    device, gpus = _device(gpu, launch)
    measured = _measured(calibration, launch, device, release)
    here = dict(os.environ) if gpu is None else {}
    planned = refused(of_launch(launch, config, device, release, gpus, measured, here))
    advice = planned.advice()
    text = _json(planned, advice) if format_name == "json" else _text(planned, advice)
    _write(text, output)
    return _exit_code(planned, fail_on)


def _exit_code(planned: "Planned", fail_on: str) -> int:
    """1 where it will not start; with `--fail-on warning` also where it is too close to call."""
    if fail_on == "never" or planned.plan.fits:
        return 0
    return 1 if planned.plan.fails or fail_on == "warning" else 0


def _launch(model: str, flags: tuple[str, ...]) -> Launch:
    from vllm_doctor.launch.parse import parse_launch

    if not model.strip() or model.startswith("-"):
        raise DoctorError(f"{model!r} is no model", "name a hub id or a folder first, then options, then -- FLAGS")
    launch = parse_launch(["vllm", "serve", model, *flags], folder=options.working_folder())
    if launch.problems:
        raise DoctorError(launch.problems[0], "write the flags after -- as for `vllm serve`")
    return launch


def _release(version: str | None) -> "Release | None":
    if version is None:
        return None
    from vllm_doctor.memory.facts import release_numbers

    numbers = release_numbers(version)
    if numbers is None:
        raise DoctorError(f"--vllm {version!r} is no release", "write it as in --vllm 0.20.0")
    return numbers


def _config(name: str, launch: Launch, *, offline: bool) -> "Config":
    from vllm_doctor.memory import catalogue
    from vllm_doctor.memory.planning import config_of

    model = _model(name, launch, offline=offline)
    found = config_of(name, model)
    if isinstance(found, Unknown):
        near = tuple(dict.fromkeys((*catalogue.suggest(name), *model.suggestions)))[:4]
        hint = f"did you mean {' or '.join(near)}?" if near else "name a folder with a config.json, or a hub id"
        raise DoctorError(f"{name}: {found.reason}", hint)
    return _with_draft(found, launch, offline=offline)


def _with_draft(config: "Config", launch: Launch, *, offline: bool) -> "Config":
    """With the config of the speculative model, where the launch names one that can be read."""
    from msgspec.structs import replace

    from vllm_doctor.memory.planning import config_of
    from vllm_doctor.memory.settings import read_settings

    draft = read_settings(launch).draft
    if draft is None or draft.model is None:
        return config
    found = config_of(draft.model, _model(draft.model, launch, offline=offline))
    return config if isinstance(found, Unknown) else replace(config, draft=found.text)


def _model(name: str, launch: Launch, *, offline: bool) -> Model:
    from vllm_doctor.probes.model import probe_model

    unasked = offline or os.environ.get("HF_HUB_OFFLINE", "0").lower() in ("1", "true", "yes", "on")
    found = probe_model(name, launch=launch, offline=True, variables=dict(os.environ), folder=options.working_folder())
    if unasked or not isinstance(found.config, Unknown) or found.problems:
        return found
    from vllm_doctor.probes.running import Running

    asking = Running(
        "hub",
        lambda: probe_model(
            name, launch=launch, offline=False, variables=dict(os.environ), folder=options.working_folder()
        ),
    )
    answer = asking.result(HUB_TIMEOUT_SECONDS)
    return found if isinstance(answer, Unknown) else redact.clean(answer)


def _measured(path: Path | None, launch: Launch, device: "Device", release: "Release | None") -> "Measured | None":
    if path is None:
        return None
    from vllm_doctor.trial import calibration

    return calibration.read(path).measured(launch.model or "", device, release)


def _device(gpu: str | None, launch: Launch) -> "tuple[Device, tuple[Gpu, ...]]":
    if gpu is not None:
        from vllm_doctor.memory.boards import device

        return device(gpu), ()
    from vllm_doctor.memory.budget import device_of_gpus

    gpus = _gpus_here(launch)
    found = Unknown("no NVIDIA GPU is seen here") if isinstance(gpus, Unknown) else device_of_gpus(gpus)
    if isinstance(found, Unknown) or isinstance(gpus, Unknown):
        reason = gpus.reason if isinstance(gpus, Unknown) else "their memory is not known"
        raise DoctorError(f"no GPU to plan for: {reason}", "name one, as in --gpu 'H100 80GB:2', or use --all-gpus")
    return found, gpus


def _gpus_here(launch: Launch) -> tuple[Gpu, ...] | Unknown:
    from vllm_doctor.probes.gpus import probe_gpus

    found = probe_gpus()
    if not isinstance(found, Gpus):
        return Unknown(found.detail)
    named = launch.environment.get("CUDA_VISIBLE_DEVICES") or os.environ.get("CUDA_VISIBLE_DEVICES")
    words = None if named is None else {w.strip() for w in named.split(",")}
    devices = tuple(g for g in found.devices if g.lost is None and (words is None or str(g.index) in words))
    return devices or Unknown("no NVIDIA GPU is seen here")


def _json(planned: "Planned", advice: "tuple[Advice, ...]") -> str:
    from vllm_doctor.memory.cautions import cautions
    from vllm_doctor.memory.document import document

    corrected = planned.corrected(advice)
    found = document(planned.plan, planned.name, planned.launch.given, corrected)
    found["cautions"] = list(cautions(planned))
    return msgspec.json.format(msgspec.json.encode(found), indent=2).decode()


def _text(planned: "Planned", advice: "tuple[Advice, ...]") -> str:
    from vllm_doctor.memory.report import lines

    width, unicode = _terminal()
    return "\n".join(lines(planned, advice, width, unicode=unicode))


def _terminal() -> tuple[int, bool]:
    """The columns of the terminal, and whether it takes more than ASCII."""
    width = PLAIN_WIDTH
    if sys.stdout.isatty():
        width = os.get_terminal_size(sys.stdout.fileno()).columns or PLAIN_WIDTH
    try:
        "█▓▒░◦·–".encode(sys.stdout.encoding or "ascii")  # noqa: RUF001 - the signs of the bar
    except (UnicodeEncodeError, LookupError):
        return width, False
    return width, True


def _every_gpu(launch: Launch, config: "Config", release: "Release | None", format_name: str) -> tuple[str, bool]:
    """The boards that would do, and whether vLLM takes the launch at all."""
    from vllm_doctor.memory.cautions import of_release
    from vllm_doctor.memory.choosing import choices, document, refusals, rows

    found = tuple(choices(launch, config, release))
    refused = refusals(launch, config, release)
    notes = (*of_release(release), *refused)
    if format_name == "json":
        values = document(launch, found) | {"cautions": list(notes)}
        return msgspec.json.format(msgspec.json.encode(values), indent=2).decode(), not refused
    warned = (f"Will not start on any GPU: {words}" for words in refused)
    told = (f"Note: {words}" for words in of_release(release))
    return "\n".join((*(f"{line}\n" for line in (*warned, *told)), *rows(found, launch, config))), not refused


def _write(text: str, path: Path | None) -> None:
    if path is None:
        click.echo(redact.text(text))
        return
    try:
        path.write_text(redact.text(text) + "\n", encoding="utf-8")
    except OSError as problem:
        raise InputFileError(f"{path}: {problem.strerror}", "name a file that can be written") from None
