"""The launch command as a typed value: its form, flags, environment, model, and what could not be understood."""

from collections.abc import Mapping
from enum import Enum

from vllm_doctor.facts.base import Bytes, Count, Facts, Section


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
    `problems` are one-line complaints of the parser (an unbalanced quote, a missing value).
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
        """The whole number given to the flag; None where it is absent or no plain number."""
        text = self.value(name)
        return int(text) if text is not None and text.isascii() and text.isdecimal() and len(text) < 16 else None
