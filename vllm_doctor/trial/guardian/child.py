"""The server's first process: from the guardian's fork to the program that takes its place."""

import ctypes
import os
import signal

from vllm_doctor.trial.guardian import ours

# What a terminal or a service manager may send to everything that the doctor started: it is the doctor's to answer.
IGNORED = (
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGTERM,
    signal.SIGQUIT,
    signal.SIGTSTP,
    signal.SIGTTIN,
    signal.SIGTTOU,
    signal.SIGPIPE,
)

# prctl(2): the process that adopts the orphans among its descendants; the signal at the death of the parent.
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_PDEATHSIG = 1

_NOT_STARTED = 127


class Launch:
    """What is to be started: the fields of the doctor's first message."""

    def __init__(self, fields: "list[bytes]") -> None:
        self.folder = os.fsdecode(fields[1])
        self.where = fields[2]
        self.marker = fields[3]
        count = int(fields[4])
        self.words = fields[5 : 5 + count]
        variables = (pair.partition(b"=") for pair in fields[5 + count :])
        self.environment = {name: value for name, _, value in variables}


def message(folder: str, where: str, marker: str, words: "list[str]", environment: "dict[str, str]") -> "list[bytes]":
    """The fields that `Launch` reads."""
    fields = ["start", folder, where, marker, str(len(words)), *words, *(f"{k}={v}" for k, v in environment.items())]
    return [os.fsencode(field) for field in fields]


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent dies (Linux 3.4 and later)."""
    _control(_PR_SET_CHILD_SUBREAPER, 1)


def start(launch: Launch, log: int) -> "ours.Process | int":
    """The process, or the errno of what kept the program from being started."""
    reading, writing = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if not pid:
        _become(launch, log, writing)
    os.close(writing)
    problem = os.read(reading, 16)
    os.close(reading)
    started = ours.read(pid)
    if problem or started is None:
        os.waitpid(pid, 0)
        return int(problem or 0)
    return started


def _become(launch: Launch, log: int, problem: int) -> None:
    """A session of its own, no input, the output in the log, and the program in place of this Python."""
    try:
        os.setsid()
        for number in (*IGNORED, signal.SIGCHLD, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)
        # Where doctor and guardian are killed at once, the server is at least asked to end.
        _control(_PR_SET_PDEATHSIG, signal.SIGTERM)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        if launch.where:
            os.chdir(launch.where)
        os.execvpe(launch.words[0], launch.words, launch.environment)  # noqa: S606 - the point is that no shell is between
    except OSError as failure:
        os.write(problem, str(failure.errno).encode())
    finally:
        os._exit(_NOT_STARTED)


def _control(option: int, value: int) -> None:
    """prctl(2) where this system has it: what is asked of it is a second line of defence."""
    try:
        ctypes.CDLL(None).prctl(option, int(value), 0, 0, 0)
    except (AttributeError, OSError):
        return
