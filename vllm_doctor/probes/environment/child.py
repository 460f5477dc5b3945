"""Runs an interpreter as a child, with its time, its output and its end bounded."""

import atexit
import contextlib
import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping

from msgspec import Struct

_READ_BYTES = 65536
_ERROR_BYTES = 64 * 1024

# How long the end of the doctor waits for a child that is just being started.
START_SECONDS = 2.0


class Ended(Struct, frozen=True):
    """How a child ended: `status` as subprocess has it (negative: the signal), None where time or output ran out."""

    status: int | None
    output: bytes
    errors: bytes
    too_much: bool = False

    @property
    def last_line(self) -> str:
        """The last line it printed on standard error, else on standard output."""
        lines = (self.errors.strip() or self.output[-2000:].strip()).decode("utf-8", "replace").splitlines()
        return lines[-1].strip()[:400] if lines else ""


def run(argv: list[str], environment: Mapping[str, str], timeout_seconds: float, maximum_bytes: int) -> Ended:
    """Run the command to its end; raises OSError where it cannot be started. Its whole process group is ended."""
    output, errors = bytearray(), bytearray()
    with _started(argv, environment) as child:
        whole = _read_all(child, output, errors, time.monotonic() + timeout_seconds, maximum_bytes)
        if whole:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(timeout=max(0.05, timeout_seconds))
        status = child.returncode
    return Ended(status, bytes(output), bytes(errors), too_much=len(output) > maximum_bytes)


@contextlib.contextmanager
def _started(argv: list[str], environment: Mapping[str, str]) -> Iterator["subprocess.Popen[bytes]"]:
    """The child in a session of its own, which ends with the block, or with a doctor that is interrupted meanwhile."""
    begun: list[subprocess.Popen[bytes]] = []
    tried = threading.Event()

    def kill() -> None:
        # The doctor may end while its probe's thread is still between the fork and the next line.
        tried.wait(START_SECONDS)
        for child in begun:
            _kill(child)

    atexit.register(kill)
    try:
        try:
            begun.append(
                subprocess.Popen(
                    argv,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    env=dict(environment),
                    start_new_session=True,
                )
            )
        finally:
            tried.set()
        yield begun[0]
    finally:
        for child in begun:
            _end(child)
        atexit.unregister(kill)


def _read_all(
    child: "subprocess.Popen[bytes]", output: bytearray, errors: bytearray, deadline: float, maximum_bytes: int
) -> bool:
    """Read both pipes to their ends; False where the time or the room ran out. Errors beyond their room are dropped."""
    assert child.stdout is not None and child.stderr is not None
    sinks = {child.stdout.fileno(): output, child.stderr.fileno(): errors}
    poll = select.poll()
    for descriptor in sinks:
        poll.register(descriptor, select.POLLIN)
    while sinks:
        left = deadline - time.monotonic()
        if left <= 0:
            return False
        for descriptor, _ in poll.poll(left * 1000):
            data = os.read(descriptor, _READ_BYTES)
            if not data:
                poll.unregister(descriptor)
                del sinks[descriptor]
                continue
            sinks[descriptor] += data
            del errors[:-_ERROR_BYTES]
        if len(output) > maximum_bytes:
            return False
    return True


def _kill(child: "subprocess.Popen[bytes]") -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)


def _end(child: "subprocess.Popen[bytes]") -> None:
    """End what is left of the child's own session, and reap it."""
    if child.returncode is None:
        _kill(child)
        child.wait()
    for pipe in (child.stdout, child.stderr):
        if pipe is not None:
            pipe.close()
