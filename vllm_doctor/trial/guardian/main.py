"""The guardian's life: start the server, tell how it fares, take it down when asked or when the doctor is gone."""

import os
import select
import signal
import time

from vllm_doctor.trial.guardian import child, folder, ours, teardown
from vllm_doctor.trial.guardian.messages import Closed, Receiver, send
from vllm_doctor.trial.guardian.segments import Segments

# A server that serves ends in order within 2 s (measured: 0.7 to 1.4 s with vLLM 0.32), one that drains takes longer.
# While it loads, vLLM loses the signal, and there is nothing to end in order.
SERVING_GRACE_SECONDS = 15.0
LOADING_GRACE_SECONDS = 3.0

# Where the doctor is gone, nobody needs the server's last words.
DESERTED_GRACE_SECONDS = 5.0

# How long the doctor may take for its own look at what is left.
FAREWELL_SECONDS = 60.0

_TICK_SECONDS = 1.0

# Shared memory is looked at so often at most, when something was made or removed: others may do so all the time.
TICKS_BETWEEN_NOTES = 3

# The descriptors that the doctor hands over.
_ORDERS, _NEWS = 0, 1


class Guardian(teardown.Job):
    """The server's parent, and, by adoption, that of whatever the server's processes leave behind."""

    def __init__(self, launch: child.Launch, orders: Receiver, came_with_it: "list[list[bytes]]") -> None:
        self.launch = launch
        self.orders = orders
        self._unheard = came_with_it
        self.segments = Segments()
        self.leader: ours.Process | None = None
        self.exit_code: int | None = None
        self.deserted = False
        self._grace_seconds = LOADING_GRACE_SECONDS
        self._wake = _woken_by_children()
        self._poll = select.poll()
        self._poll.register(_ORDERS, select.POLLIN)
        self._poll.register(self._wake, select.POLLIN)

    def run(self) -> None:
        """Start, watch, take down, and remove the folder."""
        try:
            folder.make(self.launch.folder)
        except OSError as problem:
            self._tell(b"failed", b"folder", _number(problem.errno or 0))
            return
        try:
            log = folder.open_log(self.launch.folder)
            if self._start(log):
                self._watch(log)
                self._take_down()
        finally:
            folder.remove(self.launch.folder)

    def members(self) -> "list[ours.Process]":
        """The job's processes. The leader is reaped last of all, so that its number and its group's stay its own."""
        assert self.leader is not None
        return ours.of_job(os.getpid(), self.leader.pid, self.launch.marker)

    def pause(self, seconds: float) -> bool:
        """Wait a moment; True where the doctor is in a hurry."""
        return any(message[0] == b"kill" for message in self._wait(seconds))

    def _start(self, log: int) -> bool:
        started = child.start(self.launch, log)
        if isinstance(started, int):
            self._tell(b"failed", b"program", _number(started))
            return False
        self.leader = started
        self._tell(b"started", _number(started.pid), _number(started.started))
        return True

    def _watch(self, log: int) -> None:
        """Until the doctor asks for the end, or is gone."""
        ticks = 0
        while not self.deserted:
            orders = {message[0] for message in self._wait(_TICK_SECONDS)}
            if b"ready" in orders:
                self._grace_seconds = SERVING_GRACE_SECONDS
                self._note()
            if orders & {b"stop", b"kill"}:
                # Both may come in one read, where the user is in a hurry: the harder one counts.
                self._grace_seconds = 0.0 if b"kill" in orders else self._grace_seconds
                return
            ticks += 1
            if folder.cut(log):
                self._tell(b"cut", _number(ticks))
            if not ticks % TICKS_BETWEEN_NOTES and self.segments.changed():
                self._note()

    def _take_down(self) -> None:
        assert self.leader is not None
        self._note()
        grace_seconds = min(self._grace_seconds, DESERTED_GRACE_SECONDS) if self.deserted else self._grace_seconds
        if grace_seconds:
            teardown.ask(self, self.leader, grace_seconds)
        killed = teardown.kill(self)
        self._reap()
        removed, held = self.segments.remove()
        self._tell(b"down", _number(killed), _lines(removed), _lines(held))
        self._part()
        if self.exit_code is not None:
            _bury(self.leader.pid)

    def _part(self) -> None:
        """Wait until the doctor has had its own look."""
        end = time.monotonic() + FAREWELL_SECONDS
        while not self.deserted and time.monotonic() < end:
            if any(message[0] == b"bye" for message in self._wait(_TICK_SECONDS)):
                return

    def _wait(self, seconds: float) -> "list[list[bytes]]":
        """What the doctor says within that time; children that end meanwhile are reaped."""
        messages, self._unheard = self._unheard, []
        for descriptor, _ in self._poll.poll(0 if messages else int(seconds * 1000)):
            if descriptor == self._wake:
                _drain(self._wake)
                self._reap()
                continue
            try:
                messages += self.orders.receive()
            except Closed:
                self.deserted = True
                self._poll.unregister(_ORDERS)
        return messages

    def _tell(self, *fields: bytes) -> None:
        try:
            send(_NEWS, *fields)
        except Closed:
            # The doctor is gone: its orders end as well, and that is what counts.
            return

    def _note(self) -> None:
        """Note the shared memory that the job holds now; for that the family is enough, and costs least."""
        processes = ours.everyone()
        self.segments.note([pid for pid in ours.below(os.getpid(), processes) if not processes[pid].ended])

    def _reap(self) -> None:
        assert self.leader is not None
        if self.exit_code is None:
            self._look_at_leader(self.leader.pid)
        for process in ours.everyone().values():
            if process.parent == os.getpid() and process.ended and process.pid != self.leader.pid:
                _bury(process.pid)

    def _look_at_leader(self, pid: int) -> None:
        ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if ended is None:
            return
        self.exit_code = ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status
        self._tell(b"exited", _number(self.exit_code))
        self._note()


def main() -> None:
    """Serve the doctor at the other end of descriptors 0 and 1."""
    for number in child.IGNORED:
        signal.signal(number, signal.SIG_IGN)
    child.adopt_orphans()
    orders = Receiver(_ORDERS)
    try:
        while not (messages := orders.receive()):
            continue
    except Closed:
        return
    if messages[0][0] == b"start":
        Guardian(child.Launch(messages[0]), orders, messages[1:]).run()


def _woken_by_children() -> int:
    """A descriptor that can be read from whenever a child has ended."""
    reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    return reading


def _drain(descriptor: int) -> None:
    try:
        while os.read(descriptor, 4096):
            continue
    except BlockingIOError:
        return


def _bury(pid: int) -> None:
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return


def _number(value: int) -> bytes:
    return str(value).encode()


def _lines(texts: "list[str]") -> bytes:
    return os.fsencode("\n".join(texts))
