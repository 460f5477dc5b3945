"""Reads what torch and vLLM say of themselves in their version files, without running them."""

from __future__ import annotations

import os

from .files import names_in, read_text
from .metadata import Installed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .elf import Elf

_PLATFORMS = ("cpu", "rocm", "xpu", "tpu", "cuda")


def assignments(text: str) -> dict[str, str | None]:
    """`NAME = 'value'`, `NAME: type = None`, `NAME = OTHER = 'value'`, each a line; nothing is evaluated."""
    found: dict[str, str | None] = {}
    for line in text.splitlines()[:2000]:
        target, equals, value = line.rpartition(" = ")
        if not equals or not (target[:1].isalpha() or target[:1] == "_"):
            continue
        value = value.split(" #", 1)[0].strip()
        for name in target.split(" = "):
            if value == "None":
                found[name.split(":", 1)[0].strip()] = None
            elif len(value) >= 2 and value[0] in "'\"" and value[-1] == value[0]:
                found[name.split(":", 1)[0].strip()] = value[1:-1][:200]
    return found


def torch_build(folder: str, installed: Installed | None) -> dict[str, object] | None:
    """What `torch/version.py` says; where it is gone, what the metadata says; None where neither tells a version."""
    values = assignments(read_text(os.path.join(folder, "version.py")) or "")
    version = values.get("__version__") or (installed.version if installed is not None else None)
    if version is None:
        return None
    local = local_platform(version)
    # ROCm and Intel builds have `cuda = None` and an entry of their own.
    named = "rocm" if values.get("hip") else "xpu" if values.get("xpu") else "cuda" if values.get("cuda") else None
    return {
        "version": version,
        "platform": named
        or local
        or ("cuda" if "libtorch_cuda.so" in names_in(os.path.join(folder, "lib")) else "cpu"),
        "cuda": values.get("cuda") if named == "cuda" else None,
        "path": folder,
    }


def local_platform(version: str | None) -> str | None:
    """The platform in the local part of a version: `+cpu`, `+cu129`, `+rocm641`, `+gabc123.xpu`."""
    for part in (version or "").partition("+")[2].lower().replace("_", ".").replace("-", ".").split("."):
        for platform in _PLATFORMS:
            if part.startswith(platform):
                return platform
        if part.startswith("cu") and part[2:].isdecimal():
            return "cuda"
    return None


def vllm_distribution(installed: list[Installed], folder: str) -> Installed | None:
    """The distribution that the package `vllm` belongs to: the one of that name, else one whose RECORD holds it."""
    for item in installed:
        if item.name == "vllm":
            return item
    location = os.path.dirname(folder)
    for item in installed:
        if item.name.startswith("vllm-") and item.location == location:
            record = read_text(item.record, 8 * 2**20) or ""
            if record.startswith("vllm/__init__.py,") or "\nvllm/__init__.py," in record:
                return item
    return None


def vllm_build(
    folder: str, installed: list[Installed], torch: dict[str, object] | None, libraries: list[Elf]
) -> dict[str, object]:
    """The package `vllm` in that folder; `libraries` are its compiled modules that could be read."""
    item = vllm_distribution(installed, folder)
    metadata_version = next((i.version for i in installed if i.name == "vllm"), None)
    package_version = _package_version(folder)
    needed = {name for library in libraries for name in library.needed}
    platform = (
        local_platform(metadata_version)
        or local_platform(package_version)
        or local_platform(item.version if item is not None else None)
        or _named_platform(item)
        or _linked_platform(needed)
        or (torch["platform"] if torch is not None else None)
    )
    return {
        "path": folder,
        "distribution": item.name if item is not None else None,
        "metadata_version": metadata_version,
        "package_version": package_version,
        "platform": platform,
        "extensions": sorted(n for n in names_in(folder) if n.endswith(".so")),
        "editable": item is not None and (item.editable or item.location != os.path.dirname(folder)),
        "cuda": next(
            (n[len("libcudart.so.") :].split(".")[0] for n in sorted(needed) if n.startswith("libcudart.so.")), None
        ),
    }


def _package_version(folder: str) -> str | None:
    """`_version.py` is written by setuptools-scm (from 0.6.2); before, `version.py` held the version itself."""
    for name in ("_version.py", "version.py"):
        values = assignments(read_text(os.path.join(folder, name)) or "")
        if version := values.get("__version__"):
            return version
    return None


def _named_platform(item: Installed | None) -> str | None:
    words = item.name.split("-")[1:] if item is not None else []
    return next((p for p in _PLATFORMS if p in words), None)


def _linked_platform(needed: set[str]) -> str | None:
    """What the compiled modules are linked to: each platform's runtime is a library of its own."""
    for prefix, platform in (
        ("libcudart.so", "cuda"),
        ("libc10_cuda.so", "cuda"),
        ("libtorch_cuda.so", "cuda"),
        ("libamdhip64.so", "rocm"),
        ("libc10_hip.so", "rocm"),
        ("libtorch_hip.so", "rocm"),
        ("libsycl.so", "xpu"),
        ("libc10_xpu.so", "xpu"),
        ("libnuma.so", "cpu"),
    ):
        if any(name.startswith(prefix) for name in needed):
            return platform
    return None
