"""Chooses the interpreter to examine, and says why it is that one."""

import itertools
import os
import sys
from pathlib import Path

from msgspec import Struct

from vllm_doctor.errors import DoctorError
from vllm_doctor.facts import Launch, Unknown
from vllm_doctor.paths import is_file, is_folder, is_link, is_there
from vllm_doctor.probes.environment.shebang import script_interpreter, which

_HINT = "name the interpreter of the environment that vLLM runs in, or the folder of that environment"


class Chosen(Struct, frozen=True):
    """An interpreter (its links not followed: in a virtual environment the link's place is what counts)."""

    path: Path
    named_by: str


def choose(python: Path | None, launch: Launch | None) -> Chosen | Unknown:
    """The interpreter of `--python`, of the launch, of `vllm` on PATH, or the active one.

    Raises DoctorError where `--python` names nothing that could be an interpreter. The order is the contract's;
    a doctor in an environment of its own that has no vLLM takes `python3` on PATH, which is the user's.
    """
    if python is not None:
        return _asked_for(python)
    if launch is not None and launch.docker is not None:
        return Unknown(
            f"the launch runs in the container image {launch.docker.image}: its environment is not on this host"
        )
    search = _search_path(launch)
    return (
        (_of_launch(launch, search) if launch is not None else None)
        or _of_vllm(search)
        or _active()
        or _own()
        or _on_path(search)
        or Chosen(Path(sys.executable), "the doctor's own interpreter")
    )


def _asked_for(python: Path) -> Chosen | Unknown:
    """`--python`: a file, a command on PATH, or the folder of an environment.

    A link to nowhere is a broken environment, not a typo.
    """
    path = _expanded(python)
    if len(path.parts) == 1 and not is_there(path):
        path = which(path.name, os.environ.get("PATH", os.defpath)) or path
    if is_folder(path):
        names = [path / "bin" / name for name in ("python", "python3")] + [path / "python"]
        found = next((p for p in names if is_link(p) or is_file(p)), None)
        if found is None:
            raise DoctorError(f"--python {python}: a folder without bin/python", _HINT)
        path = found
    if is_link(path) and not is_there(path):
        return Unknown(f"{path} is a link to {os.path.realpath(path)}, which is not there: that Python was removed")
    if not is_file(path):
        raise DoctorError(f"--python {python}: not there, or not for this user to see", _HINT)
    if not os.access(path, os.X_OK):
        raise DoctorError(f"--python {python}: not an executable file", _HINT)
    if path.name == "vllm" and (behind := script_interpreter(path, os.environ.get("PATH", ""))) is not None:
        path = behind
    return Chosen(path.absolute(), "--python")


def _expanded(path: Path) -> Path:
    """The path with `~` resolved where it can be: not for a user that is not there, nor without a home."""
    try:
        return path.expanduser()
    except RuntimeError:
        return path


def _search_path(launch: Launch | None) -> str:
    own = os.environ.get("PATH", os.defpath)
    given = launch.environment.get("PATH") if launch is not None else None
    return given.replace("${PATH}", own).replace("$PATH", own) if given else own


def _of_launch(launch: Launch, search: str) -> Chosen | None:
    """The interpreter that the launch names by a path, by `uv run` or by `conda run`."""
    words = [w for w in launch.program if "=" not in w]
    names = [Path(w).name for w in words]
    if names[:2] == ["uv", "run"]:
        return _of_uv()
    if len(names) > 2 and names[1] == "run" and names[0] in ("conda", "mamba", "micromamba"):
        return _of_conda(words[2:])
    for word, name in zip(words, names, strict=True):
        if name == "vllm" and "/" in word:
            found = script_interpreter(_expanded(Path(word)), search)
            return Chosen(found, f"{word} of the launch") if found is not None else None
        if name.startswith("python"):
            found = _expanded(Path(word)).absolute() if "/" in word else which(word, search)
            return Chosen(found, f"{word} of the launch") if found is not None else None
    return None


def _of_uv() -> Chosen | None:
    """`uv run`: the project's environment, nearest upwards (uv: UV_PROJECT_ENVIRONMENT, else `.venv`)."""
    name = os.environ.get("UV_PROJECT_ENVIRONMENT", ".venv")
    here = Path.cwd()
    for folder in (here, *here.parents):
        if _interpreter_in(folder / name) is not None:
            return _environment(folder / name, f"uv run ({name})")
    return None


def _of_conda(words: list[str]) -> Chosen | None:
    """`conda run -n NAME` or `-p FOLDER`."""
    options = dict(itertools.pairwise(words))
    folder = options.get("-p") or options.get("--prefix")
    if folder is not None:
        return _environment(Path(folder), f"conda run -p {folder}")
    name = options.get("-n") or options.get("--name")
    root = Path(os.environ.get("CONDA_EXE", "/opt/conda/bin/conda")).parent.parent
    if name is None:
        return None
    candidates = (root / "envs" / name, _expanded(Path("~/.conda/envs")) / name)
    return next((c for f in candidates if (c := _environment(f, f"conda run -n {name}")) is not None), None)


def _of_vllm(search: str) -> Chosen | None:
    command = which("vllm", search)
    found = script_interpreter(command, search) if command is not None else None
    return Chosen(found, f"{command} on PATH") if found is not None else None


def _active() -> Chosen | None:
    for variable in ("VIRTUAL_ENV", "CONDA_PREFIX"):
        folder = os.environ.get(variable)
        if folder and (found := _environment(Path(folder), variable)) is not None:
            return found
    return None


def _own() -> Chosen | None:
    """The doctor's own environment, where vLLM is installed in it."""
    places = (p for p in sys.path if p.endswith(("site-packages", "dist-packages")))
    if any(is_file(Path(place, "vllm", "__init__.py")) for place in places):
        return Chosen(Path(sys.executable), "the doctor's own interpreter, which has vLLM")
    return None


def _on_path(search: str) -> Chosen | None:
    found = which("python3", search)
    return Chosen(found, "python3 on PATH") if found is not None else None


def _environment(folder: Path, named_by: str) -> Chosen | None:
    found = _interpreter_in(folder)
    return Chosen(found.absolute(), named_by) if found is not None else None


def _interpreter_in(folder: Path) -> Path | None:
    names = (folder / "bin" / "python", folder / "bin" / "python3")
    return next((p for p in names if is_link(p) or is_file(p)), None)


def first_folder(launch: Launch | None) -> str:
    """The folder that the launch puts in front of the search path: its own for `python -m`, none for a script.

    The `vllm` script puts its bin folder there, in which nothing is importable. Source: Python's command line
    documentation, and PYTHONSAFEPATH (3.11), which puts nothing there.
    """
    if launch is None or "-m" not in launch.program:
        return ""
    flags = [w for w in launch.program if w.startswith("-") and not w.startswith("--") and w != "-m"]
    if any("P" in f or "I" in f for f in flags):
        return ""
    if launch.environment.get("PYTHONSAFEPATH", os.environ.get("PYTHONSAFEPATH")):
        return ""
    try:
        return str(Path.cwd())
    except FileNotFoundError:
        return ""
