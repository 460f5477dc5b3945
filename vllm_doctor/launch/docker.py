"""The words of `docker run`: its options, the image, and what the image is told to do."""

import re
from collections.abc import Sequence
from pathlib import Path

from msgspec import Struct

from vllm_doctor.facts import Docker

# SOURCE: the options of `docker run`, `podman run` and `nerdctl run` that take no value, from their help texts.
_SWITCH_NAMES = """
    detach interactive tty rm init privileged read-only publish-all no-healthcheck oom-kill-disable sig-proxy quiet
    disable-content-trust help replace rmi tls-verify env-host http-proxy no-hosts no-hostname passwd read-only-tmpfs
"""
_SWITCHES = frozenset(f"--{word}" for word in _SWITCH_NAMES.split())
_LETTERS = frozenset("ditPq")
_LONG = {"-e": "--env", "-p": "--publish", "-v": "--volume", "-u": "--user", "-w": "--workdir", "-m": "--memory"}

# `v0.10.2`, `0.9.0.1`, `v0.11.1rc1`, and what follows after a hyphen: `v0.20.1-cu129`.
_TAG = re.compile(r"v?(\d{1,3}\.\d{1,3}(?:\.\d{1,3}){0,2}(?:(?:\.post|rc|a|b)\d{1,3})?)(?:[-_+][A-Za-z0-9._+-]*)?$")
_SIZE = re.compile(r"(\d{1,12}(?:\.\d{1,6})?)\s?([bkmgt]?)i?b?$", re.IGNORECASE)
_UNITS = {"": 1, "b": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}

MAXIMUM_ENV_FILE_BYTES = 65_536


class Container(Struct, frozen=True):
    """The `docker run` part: what it is, the variables it sets, the words after the image, and complaints."""

    docker: Docker
    environment: dict[str, str]
    rest: tuple[str, ...]
    problems: tuple[str, ...]


def read(words: Sequence[str], program: str, inherited: dict[str, str], folder: Path | None) -> Container | None:
    """Read the words after `run`; None where no image is named."""
    pairs, at = _options(words)
    if at >= len(words):
        return None
    image = words[at]
    variables, problems = _variables(pairs, inherited, folder)
    tag = _tag(image)
    docker = Docker(
        image=image,
        tag=tag,
        version=version(image, tag),
        options=tuple(words[:at]),
        gpus=_last(pairs, "--gpus"),
        shm_size_bytes=size_bytes(_last(pairs, "--shm-size")),
        ipc=_last(pairs, "--ipc"),
        network=_last(pairs, "--network") or _last(pairs, "--net"),
        published=dict(_port(v) for k, v in pairs if k == "--publish"),
        mounts=dict(m for k, v in pairs if (m := _mount(k, v)) is not None),
        entrypoint=_last(pairs, "--entrypoint"),
        program=program,
    )
    return Container(docker, variables, tuple(words[at + 1 :]), tuple(problems))


def is_official(image: str) -> bool:
    """Whether the image is one of vLLM's own, whose entry point is the server."""
    name = image.partition("@")[0]
    return "vllm/vllm-openai" in name or "vllm-cpu-release-repo" in name


def version(image: str, tag: str | None) -> str | None:
    """The release that the tag names; None for `latest`, `nightly`, digests and images of others."""
    match = _TAG.match(tag or "")
    named = match and "vllm" in image.rsplit("/", 1)[-1].partition(":")[0]
    return match[1] if match and named and (is_official(image) or match[1].startswith("0.")) else None


def size_bytes(text: str | None) -> int | None:
    """Docker's sizes (`16g`, `512m`, `1gb`), binary units; None where it is none."""
    match = _SIZE.match(text.strip()) if text else None
    return int(float(match[1]) * _UNITS[match[2].lower()]) if match else None


def _options(words: Sequence[str]) -> tuple[list[tuple[str, str]], int]:
    """The options as pairs of long name and value, and the index of the image."""
    pairs: list[tuple[str, str]] = []
    at = 0
    while at < len(words) and words[at].startswith("-") and len(words[at]) > 1:
        name, equals, value = words[at].partition("=")
        at += 1
        if not name.startswith("--"):
            name, value, equals = _short(name, value, equals)
        if not equals and name not in _SWITCHES:
            value = words[at] if at < len(words) else ""
            at += 1
        pairs.append((name, value))
    return pairs, min(at, len(words))


def _short(name: str, value: str, equals: str) -> tuple[str, str, str]:
    """`-it` is switches, `-p8000:8000` and `-eA=b` hold their value, `-itp 8000:8000` takes the next word."""
    for place, letter in enumerate(name[1:], 2):
        if letter in _LETTERS:
            continue
        long = _LONG.get(f"-{letter}", f"-{letter}")
        rest = name[place:] + equals + value
        return (long, rest.removeprefix("="), "=") if rest else (long, "", "")
    return "--tty", "", "="


def _last(pairs: list[tuple[str, str]], name: str) -> str | None:
    return next((value.strip("\"'") for key, value in reversed(pairs) if key == name), None)


def _tag(image: str) -> str | None:
    if "@" in image:
        return None
    last = image.rsplit("/", 1)[-1]
    return last.partition(":")[2] or None


def _port(text: str) -> tuple[str, str]:
    """`[[address:]host:]container[/protocol]`."""
    parts = text.partition("/")[0].rsplit(":", 2)
    return parts[-1], parts[-2] if len(parts) > 1 else ""


def _mount(name: str, value: str) -> tuple[str, str] | None:
    if name == "--volume":
        parts = value.split(":")
        return (parts[1], parts[0]) if len(parts) > 1 else None
    if name != "--mount":
        return None
    fields = dict(part.partition("=")[::2] for part in value.split(","))
    target = fields.get("target") or fields.get("dst") or fields.get("destination")
    source = fields.get("source") or fields.get("src")
    return (target, source) if target and source else None


def _variables(
    pairs: list[tuple[str, str]], inherited: dict[str, str], folder: Path | None
) -> tuple[dict[str, str], list[str]]:
    """`--env-file` first, `-e` over it; a name alone takes the value of the shell that runs the command."""
    variables: dict[str, str] = {}
    problems: list[str] = []
    for _, name in (p for p in pairs if p[0] == "--env-file"):
        lines = _env_file(name, folder)
        if lines is None:
            problems.append(f"--env-file: {name} cannot be read")
        for line in lines or ():
            key, equals, value = line.partition("=")
            if equals and not key.startswith("#"):
                variables[key.strip()] = value
    for _, pair in (p for p in pairs if p[0] == "--env"):
        key, equals, value = pair.partition("=")
        if equals:
            variables[key] = value
        elif key in inherited:
            variables[key] = inherited[key]
    return variables, problems


def _env_file(name: str, folder: Path | None) -> list[str] | None:
    try:
        path = (folder or Path()) / name
        if path.exists() and not path.is_file():
            return None
        with path.open("rb") as file:
            return file.read(MAXIMUM_ENV_FILE_BYTES).decode("utf-8", "replace").splitlines()
    except (OSError, ValueError):
        return None
