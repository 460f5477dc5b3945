"""A Launch back to a command line that can be copied into a shell."""

import shlex

from vllm_doctor.facts import FlagUse, Launch

# Flags that are printed as `--flag=value` would be read the same; a value that begins with a dash must be.
_NEEDS_EQUALS = "-"


def command_line(launch: Launch) -> str:
    """The launch as one line of shell, quoted; flags of a `--config` file stay in the file."""
    return shlex.join(argv(launch))


def argv(launch: Launch) -> tuple[str, ...]:
    """The launch as words: the same form, program, variables and container options, flags in the order typed."""
    own = [*launch.program, *_arguments(launch)]
    if launch.docker is not None:
        run = [*launch.prefix, launch.docker.program, "run", *launch.docker.options, launch.docker.image]
        return (*run, *launch.shell, shlex.join(own)) if launch.shell else (*run, *own)
    words = [*launch.prefix, *own]
    return (*launch.shell, shlex.join(words)) if launch.shell else tuple(words)


def _arguments(launch: Launch) -> list[str]:
    words: list[str] = []
    if launch.model_is_positional and launch.model is not None:
        words.append(launch.model)
    words.extend(launch.words)
    for use in launch.flags:
        if use.source == "command":
            words.extend(_flag(use))
    return words


def _flag(use: FlagUse) -> list[str]:
    if len(use.values) == 1 and (use.values[0].startswith(_NEEDS_EQUALS) or use.values[0] == ""):
        return [f"{use.spelled}={use.values[0]}"]
    return [use.spelled, *use.values]
