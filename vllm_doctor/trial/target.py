"""What a trial starts: the words and variables of a launch, the address that it will answer at, and its key."""

import ipaddress
import os
from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from vllm_doctor import redact
from vllm_doctor.errors import LaunchError
from vllm_doctor.facts import DEFAULT_PORT, Launch, LaunchForm
from vllm_doctor.launch import render
from vllm_doctor.launch.program import ASSIGNMENT
from vllm_doctor.probes.environment.shebang import which
from vllm_doctor.trial.secrets import Secrets

# Words that a shell obeys and no program is called.
SHELL_WORDS = frozenset({"exec", "command", "time", "nohup"})

# Another user's processes cannot be taken down again.
OTHER_USERS = frozenset({"sudo", "doas", "su", "runuser"})

# Flags of servers that this machine alone cannot start, or that answer nowhere that is walked here.
_UNSUPPORTED: Mapping[str, str] = {
    "--uds": "a server behind a Unix socket is not walked",
    "--ssl-keyfile": "a server with a TLS certificate of its own is not walked",
    "--ssl-certfile": "a server with a TLS certificate of its own is not walked",
    "--headless": "a headless node has no API to walk",
    "--nnodes": "the other nodes are not started from here",
    "--data-parallel-hybrid-lb": "the other nodes are not started from here",
    "--data-parallel-external-lb": "the other ranks are not started from here",
    "--help": "the command prints its help and serves nothing",
    "--version": "the command prints its version and serves nothing",
}


class Target(Struct, frozen=True, kw_only=True):
    """A launch ready to be started: nothing of it is printed, for its secrets are in clear.

    `private_cache`: what vLLM caches of it (compiled graphs, a model's traits) goes with the job.
    """

    argv: tuple[str, ...]
    environment: Mapping[str, str]
    url: str
    port: int
    key: str | None = None
    private_cache: bool = False


def require_startable(launch: Launch) -> None:
    """Raise LaunchError, with what to give instead, for a launch that cannot be started and taken down from here."""
    if launch.docker is not None:
        raise LaunchError(
            "verify starts no container", "run it inside the image: docker run ... IMAGE, then vllm-doctor verify there"
        )
    if launch.shell:
        raise LaunchError("verify starts no shell", "give the command that stands in the quotes")
    if launch.form is LaunchForm.DEMO_SERVER:
        raise LaunchError("the demo server has no OpenAI-compatible API to walk", "write: vllm serve MODEL ...")
    names = {word.rsplit("/", 1)[-1] for word in launch.prefix}
    if taken := sorted(names & OTHER_USERS):
        raise LaunchError(f"verify starts nothing by {taken[0]}", "run vllm-doctor itself as that user")
    if launch.value("--port") == "0":
        raise LaunchError("--port 0: the port that the system picks is not known here", "name one with --port")
    for name, why in _UNSUPPORTED.items():
        if launch.has(name) and (name, launch.value(name)) != ("--nnodes", "1"):
            raise LaunchError(f"{name}: {why} by verify", "leave it out, or use `vllm-doctor connect` on the server")


def placed(launch: Launch, python: Path | None, *, asked: bool) -> Launch:
    """The launch with the program of the environment of `python`: where that was asked for, or nothing else is found.

    A shell finds `vllm` on PATH or not at all; `given` is then what can be typed here.
    """
    program = launch.program[0]
    search = launch.environment.get("PATH", os.environ.get("PATH", os.defpath))
    if python is None or "/" in program or (not asked and which(program, search) is not None):
        return launch
    moved = replace(launch, program=(*_program(program, python), *launch.program[1:]))
    return replace(moved, given=render.command_line(moved))


def _program(name: str, python: Path) -> tuple[str, ...]:
    if name != "vllm":
        return (str(python),)
    script = python.parent / "vllm"
    return (str(script),) if os.access(script, os.X_OK) else (str(python), "-m", "vllm.entrypoints.cli.main")


def target(launch: Launch, secrets: Secrets, inherited: Mapping[str, str]) -> Target:
    """The launch as it is started; the key of its server is masked everywhere from here on."""
    clear = secrets.unmasked(launch)
    words = [*_without_assignments(clear.prefix), *render.argv(replace(clear, prefix=(), shell=()))]
    environment = {**inherited, **clear.environment}
    for name in launch.unset_variables:
        environment.pop(name, None)
    keys = hide_keys(secrets, environment)
    # What is no number is refused by vLLM itself, before it listens anywhere.
    port = launch.port or DEFAULT_PORT
    return Target(
        argv=tuple(words),
        environment=environment,
        url=f"http://{address(launch.value('--host'))}:{port}/v1",
        port=port,
        key=keys[0] if keys else None,
    )


def hide_keys(secrets: Secrets, inherited: Mapping[str, str]) -> tuple[str, ...]:
    """The keys of the server, which are masked in every output from here on."""
    keys = secrets.keys(inherited)
    for key in keys:
        redact.hide(key)
    return keys


def _without_assignments(prefix: tuple[str, ...]) -> list[str]:
    """The words before the program that a shell would pass on to be started."""
    words = list(prefix)
    while words and (ASSIGNMENT.match(words[0]) or words[0] in SHELL_WORDS):
        words.pop(0)
    return words


def address(host: str | None) -> str:
    """Where a client on this machine reaches a server that binds to `host`, as it stands in a URL."""
    if host is None or host in ("0.0.0.0", ""):  # noqa: S104 - compared, not bound
        return "127.0.0.1"
    try:
        number = ipaddress.ip_address(host)
    except ValueError:
        return host
    if number.version == 4:
        return host
    return "[::1]" if number.is_unspecified else f"[{number.compressed}]"
