"""The launch command as a typed value: its form, flags, environment, model, and what could not be understood."""

from collections.abc import Mapping
from enum import Enum

from vllm_doctor.facts.base import Bytes, Count, Facts, Section

# What `vllm serve` listens on unless `--port` says otherwise (vllm/entrypoints/openai/cli_args.py).
DEFAULT_PORT = 8000


class LaunchForm(str, Enum):
    """How vLLM's server is started; `demo-server` is `vllm.entrypoints.api_server`, which is not OpenAI-compatible."""

    SERVE = "serve"
    MODULE = "module"
    DEMO_SERVER = "demo-server"
    DOCKER = "docker"


class FlagUse(Facts, frozen=True):
    """One flag as given: `name` in its long canonical spelling (`--max-model-len`), `spelled` as typed.

    `values` are the words given to it; empty for a switch. `source` is `command` or the name of the `--config` file.
    """

    name: str
    spelled: str
    values: tuple[str, ...]
    source: str = "command"

    @property
    def value(self) -> str | None:
        """The first value, None for a switch."""
        return self.values[0] if self.values else None


class Docker(Facts, frozen=True):
    """The `docker run` part; `version` is the vLLM release that the image's tag names, None for `latest` and digests.

    `options` are the words between `run` and the image, as typed. `published` maps container ports to host ports.
    `mounts` maps container paths to host paths.
    """

    image: str
    tag: str | None
    version: str | None
    options: tuple[str, ...]
    gpus: str | None
    shm_size_bytes: Bytes | None
    ipc: str | None
    network: str | None
    published: Mapping[str, str]
    mounts: Mapping[str, str]
    entrypoint: str | None = None
    program: str = "docker"


class Launch(Section, frozen=True):
    """A launch of vLLM's server.

    `given` is the command line as typed, secrets masked. `program` are the words before the flags and the model
    (`vllm serve`, `python3 -m vllm...`). `environment` are the `NAME=value` words before it, or docker's `-e`.
    `model` is the positional or `--model`; `words` are further positional words. `order` remembers the flags as typed.
    `problems` are one-line complaints of the parser (an unbalanced quote, a missing value). `prefix` are the words
    before the program as typed: variables, `env`, `sudo`, `nohup`, `uv run`, ...; `shell` the words of a shell that
    gets the whole command as one quoted word (`bash -c`); `unset_variables` what `env -u` takes away.
    """

    given: str
    form: LaunchForm
    program: tuple[str, ...]
    environment: Mapping[str, str]
    model: str | None
    model_is_positional: bool
    words: tuple[str, ...]
    flags: tuple[FlagUse, ...]
    docker: Docker | None = None
    config_file: str | None = None
    problems: tuple[str, ...] = ()
    prefix: tuple[str, ...] = ()
    shell: tuple[str, ...] = ()
    unset_variables: tuple[str, ...] = ()

    def uses(self, name: str) -> tuple[FlagUse, ...]:
        """Every use of the flag of that canonical name, in order."""
        return tuple(f for f in self.flags if f.name == name)

    def value(self, name: str) -> str | None:
        """The value that counts (the last one given); None where the flag is absent or a switch."""
        found = self.uses(name)
        return found[-1].value if found else None

    def has(self, name: str) -> bool:
        """Whether the flag is given at all."""
        return bool(self.uses(name))

    def number(self, name: str) -> Count | None:
        """The whole number given to the flag, read as vLLM does (`4k`); None where it is absent, `auto`, -1 or none."""
        number = None if (text := self.value(name)) is None else integer(text)
        return number if number is not None and 0 <= number < 2**53 else None

    @property
    def port(self) -> Count | None:
        """The TCP port to listen on: that of `--port`, else vLLM's default; None where what is given is no number."""
        return self.number("--port") if self.has("--port") else DEFAULT_PORT


# vllm/utils/argparse_utils.py, human_readable_int (0.32.0): lower case is decimal, upper case binary.
_DECIMAL = {"k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_BINARY = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def integer(text: str) -> int | None:
    """The whole number that vLLM reads from `4096`, `4k` (4000), `4K` (4096) or `25.6k`; None where it reads none."""
    text = text.strip()
    if not text or len(text) > 30 or not text.isascii():
        return None
    number, suffix = text[:-1], text[-1]
    if suffix in _BINARY:
        return int(number) * _BINARY[suffix] if number.isdecimal() else None
    if suffix in _DECIMAL:
        whole, point, rest = number.partition(".")
        plain = whole.isdecimal() and (rest.isdecimal() if point else True)
        return int(float(number) * _DECIMAL[suffix]) if plain else None
    digits = text[1:] if text[0] in "+-" else text
    # int() takes single underscores between digits.
    return int(text) if all(part.isdecimal() for part in digits.split("_")) else None
