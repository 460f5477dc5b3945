"""Works out the search path as `site` would, without running a .pth file or a sitecustomize."""

from __future__ import annotations

import os
import sys

from .files import listed, names_in, read_text

MAXIMUM_PATH_FILES = 500
MAXIMUM_PATH_LINES = 2000


class Layout:
    """Where an environment keeps things; `first` and `python_path` come from the launch."""

    def __init__(self, prefix: str, base_prefix: str, kind: str) -> None:
        self.prefix = prefix
        self.base_prefix = base_prefix
        self.kind = kind
        self.first: list[str] = []
        self.python_path: list[str] = []
        self.standard: list[str] = []
        self.site: list[str] = []
        self.finders: list[str] = []

    @property
    def installed(self) -> list[str]:
        """The folders in which packages are looked for, but for the launch's own folder."""
        return self.python_path + self.site

    @property
    def search_path(self) -> list[str]:
        """`sys.path` as a program of this environment would see it."""
        return self.first + self.python_path + self.standard + self.site


def layout(first: str, python_path: str, standard: list[str]) -> Layout:
    """The layout of the interpreter that runs this; `first` is the folder that the launch puts in front, or empty."""
    base_prefix = sys.base_prefix
    prefix, settings = _virtual_environment()
    found = Layout(prefix or sys.prefix, base_prefix, "system")
    if prefix is not None:
        found.kind = "uv" if "uv" in settings else "venv"
    elif "conda-meta" in names_in(sys.prefix):
        found.kind = "conda"
    isolated = prefix is not None and settings.get("include-system-site-packages", "").lower() != "true"
    found.first = [first] if first else []
    found.python_path = [os.path.abspath(p) for p in python_path.split(os.pathsep) if p]
    found.standard = standard
    for folder in _site_folders(found, isolated):
        _add_site(folder, found)
    return found


def _virtual_environment() -> tuple[str | None, dict[str, str]]:
    """The folder of pyvenv.cfg and its settings (site.venv: beside the executable or one folder up)."""
    binaries = os.path.dirname(os.path.abspath(sys.executable)) if sys.executable else ""
    for folder in (binaries, os.path.dirname(binaries)):
        text = read_text(os.path.join(folder, "pyvenv.cfg")) if folder else None
        if text is not None:
            pairs = (line.partition("=") for line in text.splitlines() if "=" in line)
            return folder, {key.strip().lower(): value.strip() for key, _, value in pairs}
    return None, {}


def _site_folders(found: Layout, isolated: bool) -> list[str]:
    """The site folders in the order of site.main: the virtual environment's, the user's, the base's.

    `site` itself is asked, because Debian, Fedora and conda patch it; under -S importing it runs nothing.
    """
    import site

    # Debian's site looks at these two to tell a virtual environment from the system.
    sys.prefix = sys.exec_prefix = found.prefix
    folders = site.getsitepackages([found.prefix]) if found.kind in ("venv", "uv") else []
    if not isolated:
        if not os.environ.get("PYTHONNOUSERSITE") and os.getuid() == os.geteuid():
            folders.append(site.getusersitepackages())
        folders += site.getsitepackages([found.base_prefix])
    return [f for f in dict.fromkeys(folders) if os.path.isdir(f)]


def _add_site(folder: str, found: Layout) -> None:
    """Add a site folder and the folders that its .pth files name; their `import` lines are not run."""
    if folder in found.site:
        return
    found.site.append(folder)
    names = sorted(n for n in listed(folder) if n.endswith(".pth") and not n.startswith("."))
    for name in names[:MAXIMUM_PATH_FILES]:
        text = read_text(os.path.join(folder, name)) or ""
        for line in text.lstrip("\ufeff").splitlines()[:MAXIMUM_PATH_LINES]:
            _add_line(folder, line.rstrip(), found)


def _add_line(folder: str, line: str, found: Layout) -> None:
    if not line.strip() or line.startswith("#"):
        return
    if line.startswith(("import ", "import\t")):
        # setuptools' editable installs: `import __editable___NAME_finder; ...install()`
        module = line[7:].split(";", 1)[0].strip()
        if module.startswith("__editable___") and module.isidentifier():
            found.finders.append(os.path.join(folder, module + ".py"))
        return
    path = os.path.abspath(os.path.join(folder, line))
    if path not in found.site and "\0" not in path and os.path.isdir(path):
        found.site.append(path)
