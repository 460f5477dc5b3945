"""The check on the files of vLLM and of what it imports: missing, half deleted, or of two versions at once."""

from collections.abc import Iterator
from pathlib import PurePath

from vllm_doctor.check import NotApplicable, NotKnown, check
from vllm_doctor.facts import Distribution, Environment, Extension, Unknown, VllmBuild
from vllm_doctor.finding import Finding, Fix, error, warning
from vllm_doctor.snapshot import Snapshot
from vllm_doctor_checks import damaged, installers, requirements, startup, symbols
from vllm_doctor_checks.breakages import TRANSFORMERS_COMPARES

# What an installation may lack without harm: images are often slimmed by deleting these.
SPARE_FOLDERS = frozenset({"test", "tests", "testing", "_tests", "docs", "doc", "examples", "include", "__pycache__"})
CODE_ENDINGS = (".py", ".so", ".pyd")

# The builds whose kernels live in compiled modules named `_C*` (vllm/platforms/{cuda,rocm,cpu,xpu}.py import them;
# tpu.py imports none).
COMPILED_PLATFORMS = ("cuda", "rocm", "cpu", "xpu")


@check("vllm-files", causes=("broken-install",), needs=("environment",))
def vllm_files(snapshot: Snapshot) -> Iterator[Finding]:
    """Files of vLLM, or of a library that it imports at start, are missing: the installation is only partly there.

    Why: a compiled module (`vllm/_C*.so`), a source file or a whole package that the installation's own list of files
    (RECORD) names is not on disk, a compiled module is cut short or empty, or two versions of one distribution lie over
    each other. This is what an interrupted `pip install`, a full disk, a cleaned image layer or a hand-deleted folder
    leaves.
    Fix: install the same version again without moving anything else.
    """
    environment, build = _vllm_or_remains(snapshot)
    found = tuple(_faults(environment, build))
    yield from found or tuple(damaged.leftovers(environment))
    if not environment.complete:
        raise NotKnown("not all that is installed is known")


def _faults(environment: Environment, build: VllmBuild | None) -> Iterator[Finding]:
    yield from _package_gone(environment)
    if build is not None:
        yield from _compiled_modules(environment, build)
        yield from damaged.modules(environment)
        yield from _system_libraries(environment)
        yield from _disagreeing_versions(environment, build)
    if any(d.missing or d.version is None for d in environment.distributions):
        for distribution in _reached(environment):
            yield from _missing_files(environment, build, distribution)
    yield from _twice(environment)


def _vllm_or_remains(snapshot: Snapshot) -> tuple[Environment, VllmBuild | None]:
    environment = requirements.examined(snapshot)
    if environment.vllm is None and environment.distribution("vllm") is None:
        raise NotApplicable(requirements.absence(environment))
    return environment, environment.vllm


def _package_gone(environment: Environment) -> Iterator[Finding]:
    there = environment.distribution("vllm")
    if environment.vllm is not None or there is None:
        return
    yield error(
        "broken-install",
        "vLLM's metadata is there, but the package itself is gone",
        evidence=(
            f"{there.location} holds the metadata of vllm {there.version or '(no version)'}",
            "no package `vllm` can be imported in this environment",
            *damaged.remains_of(environment, there),
        ),
        fixes=(installers.again(environment, there),),
    )


def _compiled_modules(environment: Environment, build: VllmBuild) -> Iterator[Finding]:
    kernels = [e for e in build.extensions if PurePath(e).name.startswith("_C")]
    # An environment report lists no files.
    if (
        kernels
        or not environment.complete
        or isinstance(build.platform, Unknown)
        or build.platform not in COMPILED_PLATFORMS
    ):
        return
    others = ", ".join(build.extensions[:4])
    yield error(
        "broken-install",
        "vLLM's compiled kernels are missing: there is no vllm/_C*.so",
        evidence=(
            f"{build.path} is a {build.platform} build and holds no compiled module named _C*",
            f"compiled modules found: {others}" if others else "compiled modules found: none",
            "vLLM starts without them and fails at the first operation it needs of them",
        ),
        fixes=_kernel_fixes(environment, build),
    )


def _kernel_fixes(environment: Environment, build: VllmBuild) -> tuple[Fix, ...]:
    if build.editable:
        return (
            Fix(
                title="Build the kernels of this source tree again (or take the nearest release's: "
                "VLLM_USE_PRECOMPILED=1)",
                command=installers.install(environment, "-e", str(PurePath(build.path).parent)),
            ),
        )
    return (installers.again_vllm(environment, build.metadata_version or build.package_version),)


def _system_libraries(environment: Environment) -> Iterator[Finding]:
    """A library of the system that vLLM's kernels are linked to and that is nowhere; not torch's, not CUDA's."""
    for extension in symbols.extensions_of(environment, "vllm"):
        known_owners = (*symbols.torch_libraries(extension), *symbols.cuda_libraries(extension))
        lacking = [n for n in extension.needed_missing if n not in known_owners]
        if lacking and PurePath(extension.path).name.startswith("_C"):
            yield _system_library(extension, lacking)
            return


def _system_library(extension: Extension, lacking: list[str]) -> Finding:
    package = next((SYSTEM_PACKAGES[n] for n in lacking if n in SYSTEM_PACKAGES), None)
    fix = (
        Fix(title=f"Install {package} (its name on Debian and Ubuntu)", command=("apt-get", "install", "-y", package))
        if package
        else Fix(title=f"Install the system package that brings {lacking[0]}")
    )
    return error(
        "broken-install",
        f"vLLM's {PurePath(extension.path).name} needs {lacking[0]}, which this system does not have",
        evidence=(f"{extension.path} needs {', '.join(lacking[:4])}: found in no folder that the loader searches",),
        fixes=(fix,),
    )


# Debian's package of each library (packages.debian.org, contents search, bookworm).
SYSTEM_PACKAGES = {"libnuma.so.1": "libnuma1", "libgomp.so.1": "libgomp1", "libstdc++.so.6": "libstdc++6"}


def _twice(environment: Environment) -> Iterator[Finding]:
    """Metadata of two versions of one distribution in one folder: which one counts is chance."""
    there: dict[tuple[str, str], Distribution] = {}
    wanted = {"vllm", *startup.IMPORTED_AT_START}
    for distribution in environment.distributions:
        place = (distribution.location, distribution.name)
        first = there.setdefault(place, distribution)
        if first.version == distribution.version or distribution.name not in wanted:
            continue
        yield warning(
            "broken-install",
            f"{distribution.name} is installed twice in one folder: {first.version} and {distribution.version}",
            evidence=(f"{distribution.location} holds the metadata of both", "the files are those of the last install"),
            fixes=(installers.again(environment, distribution),),
        )


def _disagreeing_versions(environment: Environment, build: VllmBuild) -> Iterator[Finding]:
    """Sources of one version under metadata of another: an install that was interrupted or copied over."""
    pairs = [("torch", environment.torch.version, _version_of(environment, "torch"))] if environment.torch else []
    if not build.editable and build.package_version is not None:
        pairs.append(("vllm", build.package_version, build.metadata_version))
    for name, of_files, of_metadata in pairs:
        if of_metadata is None or requirements.release(of_files) == requirements.release(of_metadata):
            continue
        yield warning(
            "broken-install",
            f"{name}'s files are of version {of_files}, its metadata says {of_metadata}",
            evidence=(f"{name}/version file: {of_files}", f"metadata: {of_metadata}"),
            fixes=(
                Fix(
                    title=f"Install {name} {of_metadata} again over what is there",
                    command=installers.reinstall(environment, f"{name}=={requirements.public(of_metadata)}"),
                ),
            ),
        )


def _version_of(environment: Environment, name: str) -> str | None:
    there = environment.distribution(name)
    return there.version if there else None


def _reached(environment: Environment) -> Iterator[Distribution]:
    """vLLM's distribution, torch's, and all that vLLM requires, each once."""
    own = requirements.own_distribution(environment)
    roots = [d for d in (own, environment.distribution("torch")) if d is not None]
    reached = {d.name: d for d in roots}
    for edge in requirements.walk(own, environment) if own is not None else ():
        if edge.installed is not None:
            reached.setdefault(edge.installed.name, edge.installed)
    yield from reached.values()


def _missing_files(environment: Environment, build: VllmBuild | None, distribution: Distribution) -> Iterator[Finding]:
    if distribution.version is None:
        yield from _no_version(environment, build, distribution)
    if distribution.editable or (build is None and distribution.name == "vllm"):
        return
    code = [name for name in distribution.missing if _matters(name) and not _is_kernel(build, distribution, name)]
    if not code:
        return
    # The package's own front door gone: every import of it fails. `vllm` and `torch` fail by any compiled module.
    fatal = any(_is_front_door(name) for name in code) or (
        distribution.name in ("vllm", "torch") and any(".so" in name for name in code)
    )
    needed = distribution.name in ("vllm", "torch") or (
        build is not None and startup.importer(build, distribution.name) is not None
    )
    evidence = (
        f"{distribution.missing_count} of the files that its RECORD lists are not in {distribution.location}",
        "for example: " + ", ".join(code[:3]),
        *damaged.remains_of(environment, distribution),
    )
    title = f"{distribution.name} {distribution.version or ''} is only partly installed: files are missing".replace(
        "  ", " "
    )
    make = error if fatal and needed else warning
    yield make("broken-install", title, evidence=evidence, fixes=(installers.again(environment, distribution),))


def _is_kernel(build: VllmBuild | None, distribution: Distribution, name: str) -> bool:
    """vLLM's `_C*.so` where all of them are gone: spoken of already."""
    own = build is not None and distribution.name == build.distribution
    return own and build is not None and not _kernels(build) and PurePath(name).name.startswith("_C")


def _kernels(build: VllmBuild) -> list[str]:
    return [e for e in build.extensions if PurePath(e).name.startswith("_C")]


def _matters(name: str) -> bool:
    path = PurePath(name)
    return (
        (path.name.endswith(CODE_ENDINGS) or ".so." in path.name)
        and SPARE_FOLDERS.isdisjoint(path.parts[:-1])
        and ".." not in path.parts
    )


def _is_front_door(name: str) -> bool:
    """`pkg/__init__.py`, or a module or compiled module that is a package of its own (`typing_extensions.py`)."""
    parts = PurePath(name).parts
    return len(parts) == 1 or (len(parts) == 2 and parts[1] == "__init__.py")


def _no_version(environment: Environment, build: VllmBuild | None, distribution: Distribution) -> Iterator[Finding]:
    """Metadata without a version: `importlib.metadata.version` gives None, and who compares it fails."""
    compared = build is not None and distribution.name in TRANSFORMERS_COMPARES
    make = error if compared else warning
    yield make(
        "broken-install",
        f"{distribution.name} is half deleted: its metadata has no version",
        evidence=(
            f"the metadata folder in {distribution.location} names no version",
            "transformers compares this version when it is imported, and fails on none"
            if compared
            else "whatever asks for its version gets none",
            *damaged.remains_of(environment, distribution),
        ),
        fixes=(installers.again(environment, distribution),),
    )
