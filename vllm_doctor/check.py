"""What a check is: a pure generator over the snapshot, wrapped with its id, causes, needs and page."""

import inspect
import re
from collections.abc import Callable, Iterator
from typing import TypeVar

from msgspec import Struct

from vllm_doctor.facts import Unknown
from vllm_doctor.finding import Finding
from vllm_doctor.snapshot import Snapshot

T = TypeVar("T")

SECTIONS = ("host", "gpus", "environment", "servers", "launch", "model")

# Builds whose GPUs are read through NVML and whose wheels carry CUDA.
CUDA_ONLY = ("cuda",)

_SLUG = re.compile(r"[a-z0-9.]+(-[a-z0-9.]+)*")

CheckFunction = Callable[[Snapshot], Iterator[Finding]]


class NotKnown(Exception):
    """A fact that the check needs could not be had; the engine reports `unknown` with the reason."""


class NotApplicable(Exception):
    """The check does not apply to this snapshot; the engine reports `skipped` with the reason."""


class Check(Struct, frozen=True, kw_only=True):
    """One check. `page` is its docstring; `package` and `module` say whose it is; `platforms` empty: every build."""

    id: str
    causes: tuple[str, ...]
    needs: tuple[str, ...]
    platforms: tuple[str, ...]
    function: CheckFunction
    page: str
    module: str

    @property
    def title(self) -> str:
        """The first line of the page."""
        return self.page.split("\n", 1)[0]

    @property
    def package(self) -> str:
        """The top-level package that brings it."""
        return self.module.split(".", 1)[0]


def check(
    id: str,  # noqa: A002 - the word users see
    *,
    causes: tuple[str, ...],
    needs: tuple[str, ...],
    platforms: tuple[str, ...] = (),
) -> Callable[[CheckFunction], Check]:
    """Make a Check of a generator function; its docstring is the page.

    `needs` names sections of the snapshot: the check is not called where one is unknown or absent. `platforms` names
    the vLLM builds that it holds for. Raises ValueError for a check without page, causes or a proper id.
    """

    def decorate(function: CheckFunction) -> Check:
        page = inspect.cleandoc(function.__doc__ or "")
        if not page or not causes or not _SLUG.fullmatch(id):
            raise ValueError(f"check {id!r} needs a slug as id, causes and a docstring")
        if unknown := set(needs) - set(SECTIONS):
            raise ValueError(f"check {id!r} needs {sorted(unknown)}: sections are {SECTIONS}")
        return Check(
            id=id,
            causes=causes,
            needs=needs,
            platforms=platforms,
            function=function,
            page=page,
            module=function.__module__,
        )

    return decorate


def known(value: T | Unknown) -> T:
    """The fact; raises NotKnown with its reason where it could not be had."""
    if isinstance(value, Unknown):
        raise NotKnown(value.reason)
    return value


def given(value: T | Unknown | None, reason: str) -> T:
    """The fact; raises NotApplicable with the reason where there is none, NotKnown where it could not be had."""
    if value is None:
        raise NotApplicable(reason)
    return known(value)
