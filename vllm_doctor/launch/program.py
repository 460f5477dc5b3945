"""Where the program stands among the words: wrappers before it, its form, and where its own words begin."""

import re
import shlex
from collections.abc import Mapping, Sequence

from msgspec import Struct

from vllm_doctor.facts import LaunchForm

ENGINES = frozenset({"docker", "podman", "nerdctl"})
SHELLS = frozenset({"bash", "sh", "dash", "zsh", "ash", "ksh"})

# SOURCE: vllm/entrypoints of the releases 0.4.0 to 0.33.0 (modules with a `__main__` part that start a server).
SERVER_MODULES: Mapping[str, LaunchForm] = {
    "vllm.entrypoints.openai.api_server": LaunchForm.MODULE,
    "vllm.entrypoints.launchers.api_server.entry": LaunchForm.MODULE,
    "vllm.entrypoints.api_server": LaunchForm.DEMO_SERVER,
}
# Modules that do what the command `vllm` does.
COMMAND_MODULES = frozenset({"vllm", "vllm.entrypoints.cli.main", "vllm.scripts"})

_PYTHON = re.compile(r"(?:python|pypy)[0-9.]*$")
_SHELL_COMMAND = re.compile(r"-[a-zA-Z]*c$")
ASSIGNMENT = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=(?!=)(.*)$", re.DOTALL)
# Options of the interpreter that take a word of their own.
_PYTHON_VALUED = frozenset({"-X", "-W", "--check-hash-based-pycs"})


class Program(Struct, frozen=True):
    """The program found: `start` and `end` are its first word and the first word after it."""

    form: LaunchForm
    start: int
    end: int


class Engine(Struct, frozen=True):
    """A container engine found: `end` is the first word after `run`."""

    program: str
    start: int
    end: int


class Shell(Struct, frozen=True):
    """A shell that gets its command as a word: `end` is the index of that word."""

    start: int
    end: int


def locate(words: Sequence[str]) -> Program | Engine | Shell | None:
    """The first word sequence that starts a server, or something that may start one."""
    for start, word in enumerate(words):
        name = word.rsplit("/", 1)[-1]
        if name in ENGINES and (end := _after_run(words, start)):
            return Engine(name, start, end)
        if name in SHELLS and (end := _command_word(words, start)):
            return Shell(start, end)
        if name == "vllm" and words[start + 1 : start + 2] == ["serve"]:
            return Program(LaunchForm.SERVE, start, start + 2)
        if _PYTHON.match(name) and (found := module(words, start, start + 1)):
            return found
    return None


def module(words: Sequence[str], start: int, at: int) -> Program | None:
    """The server that the interpreter at `start` runs, whose options begin at `at`."""
    while at < len(words) and words[at].startswith("-") and not words[at].startswith("-m"):
        at += 2 if words[at] in _PYTHON_VALUED else 1
    if at >= len(words):
        return None
    if words[at].startswith("-m"):
        name, end = (words[at][2:], at + 1) if len(words[at]) > 2 else (" ".join(words[at + 1 : at + 2]), at + 2)
        if form := SERVER_MODULES.get(name):
            return Program(form, start, end)
        serves = name in COMMAND_MODULES and words[end : end + 1] == ["serve"]
        return Program(LaunchForm.SERVE, start, end + 1) if serves else None
    return _script(words, start, at)


def _script(words: Sequence[str], start: int, at: int) -> Program | None:
    path = words[at]
    if path.endswith("entrypoints/openai/api_server.py"):
        return Program(LaunchForm.MODULE, start, at + 1)
    if path.endswith("entrypoints/api_server.py"):
        return Program(LaunchForm.DEMO_SERVER, start, at + 1)
    serves = path.rsplit("/", 1)[-1] == "vllm" and words[at + 1 : at + 2] == ["serve"]
    return Program(LaunchForm.SERVE, start, at + 2) if serves else None


def _after_run(words: Sequence[str], start: int) -> int:
    at = start + 1
    at += words[at : at + 1] == ["container"]
    return at + 1 if words[at : at + 1] == ["run"] else 0


def _command_word(words: Sequence[str], start: int) -> int:
    for at in range(start + 1, len(words) - 1):
        if not words[at].startswith("-"):
            return 0
        if _SHELL_COMMAND.match(words[at]):
            return at + 1
    return 0


def assignments(prefix: Sequence[str]) -> dict[str, str]:
    """The variables that the words before the program set, the last one winning."""
    return {match[1]: match[2] for word in prefix if (match := ASSIGNMENT.match(word))}


def joined(words: Sequence[str]) -> str:
    """The words as one line that a shell reads back; of an assignment the value alone is quoted, or it is none."""
    at = 0
    while at < len(words) and ASSIGNMENT.match(words[at]):
        at += 1
    head = [f"{name}={shlex.quote(value)}" for name, _, value in (word.partition("=") for word in words[:at])]
    return " ".join([*head, *map(shlex.quote, words[at:])])


def taken_away(prefix: Sequence[str]) -> tuple[str, ...]:
    """The variables that `env -u NAME` removes."""
    names: list[str] = []
    for at, word in enumerate(prefix):
        if word in ("-u", "--unset") and "env" in [w.rsplit("/", 1)[-1] for w in prefix[:at]]:
            names.extend(prefix[at + 1 : at + 2])
        elif word.startswith("--unset="):
            names.append(word[len("--unset=") :])
    return tuple(names)
