"""Collects everything and prints it as one JSON document on standard output."""

from __future__ import annotations

import os
import sys

from .extensions import companions, judged, torch_libraries, vllm_extensions
from .files import names_in
from .libraries import Libraries
from .metadata import Installed, distributions, required_names
from .modules import Modules
from .output import document
from .packages import torch_build, vllm_build
from .paths import Layout, layout
from .records import missing_files
from .shadows import shadows

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .elf import Elf

# Looked through for missing files whether or not vLLM requires them; what vLLM requires is looked through as well.
_ALWAYS = ("numpy", "ray", "boto3", "botocore", "s3transfer", "urllib3", "requests", "transformers", "tokenizers")
_FAMILIES = (
    "vllm",
    "torch",
    "flash-attn",
    "flash-attention",
    "flashinfer",
    "xformers",
    "triton",
    "huggingface-hub",
    "nvidia-",
)
_COMMANDS = ("vllm", "ray", "torchrun", "hf", "pip", "uv")


def main(first: str, python_path: str, library_path: str, standard: list[str]) -> None:
    """Inspect the environment of this interpreter and print the document.

    `first` is the folder that the launch puts in front of the search path, or empty; `python_path` and `library_path`
    are its PYTHONPATH and LD_LIBRARY_PATH; `standard` the standard library's folders.
    """
    text = document(inspection(layout(first, python_path, standard), library_path))
    sys.stdout.write(text)
    sys.stdout.flush()


def inspection(found: Layout, library_path: str) -> dict[str, object]:
    """Everything that is told of the environment."""
    installed, leftovers, complete = distributions(found.installed)
    _find_missing(installed)
    modules = Modules(found.finders)
    first = {item.name: item for item in reversed(installed)}
    torch_folder = modules.find("torch", found.installed)
    libraries = Libraries(torch_folder, found.site, [found.prefix, found.base_prefix], library_path)
    torch = torch_build(torch_folder, first.get("torch")) if torch_folder is not None else None
    vllm_folder = modules.find_installed("vllm", found.installed) or _remains(first.get("vllm"))
    extensions, vllm_files = _extensions(vllm_folder, torch_folder, found, libraries)
    vllm = vllm_build(vllm_folder, installed, torch, vllm_files) if vllm_folder is not None else None
    return {
        "python": sys.executable,
        "python_version": ".".join(map(str, sys.version_info[:3])),
        "implementation": sys.implementation.name,
        "prefix": found.prefix,
        "kind": found.kind,
        "markers": markers(),
        "openssl_version": _openssl(),
        "search_path": found.search_path[:500],
        "commands": _commands(found.prefix),
        "distributions": [item.fields() for item in installed],
        "torch": torch,
        "vllm": vllm,
        "extensions": extensions,
        "shadows": shadows(found, modules, installed),
        "complete": complete,
        "leftovers": leftovers,
        "other_site_packages": _other_site_packages(found),
        "externally_managed": _externally_managed(found),
    }


def _find_missing(installed: list[Installed]) -> None:
    """Look for the missing files of what vLLM's import can meet: its requirements, theirs, and the usual suspects."""
    by_name: dict[str, list[Installed]] = {}
    for item in installed:
        by_name.setdefault(item.name, []).append(item)
    wanted = [n for n in by_name if n in _ALWAYS or n.startswith(_FAMILIES)]
    seen = set(wanted)
    while wanted:
        for item in by_name.get(wanted.pop(), ()):
            shallow = not item.name.startswith(("vllm", "torch"))
            item.missing, item.missing_count = missing_files(item.location, item.record, shallow)
            new = [n for n in required_names(item) if n not in seen]
            seen.update(new)
            wanted += new


def _remains(item: Installed | None) -> str | None:
    """The folder of a vLLM that lost its `__init__.py`: installed, but not to be imported."""
    folder = os.path.join(item.location, "vllm") if item is not None else ""
    return folder if folder and os.path.isdir(folder) else None


def _extensions(
    vllm: str | None, torch: str | None, found: Layout, libraries: Libraries
) -> tuple[list[dict[str, object]] | None, list[Elf]]:
    """Every compiled module judged, and those of vLLM that could be read; None where the format is another one."""
    if sys.platform != "linux" or sys.byteorder != "little" or sys.maxsize < 2**32:
        return None, []
    judgements: list[dict[str, object]] = []
    files = []
    for path in vllm_extensions(vllm) if vllm is not None else ():
        fields, library = judged("vllm", path, libraries, with_symbols=True)
        judgements.append(fields)
        if library is not None:
            files.append(library)
    judgements += [judged(owner, path, libraries, with_symbols=True)[0] for owner, path in companions(found.site)]
    for path in torch_libraries(torch) if torch is not None else ():
        judgements.append(judged("torch", path, libraries, with_symbols=False)[0])
    return judgements, files


def _externally_managed(found: Layout) -> bool:
    """Whether pip would refuse (PEP 668: a file in the standard library's folder, virtual environments excepted)."""
    if found.kind in ("venv", "uv"):
        return False
    return os.path.isfile(os.path.join(os.path.dirname(os.__file__), "EXTERNALLY-MANAGED"))


def _other_site_packages(found: Layout) -> list[str]:
    if found.kind not in ("venv", "uv"):
        return []
    library = os.path.join(found.prefix, "lib")
    folders = [os.path.join(library, name, "site-packages") for name in sorted(names_in(library)) if "python" in name]
    return [f for f in folders if f not in found.site and os.path.isdir(f)][:20]


def _commands(prefix: str) -> dict[str, str]:
    folders = dict.fromkeys((os.path.dirname(os.path.abspath(sys.executable)), os.path.join(prefix, "bin")))
    commands: dict[str, str] = {}
    for folder in folders:
        for name in _COMMANDS:
            path = os.path.join(folder, name)
            if name not in commands and os.path.isfile(path):
                commands[name] = path
    return commands


def _openssl() -> str | None:
    try:
        import _ssl
    except ImportError:
        return None
    version: str = _ssl.OPENSSL_VERSION
    return version


def markers() -> dict[str, str]:
    """The values of PEP 508's markers, as `packaging.markers.default_environment` has them."""
    system = os.uname()
    version = sys.implementation.version
    implementation = ".".join(map(str, version[:3]))
    if version.releaselevel != "final":
        implementation += version.releaselevel[0] + str(version.serial)
    return {
        "implementation_name": sys.implementation.name,
        "implementation_version": implementation,
        "os_name": os.name,
        "platform_machine": system.machine,
        "platform_python_implementation": {"cpython": "CPython", "pypy": "PyPy"}.get(sys.implementation.name, ""),
        "platform_release": system.release,
        "platform_system": system.sysname,
        "platform_version": system.version,
        "python_full_version": sys.version.split(None, 1)[0].rstrip("+"),
        "python_version": ".".join(map(str, sys.version_info[:2])),
        "sys_platform": sys.platform,
    }
