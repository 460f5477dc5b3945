"""The live lines, on a real pseudo-terminal and away from one."""

import io
import os
import pty
import re
import sys
import threading
import time

import pytest

from vllm_doctor.reports.live import Live, show

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals are POSIX")


class Terminal:
    """A pseudo-terminal whose output is read by a thread."""

    def __init__(self) -> None:
        self._master, slave = pty.openpty()
        self.stream = os.fdopen(slave, "w", encoding="utf-8")
        self._chunks: list[bytes] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        while True:
            try:
                chunk = os.read(self._master, 65536)
            except OSError:
                return
            if not chunk:
                return
            self._chunks.append(chunk)

    def close(self) -> str:
        self.stream.close()
        self._reader.join(5)
        os.close(self._master)
        return b"".join(self._chunks).decode()


def test_steps_are_shown_and_then_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    terminal = Terminal()
    with show(terminal.stream) as progress:
        progress("host", "started")
        progress("GPUs", "started")
        time.sleep(0.25)
        progress("host", "done")
        progress("GPUs", "unknown")
        time.sleep(0.25)
    output = terminal.close()
    assert re.search(r"\x1b\[36m[^ ]\x1b\[0m host 0\.\d s", output)
    assert re.search(r"\x1b\[32m✓\x1b\[0m host 0\.\d s", output)
    assert re.search(r"\x1b\[33m\?\x1b\[0m GPUs 0\.\d s", output)
    # At the end the two lines are taken back.
    assert output.endswith("\x1b[2A\r\x1b[J")


def test_a_step_that_goes_on_says_how_far_it_is_and_keeps_its_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    terminal = Terminal()
    with show(terminal.stream) as progress:
        progress("load", "started")
        time.sleep(0.25)
        progress("load", "started 3/17")
        time.sleep(0.25)
        progress("load", "done")
        time.sleep(0.15)
    output = terminal.close()
    assert re.search(r"[^ ] load 3/17 0\.[3-9] s", output)
    assert re.search(r"✓ load 0\.[5-9] s", output)


def test_a_step_that_raises_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    terminal = Terminal()
    with Live(terminal.stream) as live:
        with pytest.raises(KeyError), live.step("model"):
            raise KeyError
        with live.step("servers"):
            time.sleep(0.15)
        time.sleep(0.15)
    output = terminal.close()
    assert "✗ model" in output
    assert "✓ servers" in output
    assert "\x1b[3" not in output


@pytest.mark.parametrize("stream", [io.StringIO(), None])
def test_nothing_is_shown_away_from_a_terminal(stream: io.StringIO | None, capfd: pytest.CaptureFixture[str]) -> None:
    with show(stream) as progress:
        progress("host", "started")
        time.sleep(0.15)
        progress("host", "done")
    assert (stream.getvalue() if stream else "") == ""
    assert capfd.readouterr() == ("", "")


def test_a_dumb_terminal_gets_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    terminal = Terminal()
    with show(terminal.stream) as progress:
        progress("host", "started")
        time.sleep(0.15)
    assert terminal.close() == ""


def test_a_terminal_that_goes_away_breaks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    terminal = Terminal()
    with show(terminal.stream) as progress:
        progress("host", "started")
        time.sleep(0.15)
        terminal.close()
        time.sleep(0.15)
        progress("host", "done")
    assert terminal.stream.closed
