"""The commands that mend an environment, for the interpreter that was examined and the installer that it has."""

import shlex

from vllm_doctor.facts import Distribution, Environment, VllmBuild
from vllm_doctor.finding import Fix


def install(environment: Environment, *requirements: str, options: tuple[str, ...] = ()) -> tuple[str, ...]:
    """The argv that installs the requirements: the environment's own pip, or uv where it has none."""
    options = (*_consent(environment), *options)
    if has_pip(environment):
        return (environment.python, "-m", "pip", "install", *options, *requirements)
    translated = tuple(UV_OPTIONS.get(option, option) for option in options)
    return ("uv", "pip", "install", "--python", environment.python, *translated, *requirements)


def install_build(environment: Environment, *requirements: str, backend: str) -> tuple[str, ...]:
    """The argv that installs a build of torch for `backend` (`cpu`, `cu130`, ...).

    uv only: its `--torch-backend` finds PyTorch's own wheels (uv documentation, "Using uv with PyTorch"); pip must be
    given their address.
    """
    return ("uv", "pip", "install", "--python", environment.python, "--torch-backend", backend, *requirements)


def uninstall(environment: Environment, *names: str) -> tuple[str, ...]:
    """The argv that removes the distributions."""
    if has_pip(environment):
        return (environment.python, "-m", "pip", "uninstall", "--yes", *_consent(environment), *names)
    return ("uv", "pip", "uninstall", "--python", environment.python, *_consent(environment), *names)


def _consent(environment: Environment) -> tuple[str, ...]:
    """What pip and uv want to be told before they touch the system's own Python (PEP 668)."""
    return ("--break-system-packages",) if environment.externally_managed else ()


def reinstall(environment: Environment, *requirements: str) -> tuple[str, ...]:
    """The argv that puts the files of the distributions in place again and moves no other one."""
    return install(environment, *requirements, options=("--force-reinstall", "--no-deps"))


def again(environment: Environment, distribution: Distribution) -> Fix:
    """The fix that puts an installed distribution's files in place again: the same version, the same build."""
    version, _, local = (distribution.version or "").partition("+")
    if distribution.name.startswith("vllm"):
        return again_vllm(environment, distribution.version)
    wanted = f"{distribution.name}=={version}" if version else distribution.name
    title = f"Install {wanted} again, without moving its dependencies"
    if local and distribution.name in TORCH_FAMILY:
        command = ("uv", "pip", "install", "--python", environment.python, "--torch-backend", local)
        return Fix(title=title, command=(*command, "--reinstall", "--no-deps", wanted))
    return Fix(title=title, command=reinstall(environment, wanted))


TORCH_FAMILY = frozenset({"torch", "torchvision", "torchaudio"})


def again_vllm(environment: Environment, full_version: str | None) -> Fix:
    """The fix that puts vLLM's files in place again.

    The package index has the CUDA build only. CPU wheels are assets of the release on GitHub (vLLM documentation,
    "Installation", "CPU"); for other builds only their user knows where they came from.
    """
    version, _, local = (full_version or "").partition("+")
    build = environment.vllm
    platform = _platform(build) if build is not None else local
    wanted = f"vllm=={version}" if version else "vllm"
    if platform in ("", "cuda") and (not local or local.startswith("cu")):
        title = f"Install {wanted} again, without moving its dependencies"
        return Fix(title=title, command=reinstall(environment, wanted))
    if platform == "cpu" and version:
        wheel = f"vllm-{version}+cpu*.whl"
        fetch = f"gh release download v{version} --repo vllm-project/vllm --pattern {shlex.quote(wheel)}"
        put = " ".join(map(shlex.quote, install(environment, options=("--force-reinstall", "--no-deps"))))
        title = f"Install the CPU wheel of vLLM's release {version} again, without moving its dependencies"
        return Fix(title=title, command=("sh", "-c", f"{fetch} && {put} {wheel}"))
    return Fix(title=f"Install vllm {full_version or ''} again from where it came from ({platform or local} build)")


def _platform(build: VllmBuild) -> str:
    return build.platform if isinstance(build.platform, str) else ""


def repair(environment: Environment, title: str, *requirements: str) -> Fix:
    """The fix that installs the requirements."""
    return Fix(title=title, command=install(environment, *requirements))


def has_pip(environment: Environment) -> bool:
    """Whether the environment holds pip; uv makes environments without. A report lists too little to tell."""
    return environment.distribution("pip") is not None or (not environment.complete and environment.kind != "uv")


# pip's spelling -> uv's, where they differ (`uv pip install --help`).
UV_OPTIONS = {"--force-reinstall": "--reinstall", "--ignore-installed": "--reinstall", "-U": "--upgrade"}
