"""The one door for foreign text: secrets masked, terminal escapes stripped, and, for files, identities masked."""

import os
import re
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import msgspec

MASK = "***"

# What the home folder of whoever takes a snapshot is called in it.
HOME_ALIAS = "/home/user"

# One value longer than this is cut: no fact needs more, and a report must stay readable.
MAXIMUM_CHARACTERS = 1_200_000

S = TypeVar("S", bound=msgspec.Struct)

# Terminal control: CSI and OSC sequences, then every other control character but newline and tab; and the marks that
# reorder text (CVE-2021-42574).
_CONTROL = re.compile(
    r"\x1b\[[0-9;?]{0,32}[ -/]{0,4}[@-~]|\x1b\][^\x07\x1b]{0,256}(?:\x07|\x1b\\)?|[\x00-\x08\x0b-\x1f\x7f-\x9f]"
    "|[\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)

_NAME_ENDINGS = (
    r"api[_\-]?key|access[_\-]?key|private[_\-]?key|token|passwd|password|passphrase"
    r"|credentials?|authorization|auth|cookie|key|dsn|sig|signature"
)
SECRET_NAME = re.compile(
    rf"(?:^|[_\-.])(?:{_NAME_ENDINGS})s?$|(?:^|[_\-.])(?=[a-z0-9]*secret)[a-z0-9]*$|(?:^|[_\-.])secret[_\-.]|[_\-](?:pwd|pass)$|(?-i:[a-z](?:Token|Key|Secret|Password))$",
    re.IGNORECASE,
)
# Names that end like a secret and are none: token counts and special tokens of tokenizers.
_NO_SECRET = re.compile(
    r"(?:tokens|(?:bos|eos|pad|unk|sep|cls|mask|image|video|audio|boi|eoi|bot|eot|start|end|per|per[_\-]out)[_\-]token"
    r"|_?key[_\-]?value)$",
    re.IGNORECASE,
)
# The end of a longer name decides as well as the whole.
_MAXIMUM_NAME_CHARACTERS = 256

# Every pattern below is linear in the text: a part that may repeat begins where no such part came before, or stops
# at what the next one needs.
_SHAPES = re.compile(
    r"(?<![A-Za-z0-9])(?:hf_[A-Za-z0-9]{16,}"
    r"|sk-[A-Za-z0-9_\-]{8,}"
    r"|(?:gh[pousr]|github_pat|dckr_pat|npm|gsk)_[A-Za-z0-9_]{16,}"
    r"|(?:glpat|nvapi|pypi)-[A-Za-z0-9_\-]{12,}"
    r"|xox[abprs]-[A-Za-z0-9\-]{8,}"
    r"|AIza[A-Za-z0-9_\-]{30,}"
    r"|A[KS]IA[0-9A-Z]{12,}"
    r"|eyJ[A-Za-z0-9_\-]{8,}\.[A-Za-z0-9_\-]{4,}\.[A-Za-z0-9_\-]{4,})"
    r"|-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----[^\-]*"
)
_BEARER = re.compile(r"\b(bearer|basic)(\s{1,4})[A-Za-z0-9._~+/=\-]{6,}", re.IGNORECASE)
# What stands before the last @ of a URL's host: a password may hold an @ itself.
_USER_INFO = re.compile(r"((?<![A-Za-z0-9+.\-])[A-Za-z][A-Za-z0-9+.\-]*:/{1,3})[^/\s'\"<>]+@")
# user:password@host without a scheme, as proxies are written; an image's name:tag@sha256:... is none.
_BARE_USER_INFO = re.compile(r"(?<![A-Za-z0-9_.%+\-])[A-Za-z0-9_.%+\-]+:[^\s/@:'\"<>=]+@(?!sha[0-9])(?=[A-Za-z0-9\[])")
# NAME=value, "name": "value" (its quotes escaped or not), name: value; and --name value. The name decides whether the
# value is masked. What follows a slash is a path and no key, but it may be an assignment.
_NAMED = re.compile(
    r"(?<![A-Za-z0-9_.\-])(?P<name>[A-Za-z0-9_.\-]+)"
    r"(?:\s{0,2}=(?!=)\s{0,2}|\\{0,3}['\"]\s{0,4}:\s{0,4}|(?P<colon>:)\s{1,4}|(?P<blank>\s{1,4})(?!-))"
)
_VALUE = re.compile(r"(?P<quote>\\{0,3}['\"])(?:(?!(?P=quote))(?:\\.|[^\n]))*(?P=quote)?|[^\s'\"&,;)}\]]+")
# What stands after an option's name in a sentence about it, and is nobody's secret.
_PROSE = frozenset({"or", "and", "is", "needs", "takes", "with", "without", "VALUE"})
# Most strings hold nothing of the kind: one search decides whether the patterns above are worth running.
_SUSPECT = re.compile(
    r"[^\x20-\x7e\n\t]|:/|@|bearer|basic|token|key|secret|pass|pwd|auth|cookie|credential|dsn|sig|hf_|sk-|_pat_"
    r"|gh[pousr]_|npm_|gsk_|glpat|nvapi|pypi-|xox|aiza|A[KS]IA|eyJ",
    re.IGNORECASE,
)


def text(value: str) -> str:
    """The text with control characters removed and secrets masked."""
    value = value[:MAXIMUM_CHARACTERS]
    if _SUSPECT.search(value):
        value = _mask_shapes(_CONTROL.sub("", value))
    for secret in (*own_secrets(), *_HIDDEN):
        if secret in value:
            value = value.replace(secret, MASK)
    return value


# Secrets that this call was given, whatever the variable that held them is called.
_HIDDEN: set[str] = set()


def hide(secret: str) -> None:
    """Mask this value wherever it turns up from now on; one of a few characters would mask half of every text."""
    if len(secret.strip()) >= 6:
        _HIDDEN.add(secret.strip())


def line(value: str, maximum_characters: int = 400) -> str:
    """The text as one line of bounded length."""
    flat = " ".join(text(value).split())
    return flat if len(flat) <= maximum_characters else flat[: maximum_characters - 1] + "…"


def is_secret_name(name: str) -> bool:
    """Whether a variable, flag or key of that name holds a secret."""
    name = name[-_MAXIMUM_NAME_CHARACTERS:]
    return SECRET_NAME.search(name) is not None and _NO_SECRET.search(name) is None


def words(argv: Iterable[str]) -> tuple[str, ...]:
    """The words of a command line, clean: a secret is masked to the end of its word, whatever stands in it.

    `--api-key` takes several words (vLLM 0.10.2 and later), so all up to the next option are masked.
    """
    masked: list[str] = []
    hides = False
    for word in argv:
        if word.startswith("-") or not hides:
            masked.append(text(_without_value(word)))
            hides = word.startswith("-") and "=" not in word and is_secret_name(word.lstrip("-"))
            continue
        masked.append(MASK)
        hides = masked[-2].replace("_", "-") == "--api-key" or (masked[-2] == MASK and hides)
    return tuple(masked)


def _without_value(word: str) -> str:
    """The word with the value of `NAME=value`, `--name=value` or `--env=NAME=value` masked, where the name tells."""
    head, equals, _ = word.partition("=")
    while equals:
        name = head.rpartition("=")[2].lstrip("-").rpartition(" ")[2]
        if is_secret_name(name):
            return f"{head}={MASK}"
        more, equals, _ = word[len(head) + 1 :].partition("=")
        head = f"{head}={more}"
    return word


def clean(value: S) -> S:
    """The same facts with every string passed through `text`."""
    return _rebuilt(value, text)


def identity(value: S) -> S:
    """The same facts, clean, with user names and home folders masked, each user by the same alias everywhere."""
    plain = msgspec.to_builtins(value)
    aliases = _aliases(plain)
    home = os.environ.get("HOME", "").rstrip("/")
    # An absolute path stays one: checks tell `~/x`, which vLLM takes literally, from a path.
    at_home = re.compile(rf"(?<![A-Za-z0-9_.\-]){re.escape(home)}(?![A-Za-z0-9_.\-])") if len(home) > 1 else None

    def mask(string: str) -> str:
        string = text(string)
        if at_home is not None and home in string:
            string = at_home.sub(HOME_ALIAS, string)
        for name, alias in aliases.items():
            if name in string:
                string = re.sub(rf"(?<![A-Za-z0-9_.\-]){re.escape(name)}(?![A-Za-z0-9_\-])", alias, string)
        return string

    return msgspec.convert(_mapped(plain, mask), type(value))


def _rebuilt(value: S, change: Callable[[str], str]) -> S:
    return msgspec.convert(_mapped(msgspec.to_builtins(value), change), type(value))


def _mapped(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {change(k): _mapped(v, change) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_mapped(v, change) for v in value]
    return value


def _mask_shapes(value: str) -> str:
    value = _USER_INFO.sub(rf"\1{MASK}@", value)
    value = _BARE_USER_INFO.sub(f"{MASK}@", value)
    value = _BEARER.sub(rf"\1\2{MASK}", value)
    return _SHAPES.sub(MASK, _mask_named(value))


def _mask_named(value: str) -> str:
    """The values of names that tell of a secret; what a harmless name is given may be such a pair itself."""
    kept: list[str] = []
    end = 0
    for head in _NAMED.finditer(value):
        if head.start() < end or not _names_secret(head, value):
            continue
        found = _VALUE.match(value, head.end())
        if found is not None and not (head["blank"] is not None and found[0] in _PROSE):
            kept += [value[end : head.end()], MASK]
            end = found.end()
    return "".join(kept) + value[end:]


def _names_secret(head: re.Match[str], value: str) -> bool:
    name = head["name"]
    if head["blank"] is not None and not name.startswith("--"):
        return False
    if head["colon"] is not None and value[head.start() - 1 : head.start()] == "/":
        return False
    return is_secret_name(name.lstrip("-"))


@lru_cache(maxsize=1)
def own_secrets() -> tuple[str, ...]:
    """The values of the secret variables of this process: masked wherever they turn up."""
    values = {v for n, v in os.environ.items() if is_secret_name(n) and len(v) >= 6 and not v.isdecimal()}
    return tuple(sorted((v for v in values if not Path(v).is_absolute()), key=len, reverse=True))


_HOMES = re.compile(r"/(?:home|Users)/([A-Za-z0-9_.\-]{1,64})")
_NOBODY = frozenset({"root", "nobody", "daemon", "user", "ubuntu", "vllm", "shared"})


def _aliases(plain: Any) -> dict[str, str]:
    names = dict.fromkeys(n for n in _user_names(plain) if n not in _NOBODY and len(n) > 1)
    return {name: f"user-{number}" for number, name in enumerate(sorted(names, key=len, reverse=True), 1)}


def _user_names(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        if "/" in value:
            yield from _HOMES.findall(value)
    elif isinstance(value, dict):
        if isinstance(user := value.get("user"), str):
            yield user
        for member in value.values():
            yield from _user_names(member)
    elif isinstance(value, list | tuple):
        for member in value:
            yield from _user_names(member)
