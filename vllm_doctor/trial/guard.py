"""The doctor's end of the guardian: the process that is the server's parent, and the two pipes to it."""

import contextlib
import os
import select
import subprocess
import sys
import time
from pathlib import Path

from vllm_doctor.errors import DoctorError
from vllm_doctor.trial.guardian import messages

# `pkill -9 -f vllm` is how servers are ended by hand. The guardian has to outlive that, so its command line names
# neither vLLM nor the doctor: what it runs is the first thing that it is told, in as many bytes as come in one piece.
_LOADER = "import os; exec(os.read(0, 4096))"
_PROGRAM_BYTES = 4096

# The standard library comes first: no package of this environment may stand in its place.
_PROGRAM = "import sys; sys.path.append({root!r}); from vllm_doctor.trial.guardian.main import main; main()"
_ROOT = str(Path(__file__).resolve().parent.parent.parent)

# Without these a Python that was built with shared libraries elsewhere does not start.
_NEEDED_VARIABLES = ("LD_LIBRARY_PATH",)

# How long the guardian may take to end once it has nothing left to do.
_END_SECONDS = 10.0


class GuardianError(DoctorError):
    """The process that is to watch over the server cannot be started."""


class Guard:
    """The guardian and what it has told so far: the last message of each kind."""

    def __init__(self) -> None:
        if not sys.executable:
            raise GuardianError("this Python does not know its own program", "start vllm-doctor by its command")
        try:
            # A session of its own: neither the terminal's Ctrl-C nor its end reaches it.
            self.process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _LOADER],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                bufsize=0,
                start_new_session=True,
                env={name: os.environ[name] for name in _NEEDED_VARIABLES if name in os.environ},
            )
        except OSError as problem:
            raise GuardianError(
                f"{sys.executable}: {problem.strerror}", "see whether processes can be started"
            ) from None
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self._orders = self.process.stdin
        self._news = self.process.stdout
        self._receiver = messages.Receiver(self._news.fileno())
        self._told: dict[bytes, list[bytes]] = {}
        self._closed = False
        self.lost = False
        self._send_program()

    @property
    def pid(self) -> int:
        """Its number, which is its own until it was waited for."""
        return self.process.pid

    def say(self, *fields: bytes) -> None:
        """Order something; a guardian that is gone is noted as lost."""
        try:
            messages.send(self._orders.fileno(), *fields)
        except messages.Closed:
            self.lost = True

    def told(self, kind: bytes) -> list[bytes] | None:
        """The last message of that kind that has come, None where none has."""
        while not (self.lost or self._closed) and select.select([self._receiver.descriptor], [], [], 0)[0]:
            self._receive()
        return self._told.get(kind)

    def await_any(self, *kinds: bytes, seconds: float) -> list[bytes] | None:
        """Wait for a message of one of these kinds; None where the guardian is gone, or says nothing in time."""
        end = time.monotonic() + seconds
        while True:
            for kind in kinds:
                if message := self.told(kind):
                    return message
            left = end - time.monotonic()
            if self.lost or self._closed or left <= 0:
                return None
            select.select([self._receiver.descriptor], [], [], left)

    def close(self) -> None:
        """Let it end, by force where it does not; what it told stays."""
        self._closed = True
        with contextlib.suppress(OSError):
            self._orders.close()
        try:
            self.process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._news.close()

    def _send_program(self) -> None:
        program = _PROGRAM.format(root=_ROOT).encode("utf-8", "surrogateescape").ljust(_PROGRAM_BYTES)
        try:
            self._orders.write(program)
        except OSError:
            self.lost = True

    def _receive(self) -> None:
        try:
            for message in self._receiver.receive():
                self._told[message[0]] = message
        except messages.Closed:
            self.lost = True
