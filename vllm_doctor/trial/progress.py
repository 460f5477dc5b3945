"""Waits until a launched server serves: the stages its log tells of, a limit for each, and its own /health."""

import time
from collections.abc import Callable, Mapping

from msgspec import Struct

from vllm_doctor.triage.explain import Explanation
from vllm_doctor.trial import activity
from vllm_doctor.trial.health import answers
from vllm_doctor.trial.job import Job

# The stages in their order, and those of triage's markers that each of them covers.
STAGES = ("import", "init", "load", "profile", "kv", "capture", "serve", "ready")
_MARKERS: Mapping[str, str] = {
    "start": "init",
    "init": "init",
    "load": "load",
    "profile": "profile",
    "kv": "kv",
    "capture": "capture",
    "serving": "serve",
}

# Where shards or graphs are counted.
COUNTED = ("load", "capture")

# How often is looked: at the log and the process each time, at the port once in so many.
LOOK_SECONDS = 0.25

# A stage that has used so much of its limit is watched for bytes that flow.
_WATCHED_SHARE = 0.5


class Limits(Struct, frozen=True, kw_only=True):
    """Seconds that each stage may take without anything happening, and that all may take together.

    Measured: importing vLLM 10 to 30 s, from a cold network disk minutes. While files are downloaded or read (bytes
    flow) the clock of import, init and load stands still: a download is no hang. torch.compile of a large model takes
    minutes, and kernels that are built at the first start (FlashInfer, DeepGEMM) 10 and more; both say little
    meanwhile. Graphs are counted while they are captured, 1 to 5 min in all.
    """

    import_seconds: float = 300.0
    init_seconds: float = 300.0
    load_seconds: float = 300.0
    profile_seconds: float = 1200.0
    kv_seconds: float = 600.0
    capture_seconds: float = 900.0
    serve_seconds: float = 180.0
    total_seconds: float = 3600.0

    def of(self, stage: str) -> float:
        """The limit of that stage."""
        seconds: float = getattr(self, f"{stage}_seconds")
        return seconds


class Stage(Struct, frozen=True, kw_only=True):
    """Where the start is: the stage, the seconds since the start, and what is counted in it (`3/17`)."""

    name: str
    seconds: float
    detail: str = ""


class Ready(Struct, frozen=True, kw_only=True):
    """The server answers on its port, after so many seconds."""

    seconds: float


class NotReady(Struct, frozen=True, kw_only=True):
    """It does not: where it was, why (exited, stage limit, total limit), and what its log says."""

    stage: str
    reason: str
    seconds: float
    exit_code: int | None
    explanation: Explanation


Tell = Callable[[Stage], None]


def silent(_stage: Stage) -> None:
    """For starts that nobody watches."""


def wait_ready(job: Job, url: str, limits: Limits | None = None, tell: Tell = silent) -> Ready | NotReady:
    """Wait until GET /health below that URL's root is answered by the job itself, it ends, or a limit is reached."""
    waiting = _Waiting(job, url, limits or Limits(), tell)
    while (outcome := waiting.look()) is None:
        time.sleep(LOOK_SECONDS)
    return outcome


class _Waiting:
    def __init__(self, job: Job, url: str, limits: Limits, tell: Tell) -> None:
        self.job, self.url, self.limits, self.tell = job, url, limits, tell
        self.started = time.monotonic()
        self.stage = "import"
        self.moved = self.started
        self.flow = activity.Flow()
        self.next_health = self.started
        self.said = ""
        tell(Stage(name=self.stage, seconds=0.0))

    @property
    def seconds(self) -> float:
        """Seconds since the wait began."""
        return time.monotonic() - self.started

    def look(self) -> Ready | NotReady | None:
        """One look at everything; None where there is more to wait for."""
        self.job.output.look()
        self._follow()
        if self.job.exit_code() is not None:
            return self._not_ready("exited")
        if self._answers():
            self.job.is_ready()
            self.tell(Stage(name="ready", seconds=self.seconds))
            return Ready(seconds=self.seconds)
        if self.seconds > self.limits.total_seconds:
            return self._not_ready("total limit")
        return self._not_ready("stage limit") if self._is_stuck() else None

    def _follow(self) -> None:
        for marker in self.job.output.stages():
            stage = _MARKERS.get(marker, "")
            if stage and STAGES.index(stage) > STAGES.index(self.stage):
                self.stage, self.moved = stage, time.monotonic()
                self.tell(Stage(name=stage, seconds=self.seconds))
        counter = self.job.output.counter
        if counter == self.said:
            return
        self.said, self.moved = counter, time.monotonic()
        if self.stage in COUNTED:
            self.tell(Stage(name=self.stage, seconds=self.seconds, detail=counter))

    def _answers(self) -> bool:
        now = time.monotonic()
        if now < self.next_health:
            return False
        self.next_health = now + 2 * LOOK_SECONDS
        return answers(self.url) and activity.listens(self.job)

    def _is_stuck(self) -> bool:
        limit, idle = self.limits.of(self.stage), time.monotonic() - self.moved
        if idle < limit * _WATCHED_SHARE:
            return False
        if self.stage in ("import", "init", "load") and self.flow.moves(self.job):
            self.moved = max(self.moved, time.monotonic() - limit * _WATCHED_SHARE)
            return False
        return idle > limit

    def _not_ready(self, reason: str) -> NotReady:
        return NotReady(
            stage=self.stage,
            reason=reason,
            seconds=self.seconds,
            exit_code=self.job.exit_code(),
            explanation=self.job.output.explanation(),
        )
