"""What a verification brought: the runs with their attempts, what served, what was reported, and what is left."""

from collections.abc import Iterator

from msgspec import Struct, structs

from vllm_doctor.diagnose import Selection
from vllm_doctor.finding import Finding, Fix, Severity, error
from vllm_doctor.snapshot import Snapshot
from vllm_doctor.trial.attempts import Attempt
from vllm_doctor.trial.calibration import Row
from vllm_doctor.trial.leftovers import LeftBehind
from vllm_doctor.trial.trial import Outcome


class Run(Struct, frozen=True, kw_only=True):
    """The attempts at one launch; `name` is that of the configuration where several are walked, else empty."""

    attempts: tuple[Attempt, ...]
    name: str = ""

    @property
    def good(self) -> Attempt | None:
        """The attempt that served; it is the last one."""
        return self.attempts[-1] if self.attempts[-1].serves else None


class Verification(Struct, frozen=True, kw_only=True):
    """The whole: `given` is the command as asked for, `left_out` the configurations that were not walked, and why.

    `kept` says what became of `--calibrate`.
    """

    given: str
    runs: tuple[Run, ...]
    snapshot: Snapshot
    canary: bool = False
    left_out: tuple[tuple[str, str], ...] = ()
    rows: tuple[Row, ...] = ()
    kept: str | None = None

    @property
    def attempts(self) -> tuple[Attempt, ...]:
        """Every attempt of every run."""
        return tuple(attempt for run in self.runs for attempt in run.attempts)

    @property
    def outcomes(self) -> tuple[Outcome, ...]:
        """What became of the attempts that were started."""
        return tuple(a.outcome for a in self.attempts if a.outcome is not None)

    @property
    def last(self) -> Outcome | None:
        """What became of the last start."""
        return self.outcomes[-1] if self.outcomes else None

    @property
    def good(self) -> Attempt | None:
        """The command that served: the first run's, which is the one that was asked for."""
        return self.runs[0].good

    @property
    def ok(self) -> bool:
        """Whether everything served as it was given, and nothing is left."""
        return all(len(run.attempts) == 1 and run.good for run in self.runs) and not tuple(left(self.outcomes))

    def findings(self, selection: Selection) -> tuple[Finding, ...]:
        """What is wrong: of every failed attempt, of the last walk, and what is left; errors first, each once."""
        found: dict[tuple[str, str], Finding] = {}
        for number, attempt in enumerate(self.attempts, 1):
            for finding in attempt.findings:
                if selection.wants_finding(finding) or not attempt.serves:
                    named = structs.replace(finding, check=finding.check or f"attempt-{number}")
                    found.setdefault((named.cause, named.title), named)
        for finding in left(self.outcomes):
            found.setdefault((finding.cause, finding.title), finding)
        return tuple(sorted(found.values(), key=lambda finding: finding.severity.rank))


def left(outcomes: tuple[Outcome, ...]) -> Iterator[Finding]:
    """A finding for a start of which something is left."""
    for outcome in outcomes:
        rest = outcome.left_behind
        if is_clean(rest):
            continue
        fix = Fix(title="End what is named above, and see why it could not be ended (dmesg, another user's process)")
        title = "Something of the launch is still there after it was taken down"
        yield structs.replace(error("gpu-busy", title, evidence=rest.what, fixes=(fix,)), check="left-behind")


def is_clean(rest: LeftBehind) -> bool:
    """Whether nothing is left of a start that could be in the way of the next."""
    return not (rest.processes or rest.gpu_bytes or rest.port_open or rest.shared_memory or rest.sockets)


def errors(findings: tuple[Finding, ...]) -> int:
    """How many of them are errors."""
    return sum(finding.severity is Severity.ERROR for finding in findings)
