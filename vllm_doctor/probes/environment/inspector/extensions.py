"""Holds the compiled modules of vLLM and its companions against the libraries that they will find."""

from __future__ import annotations

import os

from .elf import Elf, ElfError
from .files import names_in
from .libraries import Libraries

SAMPLE = 20
MAXIMUM_EXTENSIONS = 200

# Owner, folder under site-packages, beginnings of the file names. An empty folder: site-packages itself. What the owner
# can do without is left out: torchvision's image readers, torchaudio's sox.
_PLACES = (
    ("flash_attn", "", ("flash_attn_2_cuda", "flash_attn_3", "flash_attn_cuda")),
    ("flash_attn", "flash_attn_3", ("_C",)),
    ("flash_attn", "flashattn_hopper", ("_C",)),
    ("torchvision", "torchvision", ("_C.",)),
    ("torchaudio", "torchaudio/lib", ("_torchaudio.", "libtorchaudio.")),
    ("xformers", "xformers", ("_C",)),
    ("deep_gemm", "deep_gemm", ("_C",)),
    ("deep_ep", "", ("deep_ep_cpp",)),
)
# ELF's e_machine by the kernel's name for it (elf.h).
_MACHINES = {"x86_64": (62,), "aarch64": (183,), "arm64": (183,), "ppc64le": (21,), "riscv64": (243,)}

_VLLM_FOLDERS = ("", "vllm_flash_attn", "third_party/deep_gemm", "third_party/flashmla")


def vllm_extensions(folder: str) -> list[str]:
    """The compiled modules of the package `vllm`."""
    found = []
    for part in _VLLM_FOLDERS:
        place = os.path.join(folder, part) if part else folder
        found += [os.path.join(place, n) for n in sorted(names_in(place)) if n.endswith(".so")]
    return found[:MAXIMUM_EXTENSIONS]


def companions(site: list[str]) -> list[tuple[str, str]]:
    """The compiled modules of the companions, with their owner."""
    found = []
    for location in site:
        there = names_in(location)
        for owner, part, beginnings in _PLACES:
            if not part or part.split("/", 1)[0] in there:
                place = os.path.join(location, part) if part else location
                names = [n for n in sorted(names_in(place)) if n.endswith(".so") and n.startswith(beginnings)]
                found += [(owner, os.path.join(place, n)) for n in names]
    return found[:MAXIMUM_EXTENSIONS]


def torch_libraries(folder: str) -> list[str]:
    """Torch's own libraries and its Python module, which are asked for the libraries that they need."""
    place = os.path.join(folder, "lib")
    names = [n for n in sorted(names_in(place)) if n.startswith(("libtorch", "libc10")) and n.endswith(".so")]
    modules = [n for n in sorted(names_in(folder)) if n.startswith("_C.") and n.endswith(".so")]
    return [os.path.join(place, n) for n in names if "test" not in n] + [os.path.join(folder, n) for n in modules]


def judged(owner: str, path: str, libraries: Libraries, with_symbols: bool) -> tuple[dict[str, object], Elf | None]:
    """One compiled module, and its file (closed) where it could be read; `with_symbols` also looks torch's up."""
    fields: dict[str, object] = {
        "owner": owner,
        "path": path,
        "needed_missing": [],
        "undefined": [],
        "undefined_count": 0,
    }
    try:
        with Elf(path) as library:
            if library.machine not in _MACHINES.get(os.uname().machine, (library.machine,)):
                raise ElfError(f"built for another processor than this {os.uname().machine}")
            fields["needed_missing"] = libraries.missing(library)
            if with_symbols:
                undefined = sorted(libraries.undefined(library))
                fields["undefined"] = undefined[:SAMPLE]
                fields["undefined_count"] = len(undefined)
            return fields, library
    except ElfError as problem:
        fields["problem"] = str(problem)
    return fields, None
