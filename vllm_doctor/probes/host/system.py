"""The system: its name, kernel, distribution and C library, without running anything."""

import os
import sys
from pathlib import Path

from vllm_doctor.facts import Unknown
from vllm_doctor.probes.host import files


def names() -> tuple[str, str, str]:
    """System, kernel release and machine, as `uname` says."""
    if hasattr(os, "uname"):
        uname = os.uname()
        return uname.sysname, uname.release, uname.machine
    import platform

    return platform.system(), platform.release(), platform.machine()


def distribution() -> str | Unknown:
    """The distribution's own name for itself (os-release(5))."""
    for path in ("/etc/os-release", "/usr/lib/os-release"):
        if (content := files.text(path, 16_384)) is not None:
            return pretty_name(content) or Unknown(f"{path} names no distribution")
    return Unknown("this system has no os-release file")


def pretty_name(content: str) -> str | None:
    """PRETTY_NAME of an os-release file, else its NAME."""
    values: dict[str, str] = {}
    for line in content.split("\n"):
        name, equals, value = line.strip().partition("=")
        if equals:
            values[name] = value.strip("\"'")[:200]
    return values.get("PRETTY_NAME") or values.get("NAME") or None


def libc() -> tuple[str | Unknown, str | Unknown]:
    """The C library's name and version; musl has no way to say its version but being run."""
    try:
        said = os.confstr("CS_GNU_LIBC_VERSION")
    except (AttributeError, OSError, ValueError):
        said = None
    if said and len(words := said.split()) == 2:
        return words[0], words[1]
    if sys.platform == "linux" and any(Path("/lib").glob("ld-musl-*.so.1")):
        return "musl", Unknown("musl tells its version only when it is run")
    reason = f"{sys.platform} does not say which C library it has"
    return Unknown(reason), Unknown(reason)
