"""The commands that mend an environment, for the interpreter that was examined and the installer that it has."""

from vllm_doctor.facts import Environment
from vllm_doctor.finding import Fix


def install(environment: Environment, *requirements: str, options: tuple[str, ...] = ()) -> tuple[str, ...]:
    """The argv that installs the requirements: the environment's own pip, or uv where it has none."""
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
        return (environment.python, "-m", "pip", "uninstall", "--yes", *names)
    return ("uv", "pip", "uninstall", "--python", environment.python, *names)


def reinstall(environment: Environment, *requirements: str) -> tuple[str, ...]:
    """The argv that puts the files of the distributions in place again and moves no other one."""
    return install(environment, *requirements, options=("--force-reinstall", "--no-deps"))


def repair(environment: Environment, title: str, *requirements: str) -> Fix:
    """The fix that installs the requirements."""
    return Fix(title=title, command=install(environment, *requirements))


def has_pip(environment: Environment) -> bool:
    """Whether the environment holds pip; uv makes environments without."""
    return environment.distribution("pip") is not None


# pip's spelling -> uv's, where they differ (`uv pip install --help`).
UV_OPTIONS = {"--force-reinstall": "--reinstall", "--ignore-installed": "--reinstall", "-U": "--upgrade"}
