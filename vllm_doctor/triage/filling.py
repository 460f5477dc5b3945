"""Titles and fixes with what a signature captured: a fix with a hole that nothing fills is left out."""

import re
from collections.abc import Callable, Iterable, Mapping

from vllm_doctor.finding import Fix, LaunchEdit
from vllm_doctor.triage.knowing import known_of
from vllm_doctor.triage.signature import FixTemplate, Signature

_HOLE = re.compile(r"\{(\w+)\}")

# Holes that a title can do without.
_OPTIONAL = frozenset({"name_of", "when_of"})

# What pydantic puts between the names of fields: the member of a union that it tried.
_SHAPES = frozenset({"typed-dict", "model", "json-or-python", "function-wrap"})

_STAGE_WORDS = {
    "init": " while the model is set up",
    "load": " while the weights load",
    "profile": " in the profile run",
    "warmup": " in the warm-up",
    "kv": " while the KV cache is allocated",
    "capture": " while CUDA graphs are captured",
    "serving": " while serving",
}


def values(captures: Mapping[str, str], stage: str = "") -> dict[str, str]:
    """The captures and what follows from them, for titles and fixes."""
    known = {name: value.strip() for name, value in captures.items() if value.strip()}
    if "free" in known and "total" in known:
        known["free_share"] = _share(known["free"], known["total"])
    if "field" in known:
        known["field"] = _path(known["field"])
    if stage:
        known["when_of"] = _STAGE_WORDS.get(stage, "")
    if "capability" in known:
        known["name_of"] = f" ({known['capability']})"
    if room := _room(known):
        known["room"] = room
    return {name: value for name, value in known.items() if value} | known_of(known)


def _share(free: str, total: str) -> str:
    """The share of the memory that is free, rounded down to two places; "" where the numbers make no sense."""
    try:
        share = float(free) / float(total)
    except (ValueError, ZeroDivisionError):
        return ""
    return f"{int(share * 100) / 100:.2f}" if 0.05 <= share <= 1 else ""


def _path(location: str) -> str:
    """A place in the body as people write it: `messages[2].id` of pydantic's `'messages', 2, 'typed-dict', 'id'`."""
    path = ""
    for part in (part.strip().strip("'") for part in location.split(",")):
        if part.isdecimal():
            path += f"[{part}]"
        elif part and part not in _SHAPES:
            path += f".{part}" if path else part
    return path


def _room(known: Mapping[str, str]) -> str:
    """The tokens that a prompt leaves for the answer; "" where it leaves none, or where the text does not say."""
    try:
        room = int(known["limit"]) - int(known["prompt"])
    except (KeyError, ValueError):
        return ""
    return str(room) if room > 0 else ""


def title(signature: Signature, known: Mapping[str, str]) -> str:
    """The title with its holes filled; the bare one where a value is missing."""
    return filled(signature.title, known) or signature.bare_title


def filled(wording: str, known: Mapping[str, str]) -> str:
    """A title with its holes filled, "" where a value is missing."""
    if set(_HOLE.findall(wording)) - known.keys() - _OPTIONAL:
        return ""
    return _HOLE.sub(lambda m: known.get(m[1], ""), wording)


def fixes(templates: Iterable[FixTemplate], known: Mapping[str, str]) -> tuple[Fix, ...]:
    """The fixes of which every hole is filled, each title once; not a bare one that a filled one says with values."""
    found: dict[str, Fix] = {}
    said: list[str] = []
    for template in templates:
        fix = _filled(template, known)
        if fix is None or any(_is_bare_form(fix.title, of) for of in said):
            continue
        if _HOLE.search(template.title):
            said.append(template.title)
        found.setdefault(fix.title, fix)
    return tuple(found.values())


def _is_bare_form(title: str, of: str) -> bool:
    """Whether the title says what the template does, with other words in place of its hole."""
    before, *_, after = _HOLE.split(of)
    return len(before + after) > 20 and title.startswith(before) and title.endswith(after)


class _Unfilled(Exception):
    """A hole without a value."""


def _filled(template: FixTemplate, known: Mapping[str, str]) -> Fix | None:
    def fill(text: str) -> str:
        return _HOLE.sub(lambda m: _value(known, m[1]), text)

    try:
        return Fix(
            title=fill(template.title),
            command=tuple(fill(word) for word in template.command) or None,
            launch=_edit(template, fill),
            settings={name: fill(value) for name, value in template.settings.items()} or None,
        )
    except _Unfilled:
        return None


def _value(known: Mapping[str, str], name: str) -> str:
    if name not in known:
        raise _Unfilled(name)
    return known[name]


def _edit(template: FixTemplate, fill: Callable[[str], str]) -> LaunchEdit | None:
    if not (template.set or template.unset or template.env):
        return None
    return LaunchEdit(
        set={flag: fill(value) or None for flag, value in template.set.items()},
        unset=tuple(fill(flag) for flag in template.unset),
        env={name: fill(value) for name, value in template.env.items()},
    )
