"""Finds checks: the built-in ones and anybody's, through one entry-point group."""

from collections.abc import Iterable, Iterator
from importlib.metadata import EntryPoint, entry_points

from msgspec import Struct

from vllm_doctor.causes import catalogue
from vllm_doctor.check import Check

GROUP = "vllm_doctor.checks"


class BrokenPlugin(Struct, frozen=True):
    """An entry point that could not be loaded, or brought nothing usable: its name, whose it is, and why."""

    name: str
    package: str
    problem: str


class Registry(Struct, frozen=True):
    """The checks in the order of their ids, and the plugins that failed."""

    checks: tuple[Check, ...]
    broken: tuple[BrokenPlugin, ...] = ()

    def find(self, check_id: str) -> Check | None:
        """The check of that id."""
        return next((c for c in self.checks if c.id == check_id), None)


def load(points: Iterable[EntryPoint] | None = None) -> Registry:
    """Load every check of the group, sorted; a module that fails is named and the others are loaded."""
    found: dict[str, Check] = {}
    broken: list[BrokenPlugin] = []
    for point in sorted(entry_points(group=GROUP) if points is None else points, key=lambda p: (p.name, p.value)):
        try:
            loaded = tuple(_checks_of(point))
            _refuse(loaded, found)
        except Exception as problem:  # noqa: BLE001 - somebody else's module may raise anything
            broken.append(BrokenPlugin(point.name, _package(point), f"{type(problem).__name__}: {problem}"))
            continue
        found.update((c.id, c) for c in loaded)
    return Registry(tuple(found[i] for i in sorted(found)), tuple(broken))


def _package(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else point.module.split(".", 1)[0]


def _checks_of(point: EntryPoint) -> Iterator[Check]:
    loaded = point.load()
    members = [loaded] if isinstance(loaded, Check) else list(vars(loaded).values())
    checks = [m for m in members if isinstance(m, Check)]
    if not checks:
        raise ValueError(f"{point.value} holds no check")
    yield from checks


def _refuse(loaded: tuple[Check, ...], found: dict[str, Check]) -> None:
    for check in loaded:
        if check.id in found:
            raise ValueError(f"check {check.id!r} exists already, in {found[check.id].module}")
        for cause in check.causes:
            if "." not in cause and cause not in catalogue():
                raise ValueError(f"check {check.id!r} names the cause {cause!r}, which has neither a page nor a prefix")
