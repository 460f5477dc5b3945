"""However the doctor ends, the server ends with it: interrupted, terminated, hung up, killed, out of a terminal."""

import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.trial.jobs import free_port, living, noted, segments, until
from vllm_doctor.trial.guardian.main import TICKS_BETWEEN_NOTES

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the process table is read from /proc")

# The acts of a server until it stands in that stage, and the line of the doctor that tells of it.
STAGES = {
    "import": (("stay",), "stage import "),
    "init": (("start", "init", "stay"), "stage init "),
    "load": (("start", "init", "load", "until=seen", "shard", "stay"), "stage load 1/2"),
    "profile": (("start", "init", "load", "profile", "stay"), "stage profile "),
    "kv": (("start", "init", "profile", "kv", "stay"), "stage kv "),
    "capture": (("start", "kv", "capture", "stay"), "stage capture "),
    "serving": (("start", "kv", "capture", "serve", "stay"), "Ready"),
}
TREE = ("deaf", "child", "session", "orphan", "segment", "socket")


class Doctor:
    """A doctor in small as a process: what it has said, and its job."""

    def __init__(self, notes: Path, *acts: str, **given: object) -> None:
        environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'checks'}"}
        argv = [sys.executable, "-m", "tests.trial.driver", str(notes), str(free_port()), *acts]
        self.process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, cwd=ROOT, bufsize=0, **given
        )  # type: ignore[call-overload]
        self._said = b""
        _, leader, _, folder = self.heard("job ").split()
        self.leader, self.folder = int(leader), Path(folder)

    def heard(self, beginning: str) -> str:
        """The next line that begins so, within a while."""
        end = time.monotonic() + 30
        while True:
            line, newline, rest = self._said.partition(b"\n")
            if newline:
                self._said = rest
                if line.startswith(beginning.encode()):
                    return line.decode()
                continue
            assert select.select([self.process.stdout], [], [], max(0, end - time.monotonic()))[0], beginning
            more = os.read(self.process.stdout.fileno(), 4096)
            assert more, f"the doctor never said {beginning!r}"
            self._said += more

    def end(self, number: int) -> int:
        """Its exit code after that signal."""
        self.process.send_signal(number)
        return int(self.process.wait(40))


@contextmanager
def doctor(notes: Path, *acts: str, **given: object) -> Iterator[Doctor]:
    """One that is gone at the end, with what it said last."""
    made = Doctor(notes, *acts, **given)
    try:
        yield made
    finally:
        made.process.kill()
        made.process.wait()
        made.process.stdin.close()
        made.process.stdout.close()


@pytest.mark.parametrize(("acts", "event"), STAGES.values(), ids=list(STAGES))
def test_a_doctor_killed_in_any_stage_takes_everything_with_it(
    tmp_path: Path, acts: tuple[str, ...], event: str
) -> None:
    with doctor(tmp_path, *TREE, *acts) as one:
        processes = noted(tmp_path, 4)
        if "until=seen" in acts:
            one.heard("stage load ")
            (tmp_path / "seen").touch()
        one.heard(event)
        assert one.end(signal.SIGKILL) == -signal.SIGKILL
        until(lambda: not living(processes))
        until(lambda: not one.folder.exists())
        until(lambda: not segments(tmp_path))


def test_doctor_and_server_killed_at_once(tmp_path: Path) -> None:
    """As `pkill -9 -f vllm` does; the engine calls itself by another name."""
    with doctor(tmp_path, *TREE, "serve", "stay") as one:
        processes = noted(tmp_path, 4)
        one.heard("Ready")
        # Whose a segment is cannot be told any more when its only holder is gone.
        time.sleep(TICKS_BETWEEN_NOTES + 1)
        os.kill(one.leader, signal.SIGKILL)
        assert one.end(signal.SIGKILL) == -signal.SIGKILL
        until(lambda: not living(processes))
        until(lambda: not one.folder.exists())
        until(lambda: not segments(tmp_path))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda s: s.name)
@pytest.mark.parametrize("stage", ["import", "load", "serving"])
def test_a_doctor_that_is_interrupted_ends_everything_first(tmp_path: Path, number: signal.Signals, stage: str) -> None:
    acts = [act for act in STAGES[stage][0] if act != "until=seen"]
    with doctor(tmp_path, "child", "session", "orphan", "segment", "socket", *acts) as one:
        processes = noted(tmp_path, 4)
        one.heard(STAGES[stage][1])
        assert one.end(number) == 130
        assert living(processes) == []
        assert not one.folder.exists()
        assert segments(tmp_path) == []
        assert one.heard("left") == "left True"


def test_ctrl_c_of_a_terminal_reaches_the_doctor_alone(tmp_path: Path) -> None:
    """The whole foreground group gets it, and the server, which would end by it, is in no group of the terminal."""
    with doctor(tmp_path, "child", "stay", start_new_session=True) as one:
        processes = noted(tmp_path, 2)
        one.heard("stage import")
        os.killpg(one.process.pid, signal.SIGINT)
        assert one.process.wait(20) == 130
        assert living(processes) == []
        assert not one.folder.exists()


def test_a_terminal_that_is_closed(tmp_path: Path) -> None:
    """The kernel sends SIGHUP to the session's leader and its foreground group, and writing there fails."""
    pid, terminal = pty.fork()
    if not pid:
        os.environ["PYTHONPATH"] = f"{ROOT}:{ROOT / 'checks'}"
        os.chdir(ROOT)
        acts = ["session", "orphan", "serve", "stay"]
        os.execv(sys.executable, [sys.executable, "-m", "tests.trial.driver", str(tmp_path), str(free_port()), *acts])
    said = b""
    while b"Ready" not in said:
        said += os.read(terminal, 4096)
    processes = noted(tmp_path, 3)
    folder = Path(said.split(b"job ")[1].split()[2].decode())
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 130
    assert living(processes) == []
    assert not folder.exists()


def test_a_second_signal_hastens_the_end(tmp_path: Path) -> None:
    with doctor(tmp_path, *TREE, "serve", "stay") as one:
        processes = noted(tmp_path, 4)
        one.heard("Ready")
        began = time.monotonic()
        # Signals of one kind that wait are one: the second is sent when the first has been taken.
        one.process.send_signal(signal.SIGTERM)
        until(lambda: not _pending(one.process.pid))
        time.sleep(0.3)
        assert one.end(signal.SIGTERM) == 130
        assert time.monotonic() - began < 10
        assert living(processes) == []
        assert segments(tmp_path) == []


def _pending(pid: int) -> bool:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return any(int(line.split()[1], 16) for line in lines if line.startswith(("SigPnd", "ShdPnd")))


def test_a_server_that_ends_by_itself(tmp_path: Path) -> None:
    with doctor(tmp_path, "session", "flag", "exit=2") as one:
        processes = noted(tmp_path, 2)
        one.heard("NotReady")
        one.process.stdin.close()
        assert one.process.wait(20) == 0
        assert living(processes) == []
