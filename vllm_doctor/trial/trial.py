"""One attempt: start the launch, follow it until it serves, walk what a client does, and take it down again."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct, structs

from vllm_doctor.finding import Confidence, Finding, Fix, Severity, error
from vllm_doctor.trial import reported
from vllm_doctor.trial.job import Job, start
from vllm_doctor.trial.leftovers import LeftBehind
from vllm_doctor.trial.progress import Limits, NotReady, Ready, Stage, wait_ready
from vllm_doctor.trial.reported import Reported
from vllm_doctor.trial.target import Target

if TYPE_CHECKING:
    from vllm_doctor.client.walk import Connection
    from vllm_doctor.triage.explain import Explanation

# What becomes of a walk against a URL with a key; the progress is told of every step.
Walk = Callable[[str, str | None, Callable[[str, str], None]], "Connection"]

# A server whose engine died ends by itself 3 to 5 s later (measured with vLLM 0.32), and only then has said why.
LAST_WORDS_SECONDS = 8.0
TAIL_LINES = 20

# How a start broke off, by its stage.
WHILE = {
    "import": "while importing vLLM",
    "init": "while setting the engine up",
    "load": "while loading the weights",
    "profile": "in the profile run",
    "kv": "while allocating the KV cache",
    "capture": "while capturing graphs",
    "serve": "while starting the API",
}

# What a server tells its clients, and does not end of.
TOLD_TO_CLIENTS = frozenset(
    {
        *("connection-refused", "connection-timeout", "auth", "endpoint-wrong", "bad-request", "context-exceeded"),
        *("model-name-mismatch", "chat-roles", "multimodal-unsupported"),
    }
)

# What Python's bindings write when a server has ended: dozens of lines that say nothing.
_LITTER = ("- leaked ", "nanobind:", "- ... skipped", "See https://nanobind")

# Steps of a walk that break off where the server is gone.
_GONE = frozenset({"connection-refused", "connection-timeout", "engine-dead", "engine-hang"})


class Outcome(Struct, frozen=True, kw_only=True):
    """What became of one start: it served every step of the walk where `findings` hold no error.

    `stage` is where a start broke off, None where it came up; `exit_code` None where the server had to be stopped.
    """

    findings: tuple[Finding, ...]
    left_behind: LeftBehind
    seconds: float
    ready_seconds: float | None = None
    stage: str | None = None
    exit_code: int | None = None
    connection: "Connection | None" = None
    reported: Reported = Reported()
    tail: tuple[str, ...] = ()

    @property
    def serves(self) -> bool:
        """Whether the server came up and every step that was taken works."""
        return self.ready_seconds is not None and not any(f.severity is Severity.ERROR for f in self.findings)


class Told(Struct, frozen=True):
    """Where the outcome is told as it comes: the stages of the start, and the steps of the walk."""

    stage: Callable[[Stage], None]
    step: Callable[[str, str], None]


def trial(target: Target, folder: Path, limits: Limits, walk: Walk, told: Told) -> Outcome:
    """Start the target, and take it down whatever comes between; raises LaunchError where it cannot be started."""
    began = time.monotonic()
    with start(
        target.argv,
        environment=target.environment,
        folder=folder,
        port=target.port,
        private_cache=target.private_cache,
    ) as job:
        ready = wait_ready(job, target.url, limits, told.stage)
        outcome = _served(job, ready, target, walk, told) if isinstance(ready, Ready) else _broken_off(job, ready)
        left = job.stop()
    text = job.output.beginning()
    return structs.replace(
        outcome,
        left_behind=left,
        reported=reported.read(text.splitlines()),
        seconds=round(time.monotonic() - began, 3),
    )


def _broken_off(job: Job, broken: NotReady) -> Outcome:
    tail = _tail(job)
    findings = explained(broken.explanation) or (_unexplained(broken, tail),)
    return _outcome(findings, stage=broken.stage, exit_code=broken.exit_code, tail=tail)


def _served(job: Job, ready: Ready, target: Target, walk: Walk, told: Told) -> Outcome:
    connection = walk(target.url, target.key, told.step)
    findings = connection.findings
    exit_code = None
    if any(f.severity is Severity.ERROR and f.cause in _GONE for f in findings):
        exit_code = _last_words(job)
        said = tuple(f for f in explained(job.output.explanation()) if f.severity is Severity.ERROR)
        if not said and exit_code is not None:
            said = (_ended("ended after it had been ready", exit_code, _tail(job)),)
        findings = (*said, *(f for f in findings if f.cause not in {s.cause for s in said}))
    tail = _tail(job) if exit_code is not None else ()
    made = _outcome(findings, exit_code=exit_code, tail=tail)
    return structs.replace(made, ready_seconds=round(ready.seconds, 3), connection=connection)


def _tail(job: Job) -> tuple[str, ...]:
    """The last lines of the log that say something."""
    lines = (line for line in job.output.tail(10 * TAIL_LINES) if not line.lstrip().startswith(_LITTER))
    return tuple(lines)[-TAIL_LINES:]


def _last_words(job: Job) -> int | None:
    """The exit code of a server that is about to end; None where it does not."""
    end = time.monotonic() + LAST_WORDS_SECONDS
    while (code := job.exit_code()) is None and time.monotonic() < end:
        time.sleep(0.2)
    return code


def _outcome(
    findings: tuple[Finding, ...],
    *,
    stage: str | None = None,
    exit_code: int | None = None,
    tail: tuple[str, ...] = (),
) -> Outcome:
    nothing = LeftBehind()
    return Outcome(findings=findings, left_behind=nothing, seconds=0.0, stage=stage, exit_code=exit_code, tail=tail)


def explained(explanation: "Explanation") -> tuple[Finding, ...]:
    """What the log says, the root cause first and as an error: the server did fail, however sure the reading is."""
    findings = tuple(each.finding for each in explanation.findings if not _is_harmless(each.finding))
    if not findings:
        return ()
    return (structs.replace(findings[0], severity=Severity.ERROR), *findings[1:])


def _is_harmless(finding: Finding) -> bool:
    """What ends no server: a variable that vLLM does not know, and what the log says of the walk's own requests.

    Unless told not to, vLLM warns of the variable and starts all the same (vllm/platforms/interface.py, 0.32.0).
    """
    if finding.check == "text:unknown-env-var":
        return not any("ValueError" in seen for seen in finding.evidence)
    return finding.cause in TOLD_TO_CLIENTS


def _unexplained(broken: NotReady, tail: tuple[str, ...]) -> Finding:
    """A start that ended, or went on for ever, and whose log names no cause."""
    if broken.reason == "exited":
        return _ended(f"ended {WHILE.get(broken.stage, '')}", broken.exit_code, tail)
    title = f"The server was not ready within the {broken.reason}: it was stopped {WHILE.get(broken.stage, '')}"
    fix = Fix(title="Give it more time with --limit SECONDS, if the weights are large or are downloaded first")
    found = error("engine-hang", title, evidence=_last_line(tail) or ("it has written nothing",), fixes=(fix,))
    return structs.replace(found, confidence=Confidence.LIKELY)


def _ended(how: str, exit_code: int | None, tail: Sequence[str]) -> Finding:
    """A server that ended, and whose log does not say of what."""
    fix = Fix(title="Look for what ended it: the kernel's log (dmesg), the container's memory limit, an operator")
    evidence = (f"exit code {exit_code}{_signal(exit_code)}", *_last_line(tail))
    return error("engine-dead", f"The server {how}, and its log does not say why", evidence=evidence, fixes=(fix,))


def _last_line(tail: Sequence[str]) -> tuple[str, ...]:
    return tuple(f"last line: {line}" for line in tail[-1:])


def _signal(code: int | None) -> str:
    import signal

    if code is None or code >= 0:
        return ""
    try:
        return f" ({signal.Signals(-code).name})"
    except ValueError:
        return ""
