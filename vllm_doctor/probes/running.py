"""Runs a probe with a time limit: whatever it raises, or its silence, becomes a recorded reason."""

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from vllm_doctor.errors import DoctorError
from vllm_doctor.facts import Unknown

T = TypeVar("T")


class Running(Generic[T]):
    """A probe on its way, in a thread of its own, so that a driver call that hangs cannot hold up the doctor."""

    def __init__(self, name: str, probe: Callable[[], T]) -> None:
        self.name = name
        self._probe = probe
        self._outcome: T | Unknown | DoctorError | None = None
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"probe-{name}", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._outcome = self._probe()
        except DoctorError as problem:
            self._outcome = problem
        except Exception as problem:  # noqa: BLE001 - a failing probe is a recorded reason, never a crash
            self._outcome = Unknown(f"the {self.name} probe failed: {type(problem).__name__}: {problem}")
        self._done.set()

    def result(self, timeout_seconds: float) -> T | Unknown:
        """The facts, or Unknown with what went wrong; raises DoctorError where the user's input was wrong."""
        if not self._done.wait(timeout_seconds):
            return Unknown(f"the {self.name} probe did not answer within {timeout_seconds:g} s")
        if isinstance(self._outcome, DoctorError):
            raise self._outcome
        if self._outcome is None:
            return Unknown(f"the {self.name} probe brought nothing")
        return self._outcome
