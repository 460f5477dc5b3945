"""Finds the needed libraries and symbols of a compiled module where the loader would."""

from __future__ import annotations

import os

from .elf import Elf, ElfError, gnu_hash
from .files import names_in, read_bytes

# Installed by the driver, not by a wheel; whether they are there is a matter of the host's facts.
DRIVER_LIBRARIES = ("libcuda.so", "libnvidia-", "libnvcuvid.so", "libcudadebugger.so", "libnvoptix.so")

# What the interpreter itself brings in: it is loaded already, under whatever name.
_INTERPRETER = ("libpython",)

_SYSTEM_FOLDERS = (
    "/lib64",
    "/usr/lib64",
    "/lib",
    "/usr/lib",
    "/lib/x86_64-linux-gnu",
    "/usr/lib/x86_64-linux-gnu",
    "/lib/aarch64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/local/lib",
)
_LOADER_CACHE = "/etc/ld.so.cache"

# Names that only torch defines: C++ in c10, at and torch (functions, tables, type information), and the C functions of
# its stable interface (torch/csrc/inductor/aoti_torch/c/shim.h, torch/csrc/stable/c/shim.h).
_NAMESPACES = (b"3c10", b"2at", b"5torch", b"6caffe2")
_MANGLINGS = (
    b"_ZN",
    b"_ZNK",
    b"_ZNR",
    b"_ZNKR",
    b"_ZNO",
    b"_ZTVN",
    b"_ZTIN",
    b"_ZTSN",
    b"_ZTTN",
    b"_ZGVN",
    b"_ZThn16_N",
)
TORCH_SYMBOLS = (
    *(mangling + namespace for mangling in _MANGLINGS for namespace in _NAMESPACES),
    b"aoti_torch_",
    b"torch_call_dispatcher",
    b"torch_library_",
)


class Libraries:
    """The libraries of one environment; `torch` is the folder of the package, None where it is not installed."""

    def __init__(self, torch: str | None, site: list[str], prefixes: list[str], library_path: str) -> None:
        self._torch = os.path.join(torch, "lib") if torch is not None else None
        self._folders = [os.path.abspath(f) for f in library_path.split(":") if f]
        self._preloaded = [self._torch] if self._torch is not None else []
        for folder in site:
            vendor = os.path.join(folder, "nvidia")
            self._preloaded += (
                [os.path.join(vendor, n, "lib") for n in names_in(vendor)] if "nvidia" in names_in(folder) else []
            )
        self._prefixes = [os.path.join(p, "lib") for p in prefixes]
        self._cache: bytes | None = None
        self._defining: list[Elf] | None = None
        self._verdicts: dict[bytes, bool] = {}
        self.problem: str | None = None

    def missing(self, library: Elf) -> list[str]:
        """The needed libraries that are found nowhere, but for the driver's."""
        folders = _folders(library)
        return [
            n
            for n in library.needed
            if not n.startswith(DRIVER_LIBRARIES + _INTERPRETER) and not self._found(n, folders)
        ]

    def _found(self, name: str, folders: list[str]) -> bool:
        if "/" in name:
            return os.path.exists(name)
        # What torch has loaded already counts, whatever the search folders are: it preloads its wheels' libraries.
        if any(name in names_in(folder) for folder in self._preloaded):
            return True
        if any(os.path.exists(os.path.join(f, name)) for f in (*folders, *self._folders)):
            return True
        if b"\0" + name.encode() + b"\0" in self._loader_cache():
            return True
        return any(os.path.exists(os.path.join(f, name)) for f in (*_SYSTEM_FOLDERS, *self._prefixes))

    def _loader_cache(self) -> bytes:
        if self._cache is None:
            self._cache = read_bytes(_LOADER_CACHE, 16 * 2**20) or b""
        return self._cache

    def undefined(self, library: Elf) -> list[str]:
        """Torch's symbols that this library needs and no installed torch library defines.

        Raises ElfError where torch's libraries cannot be read: nothing is then known.
        """
        wanted = list(library.undefined(TORCH_SYMBOLS))
        if wanted and self._torch is None:
            raise ElfError("torch is not installed")
        missing = [name for name in wanted if not self._defined_by_torch(name)]
        if missing:
            own = self._own(library)
            missing = [name for name in missing if not any(o.defines(name, gnu_hash(name)) for o in own)]
            for elf in own:
                elf.close()
        return [name.decode("ascii", "replace") for name in missing]

    def _defined_by_torch(self, name: bytes) -> bool:
        verdict = self._verdicts.get(name)
        if verdict is None:
            defining = self._torch_libraries()
            if self.problem is not None:
                raise ElfError(self.problem)
            hashed = gnu_hash(name)
            verdict = self._verdicts[name] = any(library.defines(name, hashed) for library in defining)
        return verdict

    def _own(self, library: Elf) -> list[Elf]:
        """The libraries that the wheel brings itself and this one needs (found by its search folders)."""
        found = []
        for name in library.needed:
            for folder in _folders(library):
                path = os.path.join(folder, name)
                if not name.startswith(("libtorch", "libc10")) and "/site-packages/" in path and os.path.exists(path):
                    found += _opened(path)
                    break
        return found

    def _torch_libraries(self) -> list[Elf]:
        if self._defining is None:
            self._defining = []
            folder = self._torch or ""
            names = [n for n in names_in(folder) if n.startswith(("libtorch", "libc10", "libcaffe2")) and ".so" in n]
            # Most symbols are c10's; the small library is asked first.
            for name in sorted(names):
                self._open(os.path.join(folder, name))
            if not self._defining and self.problem is None:
                self.problem = f"no torch library in {folder}"
        return self._defining or []

    def _open(self, path: str) -> None:
        try:
            library = Elf(path)
        except ElfError as problem:
            self.problem = f"{path}: {problem}"
            return
        if library.can_look_up and self._defining is not None:
            self._defining.append(library)


def _folders(library: Elf) -> list[str]:
    """Its search folders, and its own: torchaudio loads the library beside its module by hand before."""
    return [*library.search_folders, os.path.dirname(library.path)]


def _opened(path: str) -> list[Elf]:
    try:
        return [Elf(path)]
    except ElfError:
        return []
