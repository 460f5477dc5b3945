"""The command that served, to be typed again, and the same as a file for `vllm serve --config`."""

from collections.abc import Iterator

from vllm_doctor.facts import FlagUse, Launch
from vllm_doctor.launch import render
from vllm_doctor.launch.arguments import BOOLEANS, is_option
from vllm_doctor.launch.arity import SWITCHES

# Flags that gather what every use of them gives: a file has one place for each name (argparse's `append`, 0.32.0).
GATHERING = ("--middleware",)


def command(launch: Launch) -> str:
    """The launch as one line for a shell; secrets are masked, as everywhere."""
    return render.command_line(launch)


def config_file(launch: Launch) -> str | None:
    """The YAML of `vllm serve --config FILE` that stands for the launch; None where no file can say the same.

    SOURCE: vllm/utils/argparse_utils.py of 0.32.0, `load_config_file`: `true` is a switch, a list the words of one
    flag, everything else a word. Of a flag given twice the last counts; the variables stay outside.
    """
    import yaml  # only a launch that served is written as a file

    if any(len(launch.uses(name)) > 1 for name in GATHERING) or any(map(_looks_like_option, launch.flags)):
        return None
    settings = dict(_settings(launch))
    return yaml.safe_dump(settings, sort_keys=False, allow_unicode=True, default_flow_style=False, width=10_000)


def _settings(launch: Launch) -> Iterator[tuple[str, object]]:
    if launch.model is not None:
        yield "model", launch.model
    last = {use.name: use for use in launch.flags}
    for name, use in last.items():
        if name in ("--model", "--config"):
            continue
        yield _setting(use)


def _looks_like_option(use: FlagUse) -> bool:
    """Whether a value is written behind `=` only: in a file it would stand as a word of its own."""
    return any(is_option(value) for value in use.values)


def _setting(use: FlagUse) -> tuple[str, object]:
    key = use.name.removeprefix("--")
    if not use.values:
        return (key, True)
    word = use.values[0].lower()
    if use.name in SWITCHES and word in BOOLEANS:
        return (key, word == "true")
    return (key, list(use.values) if len(use.values) > 1 else _word(use.values[0]))


def _word(value: str) -> object:
    """A whole number stays one; everything else is text, which vLLM reads as it would on the command line."""
    plain = value.isascii() and value.isdecimal() and (value == "0" or not value.startswith("0"))
    return int(value) if plain and len(value) < 16 else value
