"""What a check says: the cause, how bad and how sure, the evidence, and fixes that are data."""

from collections.abc import Mapping
from enum import Enum

from msgspec import Struct


class Severity(str, Enum):
    """How bad: `error` will fail, `warning` may fail or costs, `info` is worth knowing."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"

    @property
    def rank(self) -> int:
        """0 for the worst."""
        return list(Severity).index(self)


class Confidence(str, Enum):
    """How sure: `certain` follows from the facts, `likely` rests on a rule with known exceptions."""

    CERTAIN = "certain"
    LIKELY = "likely"


class LaunchEdit(Struct, frozen=True, kw_only=True):
    """A change of the launch command: flags to set (value None: a switch), flags to drop, variables to set or drop.

    `positional` replaces the model; `drop_words` removes stray positional words.
    """

    set: Mapping[str, str | None] = {}
    unset: tuple[str, ...] = ()
    env: Mapping[str, str | None] = {}
    positional: str | None = None
    drop_words: tuple[str, ...] = ()


class Fix(Struct, frozen=True, kw_only=True):
    """One way out: what to do, and the same as data.

    `command` is an argv for a shell, `launch` an edit of the launch, `settings` what to enter in the client;
    `automatic` says that `--fix` may apply it after asking.
    """

    title: str
    command: tuple[str, ...] | None = None
    launch: LaunchEdit | None = None
    settings: Mapping[str, str] | None = None
    automatic: bool = False


class Finding(Struct, frozen=True, kw_only=True):
    """One root cause that was found, with what was seen and what helps; the engine fills in `check`."""

    cause: str
    severity: Severity
    confidence: Confidence
    title: str
    evidence: tuple[str, ...]
    fixes: tuple[Fix, ...] = ()
    check: str = ""


def error(cause: str, title: str, *, evidence: tuple[str, ...], fixes: tuple[Fix, ...] = ()) -> Finding:
    """A finding that will fail, and this is why: certain."""
    return Finding(
        cause=cause,
        severity=Severity.ERROR,
        confidence=Confidence.CERTAIN,
        title=title,
        evidence=evidence,
        fixes=fixes,
    )


def warning(
    cause: str,
    title: str,
    *,
    evidence: tuple[str, ...],
    fixes: tuple[Fix, ...] = (),
    confidence: Confidence = Confidence.LIKELY,
) -> Finding:
    """A finding that may fail, or that costs something."""
    return Finding(
        cause=cause,
        severity=Severity.WARNING,
        confidence=confidence,
        title=title,
        evidence=evidence,
        fixes=fixes,
    )


def info(cause: str, title: str, *, evidence: tuple[str, ...], fixes: tuple[Fix, ...] = ()) -> Finding:
    """A finding that fails nothing and is worth knowing."""
    return Finding(
        cause=cause,
        severity=Severity.INFO,
        confidence=Confidence.CERTAIN,
        title=title,
        evidence=evidence,
        fixes=fixes,
    )
