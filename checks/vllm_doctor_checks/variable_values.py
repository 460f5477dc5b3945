"""Variables whose values follow rules of their own: log levels, cores to bind to, the size of the CPU's KV cache."""

import re
from collections.abc import Iterator

from vllm_doctor.facts import Launch
from vllm_doctor.finding import Finding, Fix, LaunchEdit, error
from vllm_doctor.snapshot import Snapshot
from vllm_doctor_checks.parallel import Sizes

LEVEL, BIND, SPACE = "VLLM_LOGGING_LEVEL", "VLLM_CPU_OMP_THREADS_BIND", "VLLM_CPU_KVCACHE_SPACE"
# SOURCE: vllm/logger.py of 0.32.0 hands the upper-cased word to logging.config.dictConfig; `logging._nameToLevel`.
_LEVELS = ("DEBUG", "INFO", "WARNING", "WARN", "ERROR", "CRITICAL", "FATAL", "NOTSET")
# SOURCE: `_parse_omp_threads_bind_env` of vllm/utils/ompmultiprocessing.py, 0.32.0: ranges of cores, one list per rank.
_CORES = re.compile(r"\d+(?:-\d+)?(?:,\d+(?:-\d+)?)*$")


def judge(snapshot: Snapshot, name: str, value: str, shown: str) -> Iterator[Finding]:
    """The value of one of those variables; others pass. `shown` is how the finding prints it."""
    if name == LEVEL and value.upper() not in _LEVELS and _configures_logging(snapshot):
        title = f"{LEVEL} takes no {value!r}: vLLM ends before it does anything"
        meant = {"TRACE": "DEBUG", "VERBOSE": "DEBUG", "WARNINGS": "WARNING", "ERR": "ERROR"}.get(value.upper(), "INFO")
        evidence = (shown, f"the levels are {', '.join(_LEVELS)}")
        yield _found(name, meant, title, evidence)
    elif name == BIND and snapshot.platform == "cpu" and not _binds(value):
        title = f"{BIND} must be auto, nobind or lists of cores, and is {value!r}"
        yield _found(name, "auto", title, (shown, "e.g. 0-7 for one worker, 0-7|8-15 for two"))
    elif name == BIND and snapshot.platform == "cpu" and snapshot.launch is not None:
        yield from _lists(snapshot.launch, value, shown)
    elif (
        name == SPACE and snapshot.platform == "cpu" and value.strip().startswith("-") and value.strip()[1:].isdecimal()
    ):
        title = f"{SPACE} must not be negative, and is {value}"
        yield _found(name, "4", title, (shown, "the size of the KV cache in GiB; 0 leaves it to vLLM"))


def _lists(launch: Launch, value: str, shown: str) -> Iterator[Finding]:
    """A list of cores for each worker, more do no harm (the AssertionError `doesn't match local world size`)."""
    lists, sizes = value.count("|") + 1, Sizes(launch)
    if value not in ("auto", "nobind") and lists < sizes.here and (launch.number("--nnodes") or 1) <= 1:
        title = f"{BIND} has {lists} list{'s' * (lists != 1)} of cores, and the launch has {sizes.here} workers"
        yield _found(BIND, "nobind", title, (shown, sizes.shown))


def _found(name: str, meant: str, title: str, evidence: tuple[str, ...]) -> Finding:
    fixes = (
        Fix(title=f"Set {name}={meant}", launch=LaunchEdit(env={name: meant}), automatic=True),
        Fix(title=f"Or drop {name}", launch=LaunchEdit(env={name: None})),
    )
    return error("bad-env-var", title, evidence=evidence, fixes=fixes)


def _configures_logging(snapshot: Snapshot) -> bool:
    values = snapshot.variables
    return values.get("VLLM_CONFIGURE_LOGGING") != "0" and not values.get("VLLM_LOGGING_CONFIG_PATH")


def _binds(value: str) -> bool:
    if value in ("auto", "nobind", ""):
        return True
    return len(value) > 10_000 or all(_CORES.match(part.strip()) for part in value.split("|"))
