"""Which interpreter a script such as `bin/vllm` starts: its first line, or the trampoline that pip and uv write."""

import os
import shlex
from pathlib import Path

from vllm_doctor.paths import is_file

# A script that pip, uv or conda generates is under 1 KiB; the rest of a longer one does not matter.
_READ_BYTES = 4096


def script_interpreter(script: Path, search: str) -> Path | None:
    """The interpreter that runs the script; None where it is no Python script. `search` is the PATH for `env`."""
    head = _head(script)
    if not head.startswith("#!"):
        return None
    first, _, rest = head[2:].partition("\n")
    words = _words(first)
    program = words[0] if words else ""
    if Path(program).name in ("sh", "bash", "dash"):
        return _trampoline(rest, script)
    if Path(program).name == "env":
        named = [w for w in words[1:] if not w.startswith("-") and "=" not in w]
        return which(named[0], search) if named and _is_python(named[0]) else None
    return Path(program) if _is_python(program) else None


def which(name: str, search: str) -> Path | None:
    """The executable file of that name in a PATH, links not followed; pyenv's shims are seen through."""
    for folder in search.split(os.pathsep):
        path = Path(folder or ".", name)
        if is_file(path) and os.access(path, os.X_OK):
            return _behind_shim(path) or path.absolute()
    return None


def _head(script: Path) -> str:
    try:
        if not is_file(script):
            return ""
        with script.open("rb") as file:
            return file.read(_READ_BYTES).decode("utf-8", "surrogateescape")
    except OSError:
        return ""


def _words(line: str) -> list[str]:
    try:
        return shlex.split(line)
    except ValueError:
        return []


def _is_python(program: str) -> bool:
    return Path(program).name.startswith(("python", "pypy"))


def _trampoline(body: str, script: Path) -> Path | None:
    """`'''exec' "/long path/python" "$0" "$@"`: a path too long, or with a space, for a first line.

    Sources: pip's distlib scripts.py (`_build_shebang`), uv's crates/uv-install-wheel (`format_shebang`); uv's
    relocatable scripts name `"$(dirname -- "$(realpath -- "$0")")"/'python'`.
    """
    line = body.split("\n", 1)[0].strip()
    if not line.startswith(("'''exec'", '"exec"', "exec ")):
        return None
    if "dirname" in line:
        name = line.partition(')"/')[2].partition(" ")[0].strip("'\"")
        return script.resolve().parent / name if _is_python(name) else None
    words = _words(line.removeprefix("''"))
    return Path(words[1]) if len(words) > 1 and _is_python(words[1]) else None


def _behind_shim(path: Path) -> Path | None:
    """What pyenv would run for a shim, by the same rules (pyenv-version-name: variable, local file, global file)."""
    if path.parent.name != "shims" or "pyenv" not in _head(path):
        return None
    root = path.parent.parent
    for version in _pyenv_versions(root):
        target = root / "versions" / version / "bin" / path.name
        if is_file(target):
            return target
    return None


def _pyenv_versions(root: Path) -> list[str]:
    if named := os.environ.get("PYENV_VERSION"):
        return named.split(":")
    here = Path.cwd()
    for file in (*(folder / ".python-version" for folder in (here, *here.parents)), root / "version"):
        words = [line.strip() for line in _text(file).splitlines() if line.strip() and not line.startswith("#")]
        if words:
            return _expanded(words, root)
    return []


def _expanded(versions: list[str], root: Path) -> list[str]:
    """A prefix such as `3.11` stands for the newest 3.11.x that is installed."""
    try:
        there = [p.name for p in (root / "versions").iterdir()]
    except OSError:
        return versions
    found = []
    for version in versions:
        longer = [n for n in there if n.startswith(version + ".") and n[len(version) + 1 :].isdecimal()]
        found.append(
            version if version in there or not longer else max(longer, key=lambda n: int(n.rpartition(".")[2]))
        )
    return found


def _text(file: Path) -> str:
    try:
        with file.open("rb") as opened:
            return opened.read(_READ_BYTES).decode("utf-8", "replace")
    except OSError:
        return ""
