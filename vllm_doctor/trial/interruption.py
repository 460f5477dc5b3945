"""Ctrl-C, SIGTERM and a closed terminal: they end a trial in order, and a second one hastens that end."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT") if hasattr(signal, name))

_Handler = Callable[[int, FrameType | None], object]


@contextmanager
def interruptible() -> Iterator[None]:
    """Within it, each of these signals raises KeyboardInterrupt, as Ctrl-C does."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    with _handled(interrupt):
        yield


@contextmanager
def shielded(hurry: Callable[[], None]) -> Iterator[None]:
    """Within it these signals call `hurry` and interrupt nothing; the interruption follows at the end."""
    came: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        came.append(number)
        hurry()

    with _handled(note):
        yield
    if came:
        raise KeyboardInterrupt


@contextmanager
def _handled(handler: _Handler) -> Iterator[None]:
    """That handler for the signals that are not ignored (nohup ignores SIGHUP, and that is meant)."""
    if threading.current_thread() is not threading.main_thread():
        # Only the main thread receives signals: elsewhere there is nothing to guard against.
        yield
        return
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    before = {number: old for number, old in before.items() if old is not signal.SIG_IGN and old is not None}
    for number in before:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
