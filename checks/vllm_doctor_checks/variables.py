"""Checks of the environment variables that vLLM reads: names, values, and those that Kubernetes makes up."""

import re
from collections.abc import Iterator, Mapping

from vllm_doctor.check import NotKnown, check, known
from vllm_doctor.finding import Confidence, Finding, Fix, LaunchEdit, error, info, warning
from vllm_doctor.launch.spelling import nearest
from vllm_doctor.releases import NEVER_EXISTED, EnvVar, Release, env_history, newest, removed_env_replacement
from vllm_doctor.snapshot import Snapshot
from vllm_doctor_checks import variable_values
from vllm_doctor_checks.devices import variables
from vllm_doctor_checks.launching import is_placeholder, numbers, planned_release

# What Kubernetes sets in every pod for a service of the namespace that is called `vllm...`.
# SOURCE: Kubernetes documentation, "Accessing the Service": {NAME}_SERVICE_HOST, {NAME}_PORT and so on.
_SERVICE_LINK = re.compile(
    r"VLLM(?:_[A-Z0-9_]+)?_(?:SERVICE_HOST|SERVICE_PORT(?:_[A-Z0-9_]+)?|PORT_\d+_(?:TCP|UDP|SCTP).*)$"
)
_LINK_VALUE = re.compile(r"(?:tcp|udp|sctp)://[0-9A-Za-z.\[\]:-]{1,100}:\d{1,5}$")

# Every registered variable is evaluated once at the start (`enable_envs_cache`), whether or not it is used; in earlier
# releases only where it is used. Tried with 0.32.0: VLLM_DEBUG_WORKSPACE=yes ends the start.
_ALL_EVALUATED_FROM = (0, 12)
# An unknown variable is warned of from this release on (vllm/platforms/interface.py).
_WARNS_FROM = (0, 17)

_MEANT_AS_TRUE = frozenset({"yes", "on", "y", "t", "enable", "enabled"})
# Variables of others that a launch sets often, so that a slip in the name is worth a word.
_COMMON = (
    "CUDA_VISIBLE_DEVICES",
    "CUDA_DEVICE_ORDER",
    "HF_TOKEN",
    "HF_HOME",
    "HF_HUB_OFFLINE",
    "HF_ENDPOINT",
    "NCCL_DEBUG",
)


def _values(snapshot: Snapshot) -> Mapping[str, str | None]:
    """The variables of the launch over those of the host; the host's must be known unless a container runs."""
    if snapshot.launch is None or snapshot.launch.docker is None:
        known(snapshot.host)
    return variables(snapshot)


def _where(snapshot: Snapshot, name: str) -> str:
    in_launch = snapshot.launch is not None and name in snapshot.launch.environment
    return "set by the launch command" if in_launch else "set in the environment of this shell"


def _set_or_drop(name: str, value: str | None, title: str, *, automatic: bool = True) -> Fix:
    return Fix(title=title, launch=LaunchEdit(env={name: value}), automatic=automatic)


def is_service_link(name: str, value: str | None) -> bool:
    """Whether Kubernetes made the variable for a service, and nobody meant it for vLLM."""
    if _SERVICE_LINK.match(name):
        return True
    return name.startswith("VLLM") and name.endswith("_PORT") and value is not None and bool(_LINK_VALUE.match(value))


@check("env-unknown", causes=("bad-env-var",), needs=())
def env_unknown(snapshot: Snapshot) -> Iterator[Finding]:
    """A `VLLM_*` variable that this vLLM does not read.

    A variable that was retired, that comes only with a later release, or that never existed: setting it does nothing.

    Why: vLLM reads only the variables it knows; from 0.17.0 it warns of others, before that it says nothing.
    Fix: use the flag or variable that took its place, or drop it.
    """
    values = _values(snapshot)
    asked = sorted(
        name for name, value in values.items() if name.startswith("VLLM_") and not is_service_link(name, value)
    )
    if snapshot.launch is not None:
        yield from _misspelt(snapshot)
    if not asked:
        return
    try:
        release = planned_release(snapshot)
    except NotKnown:
        yield from (f for name in asked if name in NEVER_EXISTED and (f := _never(snapshot, name, values[name])))
        raise
    strict = snapshot.launch is not None and snapshot.launch.has("--fail-on-environ-validation")
    for name in asked:
        if name not in release.env and (found := _unknown(snapshot, name, values[name], release, strict=strict)):
            if strict:
                yield error(found.cause, found.title, evidence=found.evidence, fixes=found.fixes)
            else:
                yield found


def _misspelt(snapshot: Snapshot) -> Iterator[Finding]:
    assert snapshot.launch is not None
    for name, value in snapshot.launch.environment.items():
        if name.startswith("VLLM_") or name in _COMMON:
            continue
        if guess := nearest(name, _COMMON, 1 if len(name) < 10 else 2):
            yield warning(
                "bad-env-var",
                f"{name} is nothing that vLLM or its libraries read; {guess} is",
                evidence=(f"{name}={value}",),
                fixes=(Fix(title=f"Write {guess}", launch=LaunchEdit(env={name: None, guess: value})),),
            )


def _unknown(
    snapshot: Snapshot, name: str, value: str | None, release: Release, *, strict: bool = False
) -> Finding | None:
    spans = env_history(name)
    if spans:
        return _of_another_release(snapshot, name, value, release)
    if name in NEVER_EXISTED:
        return _never(snapshot, name, value)
    own = [known_name for known_name in release.env if known_name.startswith("VLLM_")]
    guess = nearest(name, own, 2)
    evidence = (
        f"{_shown(name, value)}, {_where(snapshot, name)}",
        f"no vLLM release from 0.4.0 to {newest()} reads it",
    )
    if guess is not None:
        fix = Fix(
            title=f"Write {guess}", launch=LaunchEdit(env={name: None, guess: value}), automatic=value is not None
        )
        return warning("bad-env-var", f"vLLM knows no {name}; the nearest is {guess}", evidence=evidence, fixes=(fix,))
    if not strict and (snapshot.launch is None or name not in snapshot.launch.environment):
        # The name may belong to a launcher or a plugin; nothing in the launch says that vLLM was meant.
        return None
    return info(
        "bad-env-var",
        f"vLLM {release.version} does not read {name}",
        evidence=evidence,
        fixes=(_set_or_drop(name, None, f"Drop {name}, if it is not a plugin's", automatic=False),),
    )


def _shown(name: str, value: str | None) -> str:
    return name if value is None else f"{name}={value[:120]}"


def _of_another_release(snapshot: Snapshot, name: str, value: str | None, release: Release) -> Finding:
    spans = env_history(name)
    evidence = [f"{_shown(name, value)}, {_where(snapshot, name)}"]
    evidence.append(
        f"read by vLLM {', '.join(f'{s.first} to {s.last or newest()}' for s in spans)}; this is {release.version}"
    )
    if numbers(release.version) >= _WARNS_FROM:
        evidence.append(f"vLLM only warns: Unknown vLLM environment variable detected: {name}")
    if numbers(spans[0].first) > numbers(release.version):
        title = f"{name} does nothing before vLLM {spans[0].first}"
        fixes: tuple[Fix, ...] = (_set_or_drop(name, None, f"Drop {name}, or run vLLM {spans[0].first} or newer"),)
    else:
        instead = removed_env_replacement(name)
        title = f"{name} does nothing: vLLM {release.version} has it no more"
        fixes = (_instead(name, value, instead, release),)
    return warning("bad-env-var", title, evidence=tuple(evidence), fixes=fixes, confidence=Confidence.CERTAIN)


def _instead(name: str, value: str | None, instead: str | None, release: Release) -> Fix:
    words = (instead or "").split(" ")
    flag = release.flags.get(words[0])
    if instead is None or instead.startswith("drop it") or flag is None:
        return _set_or_drop(name, None, f"Drop {name}" if instead is None else f"{name}: {instead}")
    meant = words[1] if len(words) == 2 else value
    usable = len(words) <= 2 and meant is not None and not is_placeholder(meant) and flag.kind != "bool"
    if name == "VLLM_ATTENTION_BACKEND":
        usable = usable and (meant or "").upper() in release.attention_backends
    edit = LaunchEdit(env={name: None}, set={words[0]: meant} if usable else {})
    return Fix(title=f"Use {instead}" + ("" if usable else f", or drop {name}"), launch=edit, automatic=usable)


def _never(snapshot: Snapshot, name: str, value: str | None) -> Finding:
    text = NEVER_EXISTED[name]
    edit = LaunchEdit(env={name: None})
    if text.startswith("--") and " " not in text and value is not None and not is_placeholder(value):
        edit = LaunchEdit(env={name: None}, set={text: value})
    elif text.startswith("VLLM_") and " " not in text and value is not None:
        edit = LaunchEdit(env={name: None, text: value})
    return warning(
        "bad-env-var",
        f"{name} is no variable of any vLLM release: it does nothing",
        evidence=(f"{_shown(name, value)}, {_where(snapshot, name)}",),
        fixes=(Fix(title=f"Use {text}", launch=edit, automatic=bool(edit.set) or len(edit.env) > 1),),
        confidence=Confidence.CERTAIN,
    )


@check("env-value", causes=("bad-env-var",), needs=())
def env_value(snapshot: Snapshot) -> Iterator[Finding]:
    """A variable of vLLM with a value that it cannot read, or reads otherwise than it was meant.

    A word where `int()` is applied (`4GB`, `true`, nothing at all), a choice that does not exist, `yes` where only `1`
    and `true` count.

    Why: vLLM evaluates all its variables at the start; the first that raises ends it with a ValueError in a worker.
    Fix: set a value of the kind that the evidence names, or drop the variable.
    """
    values = _values(snapshot)
    asked = {name: value for name, value in values.items() if value is not None and not is_placeholder(value)}
    if not any(name.startswith("VLLM_") or name == "VERBOSE" for name in asked):
        return
    release = planned_release(snapshot)
    for name, value in sorted(asked.items()):
        variable = release.env.get(name)
        if variable is not None and not is_service_link(name, value) and not _overwritten(snapshot, name):
            yield from _judged(snapshot, variable, value, release)
            yield from variable_values.judge(snapshot, name, value, f"{_shown(name, value)}, {_where(snapshot, name)}")


def _overwritten(snapshot: Snapshot, name: str) -> bool:
    """Whether vLLM sets the variable itself before it reads it (vllm/platforms/cpu.py, 0.32.0)."""
    return snapshot.platform == "cpu" and name == "VLLM_WORKER_MULTIPROC_METHOD"


def _judged(snapshot: Snapshot, variable: EnvVar, value: str, release: Release) -> Iterator[Finding]:
    name = variable.name
    certain = numbers(release.version) >= _ALL_EVALUATED_FROM and variable.registered
    judge = error if certain else warning
    evidence = (f"{_shown(name, value)}, {_where(snapshot, name)}",)
    if variable.converter == "int" and not _is_int(value):
        wanted = "0 or 1" if variable.kind == "bool" else "a whole number without a unit"
        guess = _meant_number(variable, value)
        yield judge(
            "bad-env-var",
            f"{name} must be {wanted}, and is {value!r}",
            evidence=evidence,
            fixes=_fixes(name, guess, wanted),
        )
    elif variable.converter == "float" and not _is_float(value):
        yield judge(
            "bad-env-var",
            f"{name} must be a number, and is {value!r}",
            evidence=evidence,
            fixes=_fixes(name, None, "a number"),
        )
    elif name == "VLLM_PORT" and not _is_int(value):
        yield judge(
            "bad-env-var",
            f"VLLM_PORT must be a port number, and is {value!r}",
            evidence=evidence,
            fixes=_fixes(name, None, "a number"),
        )
    elif variable.choices and not _is_choice(value, variable.choices):
        shown = ", ".join(variable.choices)
        guess = nearest(value.lower(), [c.lower() for c in variable.choices])
        exact = next((c for c in variable.choices if c.lower() == guess), None)
        more = (*evidence, f"the choices are {shown}")
        yield judge(
            "bad-env-var", f"{name} takes no {value!r}", evidence=more, fixes=_fixes(name, exact, f"one of {shown}")
        )
    elif variable.kind == "bool" and variable.converter is None and value.strip().lower() in _MEANT_AS_TRUE:
        yield warning(
            "bad-env-var",
            f"{name}={value} does not switch it on: vLLM reads 1 or true",
            evidence=evidence,
            fixes=_fixes(name, "1", "1 or true"),
        )


def _fixes(name: str, guess: str | None, wanted: str) -> tuple[Fix, ...]:
    drop = _set_or_drop(name, None, f"Drop {name}", automatic=guess is None)
    if guess is None:
        return (Fix(title=f"Set {name} to {wanted}"), drop)
    return (_set_or_drop(name, guess, f"Set {name}={guess}"),)


def _meant_number(variable: EnvVar, value: str) -> str | None:
    """`yes` and `4GB`: the number that was plainly meant."""
    word = value.strip().lower()
    if variable.kind == "bool":
        if word in ("true", *_MEANT_AS_TRUE):
            return "1"
        return "0" if word in ("false", "no", "off", "n", "f", "disable", "disabled") else None
    digits = word.removesuffix("ib").removesuffix("b").removesuffix("g").strip()
    # VLLM_CPU_KVCACHE_SPACE counts GiB (vllm/envs.py).
    return digits if variable.name == "VLLM_CPU_KVCACHE_SPACE" and digits.isdecimal() else None


def _is_int(value: str) -> bool:
    text = value.strip()
    digits = text[1:] if text[:1] in ("+", "-") else text
    return text.isascii() and all(part.isdecimal() for part in digits.split("_"))


def _is_float(value: str) -> bool:
    try:
        float(value)
    except ValueError:
        return False
    return True


def _is_choice(value: str, choices: tuple[str, ...]) -> bool:
    """Case is not judged: some variables fold it. Lists are taken apart at their commas."""
    allowed = {choice.lower() for choice in choices}
    return all(part.strip().lower() in allowed for part in value.split(","))


@check("env-service-links", causes=("bad-env-var",), needs=())
def env_service_links(snapshot: Snapshot) -> Iterator[Finding]:
    """Kubernetes has set `VLLM_*` variables for a service that is called `vllm`.

    For each service of a namespace Kubernetes sets `NAME_PORT=tcp://...` and others in every pod. One called `vllm`
    overwrites vLLM's own `VLLM_PORT`, which must be a number.

    Why: vLLM ends with `VLLM_PORT 'tcp://...' appears to be a URI` in a worker, also where one GPU is used.
    Fix: rename the service, set `enableServiceLinks: false` in the pod's spec, or unset VLLM_PORT before the launch.
    """
    links = {n: v for n, v in sorted(_values(snapshot).items()) if is_service_link(n, v)}
    if not links:
        return
    evidence = tuple(f"{_shown(name, value)}" for name, value in list(links.items())[:6])
    fixes = (
        Fix(title="Set `enableServiceLinks: false` in the pod's spec, or give the service another name than vllm"),
        Fix(title="Take VLLM_PORT away for this launch", command=("unset", "VLLM_PORT")),
    )
    if "VLLM_PORT" in links:
        title = "VLLM_PORT was set by Kubernetes for a service called vllm, and vLLM reads it as its own port"
        yield error("bad-env-var", title, evidence=evidence, fixes=fixes)
    else:
        title = "Kubernetes has set variables with vLLM's prefix for a service; vLLM warns of them and ignores them"
        yield info("bad-env-var", title, evidence=evidence, fixes=fixes[:1])
