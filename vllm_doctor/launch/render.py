"""A Launch back to a command line that can be copied into a shell."""

import shlex

from vllm_doctor.facts import FlagUse, Launch
from vllm_doctor.launch.arguments import BOOLEANS, is_option, takes
from vllm_doctor.launch.arity import Arity
from vllm_doctor.launch.program import joined


def command_line(launch: Launch) -> str:
    """The launch as one line of shell, quoted; flags of a `--config` file stay in the file."""
    return joined(argv(launch))


def argv(launch: Launch) -> tuple[str, ...]:
    """The launch as words: the same form, program, variables and container options, flags in the order typed."""
    own = [*launch.program, *_arguments(launch)]
    if launch.docker is not None:
        run = [*launch.prefix, launch.docker.program, "run", *launch.docker.options, launch.docker.image]
        return (*run, *launch.shell, shlex.join(own)) if launch.shell else (*run, *own)
    words = [*launch.prefix, *own]
    return (*launch.shell, joined(words)) if launch.shell else tuple(words)


def _arguments(launch: Launch) -> list[str]:
    """Positional words first, where no flag can swallow them; words that look like options last, behind `--`."""
    model = [launch.model] if launch.model_is_positional and launch.model is not None else []
    words = [*model, *launch.words]
    flags = [word for use in launch.flags if use.source == "command" for word in _flag(use)]
    if any(is_option(word) for word in words):
        return [*flags, "--", *words]
    return [*words, *flags]


def _flag(use: FlagUse) -> list[str]:
    if len(use.values) == 1 and _needs_equals(use, use.values[0]):
        return [f"{use.spelled}={use.values[0]}"]
    return [use.spelled, *use.values]


def _needs_equals(use: FlagUse, value: str) -> bool:
    """Whether the value would not be read as this flag's if it stood as a word of its own."""
    takes_none = "." not in use.name and takes(use.name) is Arity.NONE and value.lower() not in BOOLEANS
    return is_option(value) or takes_none or use.spelled in ("-", "--")
