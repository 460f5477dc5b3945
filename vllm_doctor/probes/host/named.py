"""The files and folders that a launch names, besides its model: which of them are not there."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from vllm_doctor.facts import Launch

# Flags whose value is always a path.
_PATHS = ("--ssl-keyfile", "--ssl-certfile", "--ssl-ca-certs")
# Flags whose value is a path where it looks like one: a module, or a repository of the hub, otherwise.
_MAYBE = ("--tool-parser-plugin", "--reasoning-parser-plugin", "--generation-config", "--hf-config-path")
_VARIABLES = ("VLLM_LOGGING_CONFIG_PATH", "VLLM_RPC_BASE_PATH")
_LONGEST_JSON = 100_000
DRAFT = "--speculative-config.model"


def absent(variables: Mapping[str, str], launch: Launch | None) -> tuple[str, ...]:
    """The flags, keys and variables whose path is not there; none for a container, which has its own files."""
    if launch is None or launch.docker is not None:
        return ()
    return tuple(name for name, path in _named(variables, launch) if not _is_there(path))


def _named(variables: Mapping[str, str], launch: Launch) -> Iterator[tuple[str, str]]:
    for flag in (*_PATHS, *_MAYBE):
        value = launch.value(flag)
        if value and (flag in _PATHS or is_path(value)):
            yield flag, value
    draft = draft_model(launch)
    if draft is not None and is_path(draft):
        yield DRAFT, draft
    values = {**variables, **launch.environment}
    for name in _VARIABLES:
        if value := values.get(name):
            yield name, value


def draft_model(launch: Launch) -> str | None:
    """The draft model of speculative decoding; None where none is named."""
    if (given := launch.value(DRAFT)) is not None:
        return given
    try:
        document = json.loads((launch.value("--speculative-config") or "null")[:_LONGEST_JSON])
    except (ValueError, RecursionError):
        return None
    model = document.get("model") if isinstance(document, dict) else None
    return model if isinstance(model, str) else None


def is_path(value: str) -> bool:
    """Whether the word can only be a path of this machine."""
    return value.startswith(("/", "./", "../")) and "$" not in value


def _is_there(path: str) -> bool:
    try:
        return Path(path).exists()
    except (OSError, ValueError):
        # Not to be looked at: nothing is known against it.
        return True
