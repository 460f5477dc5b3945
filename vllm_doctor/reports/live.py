"""The live lines while probes and checks run: on a terminal, one line each, gone when the report comes."""

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TextIO

from msgspec import Struct

from vllm_doctor.reports.layout import encodable

Progress = Callable[[str, str], None]

STARTED = "started"

FRAMES = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
ASCII_FRAMES = "|/-\\"
TICK_SECONDS = 0.1

# How a step that ended is shown; any other word gets a dash.
SIGNS = {"done": ("✓", "32"), "unknown": ("?", "33"), "failed": ("✗", "31")}


class _Step(Struct):
    name: str
    started: float
    state: str = STARTED
    seconds: float = 0.0
    detail: str = ""


class Live:
    """Paints the steps on a terminal until the context ends; elsewhere it does nothing.

    Safe to be told from several threads. The painting thread wakes ten times a second and never keeps the process up.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._enabled = _is_terminal(self._stream)
        self._colour = not os.environ.get("NO_COLOR")
        self._frames = FRAMES if encodable("⠋", self._stream.encoding or "ascii") == "⠋" else ASCII_FRAMES
        self._steps: dict[str, _Step] = {}
        self._painted = 0
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> "Live":
        if self._enabled:
            self._thread = threading.Thread(target=self._tick, name="live", daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
            with self._lock:
                self._erase()

    def progress(self, name: str, state: str) -> None:
        """Tell that a step started, or what became of it ("done", "unknown", "failed", or any word).

        "started 3/17" says how far a step is that goes on.
        """
        word, _, detail = state.partition(" ")
        with self._lock:
            now = time.monotonic()
            if name not in self._steps or (state == STARTED and self._steps[name].state != STARTED):
                self._steps[name] = _Step(name, now)
            step = self._steps[name]
            step.state, step.seconds = (word if word == STARTED else state), now - step.started
            step.detail = detail if word == STARTED else ""

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """A step that starts here and is done, or failed by an exception, when the block ends."""
        self.progress(name, STARTED)
        try:
            yield
        except BaseException:
            self.progress(name, "failed")
            raise
        self.progress(name, "done")

    def _tick(self) -> None:
        while not self._ended.wait(TICK_SECONDS):
            with self._lock:
                self._paint()

    def _paint(self) -> None:
        columns, rows = _size(self._stream)
        # What scrolled off the screen cannot be painted over: only the last steps that fit are shown.
        shown = list(self._steps.values())[-max(1, rows - 1) :]
        now = time.monotonic()
        lines = [self._row(step, now, columns) for step in shown]
        up = f"\x1b[{self._painted}A\r\x1b[J" if self._painted else "\r\x1b[J"
        self._write(up + "".join(line + "\n" for line in lines))
        self._painted = len(lines)

    def _row(self, step: _Step, now: float, columns: int) -> str:
        if step.state == STARTED:
            sign, colour = self._frames[int(now / TICK_SECONDS) % len(self._frames)], "36"
            seconds = now - step.started
        else:
            sign, colour = SIGNS.get(step.state, ("-", "0"))
            seconds = step.seconds
        name = f"{step.name} {step.detail}" if step.detail else step.name
        return self._coloured(sign, colour) + f" {name} {seconds:.1f} s"[: max(1, columns - 2)]

    def _coloured(self, sign: str, colour: str) -> str:
        sign = encodable(sign, self._stream.encoding or "ascii")
        return f"\x1b[{colour}m{sign}\x1b[0m" if self._colour else sign

    def _erase(self) -> None:
        if self._painted:
            self._write(f"\x1b[{self._painted}A\r\x1b[J")
            self._painted = 0

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError):
            # The terminal is gone: nobody is watching any more.
            self._ended.set()


@contextmanager
def show(stream: TextIO | None = None) -> Iterator[Progress]:
    """The live display as the callback that the collector takes."""
    with Live(stream) as live:
        yield live.progress


def _is_terminal(stream: TextIO) -> bool:
    # The old Windows console prints escape sequences instead of obeying them.
    return stream.isatty() and os.environ.get("TERM") != "dumb" and os.name != "nt"


def _size(stream: TextIO) -> tuple[int, int]:
    try:
        size = os.get_terminal_size(stream.fileno())
    except (OSError, ValueError):
        return 80, 24
    return size.columns or 80, size.lines or 24
