"""Flags that take JSON: whether it is JSON, an object where one is needed, and of known keys."""

import json
import re
from collections.abc import Iterator

from vllm_doctor.facts import FlagUse
from vllm_doctor.finding import Confidence, Finding, Fix, LaunchEdit, error, warning
from vllm_doctor.launch import config_keys
from vllm_doctor.launch.spelling import nearest
from vllm_doctor.releases import Release
from vllm_doctor_checks import flag_json_values

# Numbers with a unit outside of strings: vLLM expands them first (`_expand_json_human_readable_numbers`, 0.32.0).
_SUFFIXED = re.compile(r'("(?:[^"\\]|\\.)*")|\b(\d+)(?:\.\d+)?[kKmMgGtT]\b')
_LISTS = frozenset({"--allowed-origins", "--allowed-methods", "--allowed-headers"})
_LONGEST_JSON = 100_000
_LONGEST_WITH_UNITS = 2_000


def is_braced(value: str) -> bool:
    """Text that vLLM takes for JSON where a flag takes both (`union_dict_and_str`)."""
    return value.strip()[:1] == "{" and value.strip()[-1:] == "}"


def judge(use: FlagUse, name: str, value: str, release: Release) -> Iterator[Finding]:
    """The value of a flag that takes one JSON document."""
    try:
        document = _document(name, value)
    except (ValueError, RecursionError) as problem:
        yield error(
            "bad-flag",
            f"The value of {name} is no JSON",
            evidence=(f"{use.spelled} {value[:200]}", str(problem)[:200]),
            fixes=(_quoting(use, name, value),),
        )
        return
    if not isinstance(document, dict) and name in config_keys.CONFIG_KEYS and release.version == config_keys.RELEASE:
        yield error(
            "bad-flag",
            f"{name} needs a JSON object, and {value[:60]!r} is none",
            evidence=(
                f"{use.spelled} {value[:200]}",
                f"its keys are {', '.join(sorted(config_keys.CONFIG_KEYS[name])[:40])}",
            ),
            fixes=(Fix(title=f"Write an object in single quotes, or single keys as {name}.KEY VALUE"),),
        )
    if isinstance(document, dict):
        yield from _keys(name, tuple(document), release, f"{use.spelled} {value[:200]}", use)
        yield from flag_json_values.judge(use, name, document, release)


def _document(name: str, value: str) -> object:
    if _is_json(value) or name not in config_keys.CONFIG_KEYS or name in config_keys.LATER:
        return json.loads(value[:_LONGEST_JSON])
    if len(value) > _LONGEST_WITH_UNITS:
        raise ValueError("it is too long to be read with its units")
    return json.loads(_SUFFIXED.sub(lambda m: m[1] or m[2], value))


def _quoting(use: FlagUse, name: str, value: str) -> Fix:
    repaired = value.replace("'", '"')
    if '"' not in value and "'" in value and _is_json(repaired):
        return Fix(title="Write JSON with double quotes", launch=LaunchEdit(set={name: repaired}), automatic=True)
    if name in _LISTS and not value.startswith("["):
        document = json.dumps([part.strip() for part in value.split(",")])
        return Fix(title=f"Write {name} '{document}'", launch=LaunchEdit(set={name: document}), automatic=True)
    pairs = [part.partition("=")[::2] for part in value.split(",")]
    if "{" not in value and all(k and v.isdecimal() for k, v in pairs):
        document = json.dumps({k: int(v[:18]) for k, v in pairs})
        return Fix(
            title=f"Write {name} '{document}'", launch=LaunchEdit(set={name: document}), automatic=len(use.values) == 1
        )
    if value.startswith("{") and '"' not in value:
        return Fix(title="Put the JSON in single quotes: the shell has taken the double quotes away")
    return Fix(title=f"Write one JSON object in single quotes, or single keys as {name}.KEY VALUE")


def _is_json(text: str) -> bool:
    try:
        json.loads(text[:_LONGEST_JSON])
    except (ValueError, RecursionError):
        return False
    return True


def judge_dotted(use: FlagUse, release: Release) -> Iterator[Finding]:
    """One key of a configuration, given as `--x-config.key value`."""
    name, _, keys = use.name.partition(".")
    yield from _keys(
        name, (keys.partition(".")[0].rstrip("+"),), release, f"{use.spelled} {use.value or ''}".strip(), use
    )
    if use.value is not None and "." not in keys and not keys.endswith("+"):
        yield from flag_json_values.judge_value(use, f"{name}.{keys}", use.value, release)


def _keys(name: str, keys: tuple[str, ...], release: Release, shown: str, use: FlagUse) -> Iterator[Finding]:
    allowed = config_keys.CONFIG_KEYS.get(name)
    if allowed is None:
        return
    for key in keys:
        if key in allowed or not key:
            continue
        guess = nearest(key, allowed, 2)
        title = f"{name} has no key {key!r}" + (f"; the nearest is {guess!r}" if guess else "")
        evidence = (shown, f"the keys of vLLM {config_keys.RELEASE}: {', '.join(sorted(allowed)[:40])}")
        fixes = _key_fix(use, name, key, guess)
        if release.version == config_keys.RELEASE:
            yield error("bad-flag", title, evidence=evidence, fixes=fixes)
        elif guess is not None:
            yield warning("bad-flag", title, evidence=evidence, fixes=fixes, confidence=Confidence.LIKELY)


def _key_fix(use: FlagUse, name: str, key: str, guess: str | None) -> tuple[Fix, ...]:
    if guess is None:
        return (Fix(title=f"Drop the key {key!r}, or write one of those named"),)
    if "." in use.name:
        head, _, rest = use.spelled.partition(".")
        renamed = f"{head}.{rest.replace(key, guess, 1)}"
        edit = LaunchEdit(set={renamed: use.value}, unset=(use.spelled,))
    else:
        edit = LaunchEdit(set={name: (use.value or "").replace(f'"{key}"', f'"{guess}"', 1)})
    return (Fix(title=f"Write {guess!r}", launch=edit, automatic=True),)
