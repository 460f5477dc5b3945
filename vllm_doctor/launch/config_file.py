"""The YAML file of `--config` as the flags that vLLM makes of it; bounded in size and depth, without aliases.

SOURCE: vllm/utils/argparse_utils.py of 0.32.0, `load_config_file`.
"""

import json
import sys
from pathlib import Path
from typing import Any

from msgspec import Struct

from vllm_doctor.launch.arity import NOT_NEGATABLE, SWITCHES

MAXIMUM_BYTES = 262_144
MAXIMUM_DEPTH = 30
MAXIMUM_NODES = 20_000


class ConfigFile(Struct, frozen=True):
    """The words that the file stands for, and why it cannot be read."""

    words: tuple[str, ...]
    problem: str | None = None


def read(name: str, folder: Path | None) -> ConfigFile:
    """Read the file; what vLLM would refuse is a problem, told in one line that starts with `--config`."""
    if name.rsplit(".", 1)[-1] not in ("yaml", "yml"):
        return ConfigFile((), f"--config: {name} must end in .yaml or .yml, else vLLM refuses it")
    path = (folder or Path()) / name
    try:
        if path.exists() and not path.is_file():
            return ConfigFile((), f"--config: {name} is no file")
        with path.open("rb") as file:
            data = file.read(MAXIMUM_BYTES + 1)
    except OSError as problem:
        return ConfigFile((), f"--config: {name} cannot be read: {problem.strerror}")
    except ValueError:
        return ConfigFile((), "--config: the name of the file holds a NUL")
    if len(data) > MAXIMUM_BYTES:
        return ConfigFile((), f"--config: {name} is larger than {MAXIMUM_BYTES // 1024} KiB and was not read")
    return _parsed(name, data)


def _parsed(name: str, data: bytes) -> ConfigFile:
    import yaml  # only a launch with a config file pays for it

    try:
        text = data.decode("utf-8")
        _refuse_bombs(text)
        settings = yaml.safe_load(text)
        if not isinstance(settings, dict):
            return ConfigFile((), f"--config: {name} holds no mapping of flags to values")
        return ConfigFile(_words(settings))
    except yaml.YAMLError as problem:
        mark = getattr(problem, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        return ConfigFile((), f"--config: {name} is no valid YAML{where}")
    except (UnicodeDecodeError, _TooMuch, RecursionError, TypeError, ValueError, OverflowError) as problem:
        why = str(problem) if isinstance(problem, _TooMuch) else type(problem).__name__
        return ConfigFile((), f"--config: {name} cannot be read as flags: {why}")


class _TooMuch(Exception):
    """The document is deeper, larger or more entangled than a list of flags ever is."""


def _refuse_bombs(text: str) -> None:
    import yaml

    depth = 0
    for nodes, event in enumerate(yaml.parse(text, Loader=yaml.SafeLoader)):
        if isinstance(event, yaml.AliasEvent):
            raise _TooMuch("it uses YAML aliases")
        if isinstance(event, (yaml.MappingStartEvent, yaml.SequenceStartEvent)):
            depth += 1
        elif isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
            depth -= 1
        if depth > MAXIMUM_DEPTH or nodes > MAXIMUM_NODES:
            raise _TooMuch("it is nested too deeply or too long")


def _words(settings: dict[Any, Any]) -> tuple[str, ...]:
    words: list[str] = []
    for key, value in settings.items():
        name = f"--{key}"
        if isinstance(value, bool):
            words += [name] if value else _negated(name)
        elif isinstance(value, list):
            words += [name, *map(str, value)] if value else []
        elif isinstance(value, dict):
            words += [name, json.dumps(value)]
        else:
            words += [name, _text(value)]
    return tuple(words)


def _negated(name: str) -> list[str]:
    """What `false` stands for: nothing where the flag has no `--no-` form."""
    option = name.replace("_", "-")
    return [f"--no-{option[2:]}"] if option in SWITCHES - NOT_NEGATABLE else []


def _text(value: object) -> str:
    limit = sys.get_int_max_str_digits() if hasattr(sys, "get_int_max_str_digits") else 4300
    return str(value)[: limit or 4300]
