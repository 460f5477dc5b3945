"""Requirements of installed distributions: parsed only where reached, evaluated with their environment's markers."""

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING

from msgspec import Struct

from vllm_doctor.check import NotApplicable, NotKnown
from vllm_doctor.facts import Distribution, Environment, VllmBuild
from vllm_doctor.snapshot import Snapshot

if TYPE_CHECKING:
    from packaging.requirements import Requirement
    from packaging.version import Version

# An environment with vLLM holds about 150 distributions; a walk over more than this is of a hostile file.
MAXIMUM_DISTRIBUTIONS = 2000

_NAME = re.compile(r"\s{0,8}([A-Za-z0-9][A-Za-z0-9._-]{0,127})")
_EXTRA = re.compile(r"\bextra\b")
_OR = re.compile(r"\bor\b")
_RUNS = re.compile(r"[-_.]+")


class Edge(Struct, frozen=True):
    """One requirement that holds in the environment: who asks, what for, and what is there (None: nothing)."""

    by: Distribution
    target: str
    specifier: str
    installed: Distribution | None
    path: tuple[str, ...]

    @property
    def text(self) -> str:
        """The requirement as a requirements file would have it."""
        return f"{self.target}{self.specifier}"

    @property
    def violated(self) -> bool:
        """Whether something of another version is installed."""
        there = self.installed
        return there is not None and there.version is not None and not satisfies(there.version, self.specifier)


def examined(snapshot: Snapshot) -> Environment:
    """The environment that the launch runs in; raises NotApplicable where a container image brings its own."""
    if snapshot.launch is not None and snapshot.launch.docker is not None:
        raise NotApplicable("the launch runs in a container: its image brings the Python environment")
    if not isinstance(snapshot.environment, Environment):
        raise NotKnown("the Python environment is not known")
    return snapshot.environment


def vllm_of(snapshot: Snapshot) -> tuple[Environment, VllmBuild]:
    """The environment and the vLLM in it; raises NotApplicable where there is none."""
    environment = examined(snapshot)
    if environment.vllm is None:
        raise NotApplicable(absence(environment))
    return environment, environment.vllm


def absence(environment: Environment) -> str:
    """Why a check of the installed vLLM does not apply where none is known of: a report may leave it out."""
    if environment.complete:
        return f"vLLM is not installed in the environment of {environment.python}"
    return f"what is known of the environment of {environment.python} names no vLLM"


def own_distribution(environment: Environment) -> Distribution | None:
    """The metadata of the installed vLLM, whatever its distribution is called; None where none names it."""
    build = environment.vllm
    if build is None or build.distribution is None:
        return None
    return environment.distribution(normalised(build.distribution))


def normalised(name: str) -> str:
    """The name as PEP 503 compares names."""
    return _RUNS.sub("-", name).lower()


def version(text: str) -> "Version | None":
    """The PEP 440 version; None where it is none."""
    from packaging.version import InvalidVersion, Version

    try:
        return Version(text)
    except InvalidVersion:
        return None


def release(text: str | None) -> tuple[int, int, int]:
    """Major, minor and patch number; zeros for what is no version."""
    parsed = version(text) if text else None
    return (parsed.major, parsed.minor, parsed.micro) if parsed else (0, 0, 0)


def public(text: str) -> str:
    """The version without its local part (`2.13.0` of `2.13.0+cpu`)."""
    return text.split("+", 1)[0]


def satisfies(installed: str, specifier: str) -> bool:
    """Whether the version is in the range; one that cannot be compared counts as in it (no proof of the contrary).

    Pre-releases are compared as any other version: what is installed is installed. `==2.13.0` takes `2.13.0+cpu`
    (PEP 440, version matching: a local label of the candidate is ignored where the specifier has none).
    """
    from packaging.specifiers import InvalidSpecifier, SpecifierSet

    parsed = version(installed)
    if parsed is None:
        return True
    try:
        return SpecifierSet(specifier).contains(parsed, prereleases=True)
    except InvalidSpecifier:
        return True


def combined(specifiers: Iterable[str]) -> str:
    """One range that lies in all of these, without the bounds that another one makes needless."""
    parts = dict.fromkeys(part.strip() for s in specifiers for part in s.split(",") if part.strip())
    lowest = [p for p in parts if p.startswith(">=")]
    highest = [p for p in parts if p.startswith("<") and not p.startswith("<=")]
    needless = {*_all_but(lowest, 2, last=True), *_all_but(highest, 1, last=False)}
    exact = [p for p in parts if p.startswith("==") and "*" not in p]
    return exact[0] if exact else ",".join(p for p in parts if p not in needless)


def _all_but(bounds: list[str], width: int, *, last: bool) -> list[str]:
    """All bounds but the tightest; none where one is no version."""
    from packaging.version import InvalidVersion, Version

    try:
        ordered = sorted(bounds, key=lambda bound: Version(bound[width:]), reverse=not last)
    except InvalidVersion:
        return []
    return ordered[:-1]


def pinned_version(specifier: str) -> str | None:
    """The version of an exact pin (`==2.11.0`); None for any other range."""
    return specifier.removeprefix("==") if specifier.startswith("==") and "," not in specifier else None


def requirements_of(by: Distribution, environment: Environment, extras: Iterable[str] = ()) -> Iterator["Requirement"]:
    """The requirements of a distribution that hold in this environment, for those extras and without any."""
    wanted = ("", *extras)
    for line in by.requires:
        if not _may_hold(line, wanted):
            continue
        parsed = _parsed(line)
        if parsed is not None and any(_holds(parsed, environment, extra) for extra in wanted):
            yield parsed


def edges_of(by: Distribution, environment: Environment, only: frozenset[str] = frozenset()) -> Iterator[Edge]:
    """The requirements of one distribution, without extras; `only` those on these names, and no others are parsed."""
    lines = by.requires if not only else tuple(r for r in by.requires if requirement_name(r) in only)
    narrowed = Distribution(name=by.name, version=by.version, location=by.location, requires=lines)
    for requirement in requirements_of(narrowed, environment):
        name = normalised(requirement.name)
        yield Edge(by, name, str(requirement.specifier), environment.distribution(name), (by.name,))


def declared(by: Distribution, environment: Environment, target: str) -> Edge | None:
    """What the distribution requires of the other one; None where it requires nothing of it here."""
    return next(edges_of(by, environment, frozenset({target})), None)


def declared_by_any_extra(by: Distribution, environment: Environment, target: str) -> Iterator[Edge]:
    """What the distribution would require of the other one with one of its extras."""
    for line in by.requires:
        if requirement_name(line) == target and (parsed := _parsed(line)) is not None:
            yield Edge(by, target, str(parsed.specifier), environment.distribution(target), (by.name,))
            return


def pin_of(environment: Environment, target: str) -> Edge | None:
    """What the installed vLLM requires of another distribution; None where it requires nothing of it.

    From its own metadata; where they are not to be had (a pasted report lists versions only), from those of the
    release of that version. Raises NotKnown where neither is known.
    """
    own = own_distribution(environment)
    if has_metadata(environment) and own is not None:
        return declared(own, environment, target)
    pins = _released_pins(environment)
    build = environment.vllm
    # requirements/cpu.txt names a torch of its own: 2.6.0 for vLLM 0.10.0, whose CUDA build pins 2.7.1.
    other_torch = target.startswith("torch") and (build is None or build.platform != "cuda")
    if pins is None or other_torch:
        raise NotKnown("what this vLLM requires is not known: its metadata is not at hand, and it is no known release")
    if target not in pins:
        return None
    by = Distribution(name="vllm", version=build.version if build is not None else None, location="")
    return Edge(by, target, pins[target], environment.distribution(target), ("vllm",))


def has_metadata(environment: Environment) -> bool:
    """Whether the installed vLLM's own requirements were read."""
    own = own_distribution(environment)
    return own is not None and bool(own.requires)


def _released_pins(environment: Environment) -> Mapping[str, str] | None:
    """The pins of the release; they hold for CUDA wheels on Linux x86_64, and in what is asked here for CPU wheels."""
    build = environment.vllm
    if build is None or build.version is None or build.platform not in ("cuda", "cpu"):
        return None
    if environment.markers.get("platform_machine") != "x86_64" or not is_published(build.version):
        return None
    from vllm_doctor import releases

    released = releases.release(build.version)
    return released.pins if released is not None and released.pins else None


def is_published(text: str) -> bool:
    """Whether a wheel of this version was published by vLLM; `0.10.1.1+381074ae.nv25.09` is somebody's own build.

    NVIDIA's containers build vLLM for a torch of their own, as do development and ROCm builds.
    """
    local = text.partition("+")[2]
    return ".dev" not in text and (not local or local == "cpu" or (local[:2] == "cu" and local[2:].isdecimal()))


def refuse_incomplete(environment: Environment) -> None:
    """Raise NotKnown where the list of what is installed may lack something."""
    if not environment.complete:
        raise NotKnown("not all that is installed is known")


def walk(root: Distribution, environment: Environment) -> Iterator[Edge]:
    """Every requirement that is reached from the distribution through what is installed, nearest first."""
    installed = {d.name: d for d in reversed(environment.distributions)}
    queue: list[tuple[Distribution, tuple[str, ...], tuple[str, ...]]] = [(root, (), (root.name,))]
    visited: dict[str, set[str]] = {root.name: {""}}
    said: set[tuple[str, str, str]] = set()
    for by, extras, path in queue:
        for requirement in requirements_of(by, environment, extras):
            name, specifier = normalised(requirement.name), str(requirement.specifier)
            there = installed.get(name)
            if (by.name, name, specifier) not in said:
                said.add((by.name, name, specifier))
                yield Edge(by, name, specifier, there, path)
            news = {"", *requirement.extras} - visited.setdefault(name, set())
            if there is not None and news and len(queue) < MAXIMUM_DISTRIBUTIONS:
                visited[name] |= news
                queue.append((there, tuple(sorted(news - {""})), (*path, name)))


def requirement_name(line: str) -> str:
    """The normalised name that a requirement starts with; empty where it starts with none."""
    found = _NAME.match(line)
    return normalised(found[1]) if found else ""


def _may_hold(line: str, wanted: tuple[str, ...]) -> bool:
    """Whether the line is worth parsing: most are of extras that nobody asks for (`; extra == "dev"`)."""
    marker = line.partition(";")[2]
    if not _EXTRA.search(marker) or _OR.search(marker):
        return True
    return any(extra and extra in marker for extra in wanted)


def _holds(requirement: "Requirement", environment: Environment, extra: str) -> bool:
    from packaging.markers import UndefinedComparison, UndefinedEnvironmentName

    if requirement.marker is None:
        return True
    try:
        return requirement.marker.evaluate({**environment.markers, "extra": extra})
    except (UndefinedComparison, UndefinedEnvironmentName, KeyError, ValueError):
        return False


@lru_cache(maxsize=4096)
def _parsed(line: str) -> "Requirement | None":
    from packaging.requirements import InvalidRequirement, Requirement

    try:
        return Requirement(line)
    except InvalidRequirement:
        return None
