"""The secrets of a command as typed, which its parsed form masks: kept apart, for nothing but the launch itself."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from vllm_doctor import redact
from vllm_doctor.facts import FlagUse, Launch
from vllm_doctor.launch import arguments, config_file
from vllm_doctor.launch.parse import as_typed
from vllm_doctor.launch.program import Program, assignments, locate

API_KEY = "--api-key"
KEY_VARIABLE = "VLLM_API_KEY"

# A flag and its values as they are shown, and the values as they were typed.
Shown = tuple[str, tuple[str, ...]]


class Secrets(Struct, frozen=True):
    """What is shown of a command, and what was typed there; only what differs.

    `keys_of_file` are API keys that stand in the `--config` file, which vLLM reads itself.
    """

    variables: Mapping[str, str] = {}
    flags: tuple[tuple[Shown, tuple[str, ...]], ...] = ()
    words: tuple[tuple[str, str], ...] = ()
    prefix: tuple[tuple[str, str], ...] = ()
    keys_of_file: tuple[str, ...] = ()

    def unmasked(self, launch: Launch) -> Launch:
        """The launch with its secrets in clear: to be started, and never to be printed."""
        flags, words, prefix = list(self.flags), list(self.words), list(self.prefix)
        model = launch.model
        if model is not None and launch.model_is_positional:
            model = _typed(words, model)
        return replace(
            launch,
            model=model,
            words=tuple(_typed(words, word) for word in launch.words),
            flags=tuple(_typed_flag(flags, use) for use in launch.flags),
            prefix=tuple(_typed(prefix, word) for word in launch.prefix),
            environment={name: self._variable(name, value) for name, value in launch.environment.items()},
        )

    def keys(self, inherited: Mapping[str, str]) -> tuple[str, ...]:
        """The API keys that the server takes: the flag's before those of the file before the variable's."""
        given = tuple(value for (name, _), values in self.flags if name == API_KEY for value in values)
        variable = self.variables.get(KEY_VARIABLE) or inherited.get(KEY_VARIABLE)
        return tuple(key for key in (*(given or self.keys_of_file), variable) if key)

    def _variable(self, name: str, value: str) -> str:
        """The value as typed, unless an edit of the launch has put another in its place."""
        typed = self.variables.get(name)
        return value if typed is None or value not in (redact.MASK, redact.text(typed)) else typed


def _typed(pairs: list[tuple[str, str]], shown: str) -> str:
    """What was typed for the first of these that is shown so; each is taken once."""
    found = next((pair for pair in pairs if pair[0] == shown), None)
    if found is None:
        return shown
    pairs.remove(found)
    return found[1]


def _typed_flag(pairs: list[tuple[Shown, tuple[str, ...]]], use: FlagUse) -> FlagUse:
    found = next((pair for pair in pairs if pair[0] == (use.name, use.values)), None)
    if found is None or use.source != "command":
        return use
    pairs.remove(found)
    return replace(use, values=found[1])


def of_words(words: Sequence[str], folder: Path) -> Secrets:
    """The secrets of a command that starts a server in a process of its own; none for any other."""
    words = list(as_typed(words))
    found = locate(words)
    if not isinstance(found, Program):
        return Secrets()
    before, after = words[: found.start], words[found.end :]
    shown, typed = arguments.read(after), arguments.read(after, mask=False)
    variables = {n: v for n, v in assignments(before).items() if redact.is_secret_name(n) or redact.text(v) != v}
    config = next((use.value for use in reversed(typed.flags) if use.name == "--config"), None)
    return Secrets(
        variables=variables,
        flags=tuple(
            ((one.name, one.values), other.values)
            for one, other in zip(shown.flags, typed.flags, strict=True)
            if one.values != other.values
        ),
        words=tuple((one, other) for one, other in zip(shown.words, typed.words, strict=True) if one != other),
        prefix=tuple(_prefix(before, variables)),
        keys_of_file=() if config is None else _keys(config_file.read(config, folder).words),
    )


def _prefix(words: Sequence[str], variables: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """The words before the program as the parser shows them: a secret variable's value is the mask."""
    for word in words:
        name, equals, value = word.partition("=")
        shown = f"{name}={redact.MASK}" if equals and variables.get(name) == value else redact.text(word)
        for each in dict.fromkeys((shown, redact.text(word))):
            if each != word:
                yield each, word


def _keys(words: Sequence[str]) -> tuple[str, ...]:
    read = arguments.read(words, mask=False)
    return tuple(value for use in read.flags if use.name == API_KEY for value in use.values)
