#!/usr/bin/env python3
"""Draws what a terminal shows of one real run as an SVG, and writes the same as text beside it.

make_picture.py FILE.svg FOLDER VLLM_DOCTOR_ARGUMENTS...

The command runs in FOLDER, so that its paths can be short, and nothing of what it prints is edited. docs/run.svg shows
a vLLM 0.32.0 for CPUs in /srv/llm/venv and a model of which one shard is missing in /srv/llm/models/llama:

make_picture.py docs/run.svg /srv/llm run --python venv -- VLLM_CPU_KVCACHE_SPACE=2 vllm serve models/llama \
    --max-model-len 32k --swap-space 4 --gpu-memory-utilisation 0.8
"""

import fcntl
import os
import pty
import re
import shlex
import struct
import subprocess
import sys
import termios
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

COLUMNS = 100
ROWS = 50


def printed(folder: Path, arguments: list[str]) -> str:
    """What the command prints to a terminal of that size, colours and all."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    command = [str(Path(sys.executable).with_name("vllm-doctor")), *arguments]
    environment = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS", "LINES")}
    environment["TERM"] = "xterm-256color"
    child = subprocess.Popen(command, cwd=folder, env=environment, stdout=theirs, stderr=subprocess.DEVNULL)
    os.close(theirs)
    output = b"".join(iter(lambda: chunk(ours), b""))
    child.wait()
    return output.decode().replace("\r\n", "\n")


def chunk(terminal: int) -> bytes:
    """The next bytes; none where the other side is closed, which Linux tells by an error."""
    try:
        return os.read(terminal, 65536)
    except OSError:
        return b""


def drawn(text: Text) -> str:
    """The SVG, without the fonts that rich would have fetched from elsewhere."""
    with Path(os.devnull).open("w") as nowhere:
        console = Console(record=True, width=COLUMNS, file=nowhere, force_terminal=True, color_system="truecolor")
        console.print(text)
    svg = console.export_svg(title="vllm-doctor", theme=MONOKAI)
    return re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL).replace("Fira Code", "ui-monospace")


def main() -> None:
    """Run, draw, write."""
    picture, folder, arguments = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:]
    text = Text.from_ansi(f"$ {shlex.join(['vllm-doctor', *arguments])}\n{printed(folder, arguments)}".rstrip())
    picture.write_text(drawn(text), encoding="utf-8")
    lines = [line.rstrip() for line in text.plain.splitlines()]
    picture.with_suffix(".txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
