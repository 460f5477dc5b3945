"""The launch command to a typed value: words or shell text in, one Launch out."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from vllm_doctor import redact
from vllm_doctor.errors import LaunchError
from vllm_doctor.facts import FlagUse, Launch, LaunchForm
from vllm_doctor.launch import arguments, config_file, docker, shell
from vllm_doctor.launch.program import (
    ASSIGNMENT,
    SHELLS,
    Engine,
    Program,
    Shell,
    assignments,
    joined,
    locate,
    module,
    taken_away,
)

MAXIMUM_WORDS = 4096
MAXIMUM_SHELLS = 3

# huggingface_hub 1.0.0 (release notes): `huggingface-cli` became `hf`; `local_dir_use_symlinks` is ignored since 0.23.
_DOWNLOAD_HINT = (
    "`huggingface-cli` is retired and --local-dir-use-symlinks is gone: hf download MODEL --local-dir DIR; "
    "then give the command that serves it: vllm serve DIR ..."
)
_HINT = "give the command as you type it: vllm serve MODEL ..., docker run ... vllm/vllm-openai ..."


def parse_launch(words: Sequence[str], *, folder: Path | None = None) -> Launch:
    """Parse a launch given as words; `folder` is where relative names of `--config` and `--env-file` start.

    Raises LaunchError where the words start no vLLM server. Everything else that is wrong stands in `problems`.
    """
    given = [_printable(word) for word in as_typed(words)[:MAXIMUM_WORDS]]
    return _parse(given, folder, MAXIMUM_SHELLS)


def as_typed(words: Sequence[str]) -> Sequence[str]:
    """The words; those inside, where the whole command stands in quotes as one word.

    Raises LaunchError where the quotes inside do not match: no word of it is shown, as none could be masked for sure.
    """
    if len(words) != 1 or " " not in words[0].strip() or len(words[0]) > shell.MAXIMUM_CHARACTERS:
        return words
    try:
        split = shlex.split(words[0])
    except ValueError:
        raise LaunchError("the quotes in the command do not match", _HINT) from None
    exported: list[str] = []
    for command in shell.commands(words[0]):
        if command.words[:1] == ("export",):
            exported += (f"{name}={value}" for name, value in assignments(command.words[1:]).items())
        elif locate(list(command.words)) is not None:
            return [*exported, *command.words]
    return split


def parse_line(text: str, *, folder: Path | None = None) -> Launch:
    """Parse a launch given as shell text: the first command of it that starts a server; `export`s before it count."""
    if len(text) > shell.MAXIMUM_CHARACTERS:
        raise LaunchError("the launch command is longer than 256 KiB", _HINT)
    return _parse_text(_printable(text), folder, MAXIMUM_SHELLS)


def _printable(text: str) -> str:
    """Without control characters and marks that reorder text: no command needs them, and a terminal obeys them."""
    return text if text.isprintable() else "".join(c for c in text if c.isprintable() or c in "\n\t")


def _parse_text(text: str, folder: Path | None, shells: int) -> Launch:
    commands = shell.commands(text)
    exported: list[str] = []
    for place, command in enumerate(commands):
        words = list(command.words[:MAXIMUM_WORDS])
        if words[:1] == ["export"]:
            exported.extend(f"{name}={value}" for name, value in assignments(words[1:]).items())
        elif locate(words) is not None and (launch := _attempt([*exported, *words], folder, shells)):
            problems = (*command.problems, *_orphans(commands[place + 1 :]))
            return _with_problems(launch, problems)
    return _parse([w for c in commands for w in c.words], folder, shells)


def _attempt(words: list[str], folder: Path | None, shells: int) -> Launch | None:
    try:
        return _parse(words, folder, shells)
    except LaunchError:
        return None


def _orphans(following: Sequence[shell.Command]) -> tuple[str, ...]:
    """A next line that begins with an option was meant to belong to the command."""
    if not following or not following[0].words or not following[0].words[0].startswith("-"):
        return ()
    option = redact.line(following[0].words[0], 60)
    return (f"the line that begins with {option} is not part of the command: the line before it lacks a backslash",)


def _with_problems(launch: Launch, problems: Sequence[str]) -> Launch:
    return replace(launch, problems=(*problems, *launch.problems)) if problems else launch


def _parse(words: list[str], folder: Path | None, shells: int) -> Launch:
    found = locate(words)
    match found:
        case Program():
            return _assemble(words, found, folder)
        case Engine():
            return _container(words, found, folder, shells)
        case Shell() if shells:
            return _in_shell(words, found, folder, shells)
        case _:
            raise LaunchError(*_refusal(words))


def _refusal(words: list[str]) -> tuple[str, str]:
    if not words:
        return "no launch command was given", _HINT
    if words[0].rsplit("/", 1)[-1] in ("huggingface-cli", "hf"):
        return f"{redact.line(shlex.join(words), 80)!r} downloads a model and starts no vLLM server", _DOWNLOAD_HINT
    if words[0].rsplit("/", 1)[-1] in ("kubectl", "helm", "oc") or {*words} & {"compose", "docker-compose"}:
        shown = redact.line(shlex.join(words), 80)
        return f"{shown!r} takes the launch from elsewhere", "give the container's own command: vllm serve MODEL ..."
    if "vllm" in [w.rsplit("/", 1)[-1] for w in words]:
        return "`vllm` is not followed by `serve`: this starts no server", "write: vllm serve MODEL ..."
    return f"{redact.line(shlex.join(words), 80)!r} starts no vLLM server", _HINT


def _in_shell(words: list[str], found: Shell, folder: Path | None, shells: int) -> Launch:
    """`bash -c "..."`: what stands in the quotes is the launch; the words before it are kept to print it again."""
    inner = _parse_text(words[found.end], folder, shells - 1)
    outer = words[: found.end]
    return replace(
        inner,
        given=f"{shlex.join(_masked(outer))} {shlex.quote(inner.given)}",
        shell=tuple(_masked(outer)),
        environment={**_masked_variables(assignments(outer[: found.start])), **inner.environment},
        unset_variables=(*taken_away(outer[: found.start]), *inner.unset_variables),
    )


def _assemble(words: list[str], found: Program, folder: Path | None) -> Launch:
    prefix = words[: found.start]
    read = _read_arguments(words[found.end :], folder, local=True)
    return Launch(
        given=_given(words, [*_secrets(prefix), *read.secrets]),
        form=found.form,
        program=tuple(words[found.start : found.end]),
        environment=_masked_variables(assignments(prefix)),
        model=read.model,
        model_is_positional=read.positional,
        words=read.words,
        flags=read.flags,
        config_file=read.config,
        problems=read.problems,
        prefix=tuple(_masked(prefix)),
        unset_variables=taken_away(prefix),
    )


def _container(words: list[str], found: Engine, folder: Path | None, shells: int) -> Launch:
    prefix = words[: found.start]
    container = docker.read(words[found.end :], found.program, assignments(prefix), folder)
    if container is None:
        raise LaunchError(f"`{found.program} run` names no image", _HINT)
    entry, end, inner = _entry(container, folder, shells)
    if inner is None and entry is None and "vllm" not in container.docker.image.lower():
        raise LaunchError(f"the image {redact.line(container.docker.image, 80)} is not known to start vLLM", _HINT)
    options = container.docker.options
    secrets = [*_secrets(prefix), *_secrets(options), *_secrets([f"{k}={v}" for k, v in container.environment.items()])]
    box = replace(container.docker, options=tuple(_masked(options)))
    environment = _masked_variables(container.environment)
    if inner is not None:
        return replace(
            inner,
            given=_given(words, secrets),
            form=LaunchForm.DOCKER,
            docker=box,
            environment={**environment, **inner.environment},
            program=(*inner.prefix, *inner.program),
            prefix=tuple(_masked(prefix)),
            shell=tuple(container.rest[:end]),
            problems=(*container.problems, *inner.problems),
        )
    read = _read_arguments(container.rest[end:], folder, local=False)
    return Launch(
        given=_given(words, [*secrets, *read.secrets]),
        form=LaunchForm.DEMO_SERVER if entry is LaunchForm.DEMO_SERVER else LaunchForm.DOCKER,
        program=tuple(container.rest[:end]),
        environment=environment,
        model=read.model,
        model_is_positional=read.positional,
        words=read.words,
        flags=read.flags,
        docker=box,
        config_file=read.config,
        problems=(*container.problems, *read.problems),
        prefix=tuple(_masked(prefix)),
    )


def _entry(
    container: docker.Container, folder: Path | None, shells: int
) -> tuple[LaunchForm | None, int, Launch | None]:
    """What the words after the image begin with: a program (its form and end), or a shell with a whole launch in it."""
    rest, entrypoint = container.rest, container.docker.entrypoint
    name = (entrypoint or "").rsplit("/", 1)[-1]
    if name == "vllm" and rest[:1] == ("serve",):
        return LaunchForm.SERVE, 1, None
    if name.startswith("python") and (found := module(rest, 0, 0)):
        return found.form, found.end, None
    words = [name, *rest] if name in SHELLS else list(rest)
    found_any = locate(words)
    if isinstance(found_any, Shell) and found_any.start == 0 and shells:
        end = found_any.end - (len(words) - len(rest))
        try:
            return None, end, _parse_text(rest[end], folder, shells - 1)
        except LaunchError:
            return None, 0, None
    if isinstance(found_any, Program) and found_any.start == 0:
        return found_any.form, found_any.end, None
    return None, 0, None


class _Read(Struct, frozen=True):
    model: str | None
    positional: bool
    words: tuple[str, ...]
    flags: tuple[FlagUse, ...]
    config: str | None
    problems: tuple[str, ...]
    secrets: tuple[str, ...]


def _read_arguments(given: Sequence[str], folder: Path | None, *, local: bool) -> _Read:
    """Flags of the command over those of its `--config` file; the model is the flag's, else the first word."""
    typed = arguments.read(given)
    config = next((f.value for f in reversed(typed.flags) if f.name == "--config"), None)
    flags, problems = typed.flags, typed.problems
    if config is not None and not local:
        problems = (*problems, f"--config: {config} is a file inside the container and was not read")
    elif config is not None and "--config" not in given:
        # vLLM looks for the word `--config` itself (`parse_args`, 0.6.0 to 0.33.0).
        problems = (*problems, f"--config: {config} is ignored: vLLM reads it only as two words, --config {config}")
    elif config is not None and "$" not in config:
        file = config_file.read(config, folder)
        extra = arguments.read(file.words, source=config)
        stray = (f"--config: {config} holds {word!r}, which belongs to no flag" for word in extra.words)
        problems = (*problems, *([file.problem] if file.problem else ()), *extra.problems, *stray)
        flags = (*extra.flags, *flags)
    named = [f for f in flags if f.name == "--model" and f.values]
    first = named[-1] if named else None
    takes_word = not any(f.source == "command" for f in named)
    if typed.words and takes_word:
        return _Read(typed.words[0], True, typed.words[1:], flags, config, problems, typed.secrets)
    return _Read(first.value if first else None, False, typed.words, flags, config, problems, typed.secrets)


def _secrets(words: Sequence[str]) -> list[str]:
    """The values of secret variables among the words."""
    pairs = [match for word in words if (match := ASSIGNMENT.match(word.removeprefix("--env=").removeprefix("-e")))]
    return [m[2] for m in pairs if redact.is_secret_name(m[1]) and m[2] not in ("", redact.MASK)]


def _masked(words: Sequence[str]) -> list[str]:
    secrets = set(_secrets(words))
    return [redact.text(_without(word, secrets)) for word in words]


def _without(word: str, secrets: set[str]) -> str:
    if word in secrets:
        return redact.MASK
    name, equals, value = word.partition("=")
    while equals:
        if value in secrets:
            return f"{name}={redact.MASK}"
        more, equals, value = value.partition("=")
        name = f"{name}={more}"
    return word


def _masked_variables(variables: dict[str, str]) -> dict[str, str]:
    return {n: redact.MASK if redact.is_secret_name(n) else redact.text(v) for n, v in variables.items()}


def _given(words: Sequence[str], secrets: Sequence[str]) -> str:
    hidden = set(secrets)
    return joined([redact.text(_without(word, hidden)) for word in words])
