"""The words after the program to flags, model and stray words, as vLLM's FlexibleArgumentParser takes them.

SOURCE: vllm/utils/argparse_utils.py of 0.32.0 (`parse_args`) over CPython's argparse (`_parse_optional`).
"""

import re
from collections.abc import Sequence

from msgspec import Struct

from vllm_doctor import redact
from vllm_doctor.facts import FlagUse
from vllm_doctor.launch.arity import ALIASES, SHORT, Arity, arity, current_names
from vllm_doctor.launch.spelling import nearest

_NEGATIVE_NUMBER = re.compile(r"-\d+$|-\d*\.\d+$")
_LEVEL = re.compile(r"-O(?:=?(?P<level>[^=].*))?$", re.DOTALL)
BOOLEANS = frozenset({"true", "false"})


class Arguments(Struct, frozen=True):
    """What the words say; `secrets` are the values that were masked, for whoever prints the words."""

    flags: tuple[FlagUse, ...]
    words: tuple[str, ...]
    problems: tuple[str, ...]
    secrets: tuple[str, ...]


def read(given: Sequence[str], source: str = "command", *, mask: bool = True) -> Arguments:
    """Read flags and positional words; a positional word is the model unless the form says otherwise.

    Without `mask` the secrets stay in clear: for whoever starts the command, never for what is printed.
    """
    reader = _Reader(list(given), source, mask=mask)
    reader.read()
    return Arguments(tuple(reader.flags), tuple(reader.words), tuple(reader.problems), tuple(reader.secrets))


def canonical(option: str) -> str:
    """The long canonical spelling of an option as typed: underscores, short forms, prefixes that name one flag."""
    head, dot, keys = option.partition(".")
    head = _short(head) or ("--" + head[2:].replace("_", "-") if head.startswith("--") else head)
    if arity(head) is None:
        fitting = matches(head, current_names())
        head = fitting[0] if len(fitting) == 1 else head
    return ALIASES.get(head, head) + dot + keys


def _short(head: str) -> str | None:
    """`-tp`, and `-t` where it is the beginning of one short form only."""
    if head in SHORT or head.startswith("--"):
        return SHORT.get(head)
    fitting = [name for name in SHORT if len(head) > 1 and name.startswith(head)]
    return SHORT[fitting[0]] if len(fitting) == 1 else None


def matches(prefix: str, names: frozenset[str]) -> tuple[str, ...]:
    """The options that argparse takes an abbreviation for; more than one is an error to it."""
    if not prefix.startswith("--") or len(prefix) < 3:
        return ()
    found = {ALIASES.get(name, name) for name in names if name.startswith(prefix)}
    return tuple(sorted(found))


def is_option(word: str) -> bool:
    """Whether argparse takes the word for an option: a dash, and neither a negative number nor words with blanks."""
    if len(word) < 2 or not word.startswith("-") or _NEGATIVE_NUMBER.match(word):
        return False
    return " " not in word.partition("=")[0]


def takes(name: str) -> Arity:
    """How many words the flag takes; a name that no release knows takes what the one that was meant takes."""
    known = Arity.ONE if "." in name else arity(name)
    if known is not None:
        return known
    meant = nearest(name, current_names())
    return (arity(meant) if meant else None) or Arity.ONE


class _Reader:
    def __init__(self, given: list[str], source: str, *, mask: bool) -> None:
        self.given = given
        self.source = source
        self.mask = mask
        self.at = 0
        self.flags: list[FlagUse] = []
        self.words: list[str] = []
        self.problems: list[str] = []
        self.secrets: list[str] = []

    def read(self) -> None:
        while self.at < len(self.given):
            word = self.given[self.at]
            self.at += 1
            if word == "--":
                self.words.extend(self._shown(w) for w in self.given[self.at :])
                return
            if not is_option(word):
                self.words.append(self._shown(word))
            elif level := _LEVEL.match(word):
                self._level(word, level["level"])
            else:
                self._option(word)

    def _shown(self, word: str) -> str:
        return redact.text(word) if self.mask else word

    def _level(self, word: str, level: str | None) -> None:
        if level is not None and level.startswith("."):
            self._option(word)
        elif level is not None:
            self._keep("--optimization-level", "-O", (level,))
        else:
            self._keep("--optimization-level", "-O", self._following(1))

    def _option(self, word: str) -> None:
        option, equals, value = word.partition("=")
        if equals and _is_short_prefix(option):
            self._keep(word, word, ())
            return
        option, value = _attached(option, value, equals)
        name = canonical(option)
        count = takes(name)
        if equals or value:
            if count is Arity.NONE and name not in ("--help", "--version"):
                self.problems.append(f"{option} takes no value, and {value!r} was given")
            self._keep(name, option, (value,))
        elif count is Arity.NONE:
            self._keep(name, option, self._boolean())
        else:
            self._valued(name, option, count)

    def _valued(self, name: str, option: str, count: Arity) -> None:
        values = self._following(len(self.given) if count is Arity.MANY else 1)
        # What a flag that no release has would take is a guess: that it is unknown is told elsewhere.
        if not values and count is not Arity.OPTIONAL and ("." in name or arity(name) is not None):
            what = "at least one value" if count is Arity.MANY else "a value"
            self.problems.append(f"{option} needs {what}, and none follows")
        self._keep(name, option, values)

    def _boolean(self) -> tuple[str, ...]:
        """`--enforce-eager True`: the word means the switch, whatever argparse makes of it."""
        if self.at < len(self.given) and self.given[self.at].lower() in BOOLEANS:
            return self._following(1)
        return ()

    def _following(self, most: int) -> tuple[str, ...]:
        start = self.at
        while self.at < len(self.given) and self.at - start < most and self._is_value(self.given[self.at]):
            self.at += 1
        return tuple(self.given[start : self.at])

    @staticmethod
    def _is_value(word: str) -> bool:
        return word != "--" and not is_option(word)

    def _keep(self, name: str, spelled: str, values: tuple[str, ...]) -> None:
        if not self.mask:
            self.flags.append(FlagUse(name=name, spelled=spelled, values=values, source=self.source))
            return
        if redact.is_secret_name(name.lstrip("-")):
            self.secrets.extend(v for v in values if v and v != redact.MASK)
            values = tuple(redact.MASK for _ in values)
        values = tuple(redact.text(v) for v in values)
        self.flags.append(FlagUse(name=name, spelled=redact.text(spelled), values=values, source=self.source))


def _is_short_prefix(option: str) -> bool:
    """Whether an option of one dash is an abbreviation: with `=` argparse takes the whole names of these only."""
    return not option.startswith("--") and option not in SHORT and option[:2] not in SHORT and "." not in option


def _attached(option: str, value: str, equals: str) -> tuple[str, str]:
    """`-qfp8` and `-n2`: argparse takes what follows a one-letter option for its value."""
    if option.startswith("--") or option in SHORT or len(option) < 3 or "." in option:
        return option, value
    return (option[:2], option[2:] + equals + value) if option[:2] in SHORT else (option, value)
