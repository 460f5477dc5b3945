"""Builds the stub `libnvidia-ml.so.1` into a folder for LD_LIBRARY_PATH: `python tests/nvml_stub/build.py DIR`."""

import shutil
import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).with_name("nvml_stub.c")
LIBRARY = "libnvidia-ml.so.1"


def compiler() -> str | None:
    """The C compiler of this machine, None without one."""
    return shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")


def build(folder: Path, version: str | None = None) -> Path:
    """Build the library; returns the folder. With a version the file carries it, as the driver's own does."""
    program = compiler()
    if program is None:
        raise FileNotFoundError("no C compiler (cc, gcc or clang) on PATH")
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / (f"libnvidia-ml.so.{version}" if version else LIBRARY)
    subprocess.run(
        [program, "-O1", "-Wall", "-shared", "-fPIC", "-o", str(target), str(SOURCE)], check=True, timeout=60
    )
    if version:
        (folder / LIBRARY).symlink_to(target.name)
    return folder


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python tests/nvml_stub/build.py DIR")
    sys.stdout.write(f"{build(Path(sys.argv[1])).resolve()}\n")
