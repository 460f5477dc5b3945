"""A launched server as a job: started through a guardian, and stopped so that nothing of it is left."""

import os
import secrets
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from vllm_doctor.errors import LaunchError
from vllm_doctor.trial import leftovers
from vllm_doctor.trial.guard import Guard, GuardianError
from vllm_doctor.trial.guardian import child, ours
from vllm_doctor.trial.guardian import folder as folders
from vllm_doctor.trial.interruption import shielded
from vllm_doctor.trial.leftovers import LeftBehind
from vllm_doctor.trial.output import Output

# The variable that every process of a job inherits, with a value that cannot be guessed. vLLM warns of names that it
# does not know and that begin with VLLM_.
MARKER = "DOCTOR_OF_VLLM_JOB"

# A deeper folder leaves too little of the 107 characters of a socket's path (unix(7)) for the names that vLLM and ZMQ
# give theirs: `/vd-XXXXXXXX/t/` and a UUID with a prefix.
MAXIMUM_PARENT_CHARACTERS = 40

# The guardian answers in 0.1 s; a machine that starts servers may be slow.
START_SECONDS = 60.0

# SIGTERM's 15 s, SIGKILL's 10, the resource trackers' 2, and some for the rest.
STOP_SECONDS = 40.0

# An init that takes exit codes does so at once; in a container without one they stay, and are told of.
ADOPTION_SECONDS = 2.0

# The guardian takes them at once, too, but a killed process of many threads is no more than a zombie until the last of
# them has let go of its memory.
REAPING_SECONDS = 10.0


def start(
    argv: Sequence[str],
    *,
    environment: Mapping[str, str],
    folder: Path | None,
    port: int,
    private_cache: bool = False,
) -> "Job":
    """Start that command in that folder (None: here) with these variables, TMPDIR and the marker.

    With `private_cache` vLLM caches in the job's folder instead of the user's (VLLM_CACHE_ROOT, vllm/envs.py).
    Raises LaunchError where the program cannot be started. What was started is gone when the context ends.
    """
    if ours.read(os.getpid()) is None:
        raise LaunchError(
            "a server is only started where /proc shows its processes", "run it on Linux, where vLLM runs"
        )
    job = Job(port)
    place = {"VLLM_CACHE_ROOT": f"{job.temporary}/cache"} if private_cache else {}
    try:
        job.start(argv, {**environment, **place}, folder)
    except BaseException:
        job.kill_now()
        raise
    return job


class Job:
    """A server and all its processes: `pid` is the first one's, `log` where it writes, `temporary` its TMPDIR.

    Folder and log are gone after `stop`; what `output` has read stays.
    """

    def __init__(self, port: int) -> None:
        self.port = port
        self.pid = 0
        self.marker = f"{MARKER}={secrets.token_hex(16)}"
        self.folder = _new_folder()
        self.log = Path(folders.log(self.folder))
        self.temporary = Path(folders.temporary(self.folder))
        self._started_ticks = self._seen_ticks = 0
        # Whether the folder is the guardian's own: one of that name that was there before is not removed.
        self._made = True
        self._left: LeftBehind | None = None
        self._before = leftovers.before(port)
        self._guard = Guard()
        self.output = Output(self.log, lambda: self._guard.told(b"cut"))

    def __enter__(self) -> "Job":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def guardian_pid(self) -> int:
        """The process that watches over the job."""
        return self._guard.pid

    def start(self, argv: Sequence[str], environment: Mapping[str, str], folder: Path | None) -> None:
        """Let the guardian start it; raises LaunchError, or GuardianError where that cannot be asked."""
        name, _, value = self.marker.partition("=")
        variables = {**environment, "TMPDIR": str(self.temporary), name: value}
        where = "" if folder is None else str(folder)
        self._guard.say(*child.message(self.folder, where, self.marker, list(argv), variables))
        answer = self._guard.await_any(b"started", b"failed", seconds=START_SECONDS)
        if answer is None:
            raise GuardianError("the process that starts the server died", "see whether this machine is out of memory")
        if answer[0] == b"failed":
            self._made = answer[1] != b"folder"
            raise _refusal(argv, folder, self.folder, of_folder=not self._made, number=int(answer[2]))
        self.pid, self._started_ticks = int(answer[1]), int(answer[2])
        self._seen_ticks = self._started_ticks

    def exit_code(self) -> int | None:
        """The code that the first process ended with, negative for a signal; None while it runs."""
        if told := self._guard.told(b"exited"):
            return int(told[1])
        if not self._leader_lives() and self._guard.lost:
            # Nobody was there to be told the code: it was killed with the guardian.
            return -9
        return None

    def processes(self) -> list[ours.Process]:
        """The job's living processes, its first one first."""
        living = [each for each in self._members() if not each.ended] if self._left is None else []
        return sorted(living, key=lambda each: each.pid != self.pid)

    def is_ready(self) -> None:
        """Tell the guardian that the server serves: from now on it is given time to end in order."""
        self._guard.say(b"ready")

    def stop(self) -> LeftBehind:
        """End the server and everything it started, then look at what is left. A second call brings the same."""
        if self._left is None:
            with shielded(self._hurry):
                self._left = self._stop(b"stop")
        return self._left

    def kill_now(self) -> LeftBehind:
        """The same without asking the server first."""
        if self._left is None:
            with shielded(self._hurry):
                self._left = self._stop(b"kill")
        return self._left

    def _hurry(self) -> None:
        self._guard.say(b"kill")

    def _stop(self, order: bytes) -> LeftBehind:
        self._guard.say(order)
        down = self._guard.await_any(b"down", b"failed", seconds=STOP_SECONDS)
        self.output.finish()
        if down is None:
            # With the guardian the server gets its signal, and what it held can be seen no more.
            self._before.segments.note([each.pid for each in self._members()])
            self._guard.process.kill()
            self._guard.lost = True
            report = leftovers.take_down(self._members, self._before.segments)
        else:
            report = leftovers.Report.read(down)
        remaining = self._remaining()
        self._guard.say(b"bye")
        self._guard.close()
        if self._made:
            folders.remove(self.folder)
        return leftovers.examine(self._before, report, remaining, self.folder)

    def _remaining(self) -> list[ours.Process]:
        """What is still there; the first process is the guardian's to take last, so that its number stays its own.

        Orphans whose guardian is gone are init's to take, which it does within a moment.
        """
        end = time.monotonic() + (ADOPTION_SECONDS if self._guard.lost else REAPING_SECONDS)
        while True:
            found = [each for each in self._members() if not each.ended or each.pid != self.pid]
            if not found or time.monotonic() > end:
                return found
            time.sleep(0.05)

    def _members(self) -> list[ours.Process]:
        self._leader_lives()
        until = self._seen_ticks if self._guard.lost else None
        return ours.of_job(self._guard.pid, self.pid, self.marker.encode(), until)

    def _leader_lives(self) -> bool:
        """Look for the first process; when it was there last is remembered."""
        ticks = ours.now_ticks()
        leader = ours.read(self.pid) if self.pid else None
        if leader is None or leader.started != self._started_ticks:
            return False
        self._seen_ticks = ticks
        return not leader.ended


def _new_folder() -> str:
    """A name for a folder that nobody has; the guardian makes it, as it is the one that is sure to remove it."""
    parent = str(Path(tempfile.gettempdir()).resolve())
    if len(parent) > MAXIMUM_PARENT_CHARACTERS:
        parent = "/tmp"  # noqa: S108 - the guardian makes the folder, which fails where the name is taken
    return f"{parent}/vd-{secrets.token_hex(5)}"


def _refusal(argv: Sequence[str], where: Path | None, folder: str, *, of_folder: bool, number: int) -> LaunchError:
    words = os.strerror(number)
    if of_folder:
        return LaunchError(f"{folder}: {words}", "set TMPDIR to a folder that can be written to")
    if where is not None and not where.is_dir():
        return LaunchError(f"{where}: no such folder", "name the folder to start the server in")
    return LaunchError(f"{argv[0]}: {words}", "name the program by its path, or activate its environment")
