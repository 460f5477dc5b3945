"""Verifies a launch, or the canary: collects the facts, makes the attempts, and puts together what they brought."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct, structs

from vllm_doctor import releases
from vllm_doctor.collect import Progress, Request, collect
from vllm_doctor.diagnose import Selection
from vllm_doctor.facts import Environment, Gpus, Launch
from vllm_doctor.finding import Finding, LaunchEdit
from vllm_doctor.launch import edit, render
from vllm_doctor.launch.parse import parse_launch
from vllm_doctor.registry import Registry
from vllm_doctor.snapshot import Snapshot
from vllm_doctor.trial import canary, matrix, secrets, target
from vllm_doctor.trial.attempts import Doctor, attempts
from vllm_doctor.trial.mending import Remedy, free_port
from vllm_doctor.trial.progress import Limits, Stage
from vllm_doctor.trial.trial import Outcome, Told, Walk, trial
from vllm_doctor.trial.verification import Run, Verification

if TYPE_CHECKING:
    from vllm_doctor.client.visit import Options
    from vllm_doctor.client.walk import Connection
    from vllm_doctor.memory.planning import Planned
    from vllm_doctor.releases.facts import Flag

# What a stage of the start is called while it lasts.
STAGES = {
    "import": "import vLLM",
    "init": "set the engine up",
    "load": "load the weights",
    "profile": "profile",
    "kv": "allocate the KV cache",
    "capture": "capture graphs",
    "serve": "start the API",
}

TOOLS_FLAG = "--enable-auto-tool-choice"


class Wanted(Struct, frozen=True, kw_only=True):
    """What is to be verified: `request` has the launch as words (none: the canary); `ask` a yes for a finding's fix.

    `answer_seconds` is the limit of one request: the first one may build kernels.
    """

    request: Request
    registry: Registry
    selection: Selection
    inherited: Mapping[str, str]
    limits: Limits
    maximum_attempts: int = 3
    port: int | None = None
    answer_seconds: float = 120.0
    tools: bool = False
    tp: int = 1
    matrix: bool = False
    ask: Callable[[Finding], Remedy | None] = lambda _finding: None


def verify(wanted: Wanted, progress: Progress) -> Verification:
    """Make the attempts; raises DoctorError where the launch cannot be started from here at all."""
    words = wanted.request.launch_words
    return _of_launch(wanted, words, progress) if words else _of_canary(wanted, progress)


def _of_launch(wanted: Wanted, words: tuple[str, ...], progress: Progress) -> Verification:
    folder = wanted.request.folder
    parsed = parse_launch(words, folder=folder)
    target.require_startable(parsed)
    kept = secrets.of_words(words, folder)
    target.hide_keys(kept, wanted.inherited)
    if wanted.port is not None:
        parsed = edit.apply(parsed, LaunchEdit(set={"--port": str(wanted.port)}))
        words = render.argv(parsed)
    snapshot = _collected(wanted, words, progress)
    assert snapshot.launch is not None
    run = _run(wanted, snapshot, kept, _client_walk(wanted, snapshot.launch), progress)
    return _with_memory(Verification(given=parsed.given, runs=(run,), snapshot=snapshot))


def _of_canary(wanted: Wanted, progress: Progress) -> Verification:
    port = wanted.port or free_port()
    snapshot = _collected(wanted, _canary_words(port, (), {}), progress)
    platform = snapshot.platform or "cuda"
    canary.require_release(snapshot.vllm_version)
    flags = canary.flags(platform, tp=wanted.tp, known=_known_flags(snapshot), gpu_bytes=_gpu_bytes(snapshot))
    variables = canary.variables(platform, tp=wanted.tp)
    once = structs.replace(wanted, maximum_attempts=1)
    runs: list[Run] = []
    walked = matrix.configurations(snapshot) if wanted.matrix else ()
    plain = "plain" if wanted.matrix else ""
    for name, more, further in ((plain, (), {}), *((c.name, c.flags, c.variables) for c in walked)):
        words = _canary_words(port, (*flags, *more), {**variables, **further})
        launch = _placed(parse_launch(words), snapshot, wanted)
        one, walk = structs.replace(snapshot, launch=launch), _canary_walk(wanted, launch, platform)
        runs.append(_run(once, one, secrets.Secrets(), walk, progress, name, private_cache=True))
    given = runs[0].attempts[0].command
    left_out = matrix.left_out(snapshot) if wanted.matrix else ()
    found = Verification(given=given, runs=tuple(runs), snapshot=snapshot, canary=True, left_out=left_out)
    return _with_memory(found)


def _collected(wanted: Wanted, words: tuple[str, ...], progress: Progress) -> Snapshot:
    snapshot = collect(structs.replace(wanted.request, launch_words=words), progress)
    assert snapshot.launch is not None
    return structs.replace(snapshot, launch=_placed(snapshot.launch, snapshot, wanted))


def _placed(launch: Launch, snapshot: Snapshot, wanted: Wanted) -> Launch:
    environment = snapshot.environment
    python = None
    if isinstance(environment, Environment) and environment.vllm is not None:
        python = Path(environment.python)
    return target.placed(launch, python, asked=wanted.request.python is not None)


def _canary_words(port: int, flags: tuple[str, ...], variables: Mapping[str, str]) -> tuple[str, ...]:
    assignments = (f"{name}={value}" for name, value in variables.items())
    place = ("--host", "127.0.0.1", "--port", str(port))
    return (*assignments, "vllm", "serve", str(canary.folder()), *flags, *place)


def _known_flags(snapshot: Snapshot) -> "Mapping[str, Flag] | None":
    """The flags of the release that will run; None where it is not known."""
    environment = snapshot.environment
    if isinstance(environment, Environment) and environment.source_release is not None:
        return environment.source_release.flags
    found = releases.release(snapshot.vllm_version or "")
    return None if found is None else found.flags


def _gpu_bytes(snapshot: Snapshot) -> int | None:
    """The memory of the smallest GPU; None where there is none, or it is not known."""
    if not isinstance(snapshot.gpus, Gpus):
        return None
    sizes = [gpu.memory_total_bytes for gpu in snapshot.gpus.devices if isinstance(gpu.memory_total_bytes, int)]
    return min(sizes, default=None)


def _client_walk(wanted: Wanted, launch: Launch) -> Walk:
    tools = wanted.tools or launch.has(TOOLS_FLAG)

    def walk(url: str, key: str | None, progress: Progress) -> "Connection":
        # Not above: HTTP is not needed, nor wanted in memory, while the server starts.
        from vllm_doctor.trial import walking

        return walking.walk(url, _options(wanted, key, tools=tools), progress)

    return walk


def _canary_walk(wanted: Wanted, launch: Launch, platform: str) -> Walk:
    backend = launch.value("--attention-backend") or launch.environment.get("VLLM_ATTENTION_BACKEND")

    def walk(url: str, key: str | None, progress: Progress) -> "Connection":
        from vllm_doctor.trial.proof import Blame, prove

        asked = structs.replace(_options(wanted, key, tools=True), model=canary.NAME)
        return prove(url, asked, progress, Blame(platform=platform, tp=wanted.tp, backend=backend))

    return walk


def _options(wanted: Wanted, key: str | None, *, tools: bool) -> "Options":
    from vllm_doctor.client.visit import Options

    variable = secrets.KEY_VARIABLE if key is not None else None
    return Options(key=key, key_variable=variable, tools=tools, timeout_seconds=wanted.answer_seconds)


def _run(
    wanted: Wanted,
    snapshot: Snapshot,
    kept: secrets.Secrets,
    walk: Walk,
    progress: Progress,
    name: str = "",
    *,
    private_cache: bool = False,
) -> Run:
    number = 0

    def start(launch: Launch) -> Outcome:
        nonlocal number
        number += 1
        shown = _Shown(progress, name or (f"attempt {number}" if number > 1 else ""))
        ready = target.target(launch, kept, wanted.inherited)
        ready = structs.replace(ready, private_cache=private_cache)
        told = Told(stage=shown.stage, step=shown.step)
        outcome = trial(ready, wanted.request.folder, wanted.limits, walk, told)
        shown.ended("failed")
        return outcome

    asked = Doctor(registry=wanted.registry, selection=wanted.selection, start=start, asked=wanted.ask)
    return Run(attempts=tuple(attempts(snapshot, asked, wanted.maximum_attempts)), name=name)


class _Shown:
    """Stages and steps as lines of the live display; a stage ends where the next begins, or where the start does."""

    def __init__(self, progress: Progress, of: str) -> None:
        self._progress = progress
        self._prefix = f"{of}: " if of else ""
        self._current = ""

    def stage(self, now: Stage) -> None:
        """The start has come to this stage, or further in it."""
        name = self._prefix + STAGES.get(now.name, now.name)
        if name != self._current:
            self.ended("done")
        if now.name != "ready":
            self._progress(name, f"started {now.detail}".strip())
            self._current = name

    def step(self, name: str, state: str) -> None:
        """What became of a step of the walk."""
        self._progress(self._prefix + name, state)

    def ended(self, state: str) -> None:
        """The current stage is over."""
        if self._current:
            self._progress(self._current, state)
        self._current = ""


def _with_memory(found: Verification) -> Verification:
    """The verification with what the launch that served reported, beside its plan where there is one."""
    good = found.good
    if good is None or good.outcome is None or not good.outcome.reported.anything:
        return found
    from vllm_doctor.trial import calibration

    return structs.replace(found, rows=calibration.compare(good.outcome.reported, planned(found)))


def planned(found: Verification) -> "Planned | None":
    """The plan of the launch that served; None where there is none to be made (no NVIDIA GPU, a model not known)."""
    from vllm_doctor.facts import Unknown
    from vllm_doctor.memory.planning import of_snapshot

    if found.good is None:
        return None
    plan = of_snapshot(structs.replace(found.snapshot, launch=found.good.launch))
    return None if isinstance(plan, Unknown) else plan
