"""Runs a probe with a time limit: whatever it raises, or its silence, becomes a recorded reason."""

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from vllm_doctor.errors import DoctorError
from vllm_doctor.facts import Unknown

T_co = TypeVar("T_co", covariant=True)


class Running(Generic[T_co]):
    """A probe on its way, in a thread of its own, so that a driver call that hangs cannot hold up the doctor.

    `failed` is True once `result` had to answer for a probe that raised or did not answer in time; `late`: the latter.
    """

    def __init__(self, name: str, probe: Callable[[], T_co]) -> None:
        self.name = name
        self.failed = False
        self.late = False
        self._probe = probe
        self._value: T_co | None = None
        self._problem: Exception | None = None
        self._done = threading.Event()
        threading.Thread(target=self._run, name=f"probe-{name}", daemon=True).start()

    def _run(self) -> None:
        try:
            self._value = self._probe()
        except Exception as problem:  # noqa: BLE001 - a failing probe is a recorded reason, never a crash
            self._problem = problem
        self._done.set()

    def result(self, timeout_seconds: float) -> T_co | Unknown:
        """The facts, or Unknown with what went wrong; raises DoctorError where the user's input was wrong."""
        if not self._done.wait(timeout_seconds):
            self.failed = self.late = True
            return Unknown(f"the {self.name} probe did not answer in time")
        if isinstance(self._problem, DoctorError):
            raise self._problem
        if self._problem is not None or self._value is None:
            self.failed = True
            return Unknown(f"the {self.name} probe failed: {type(self._problem).__name__}: {self._problem}")
        return self._value
