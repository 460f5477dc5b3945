"""Titles and fixes with what a signature captured: a fix with a hole that nothing fills is left out."""

import re
from collections.abc import Callable, Mapping

from vllm_doctor.finding import Fix, LaunchEdit
from vllm_doctor.triage.signature import FixTemplate, Signature

_HOLE = re.compile(r"\{(\w+)\}")

# Holes that a title can do without.
_OPTIONAL = frozenset({"name_of", "when_of"})

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
    if stage:
        known["when_of"] = _STAGE_WORDS.get(stage, "")
    if "capability" in known:
        known["name_of"] = f" ({known['capability']})"
    return {name: value for name, value in known.items() if value}


def _share(free: str, total: str) -> str:
    """The share of the memory that is free, rounded down to two places; "" where the numbers make no sense."""
    try:
        share = float(free) / float(total)
    except (ValueError, ZeroDivisionError):
        return ""
    return f"{int(share * 100) / 100:.2f}" if 0.05 <= share <= 1 else ""


def title(signature: Signature, known: Mapping[str, str]) -> str:
    """The title with its holes filled; the bare one where a value is missing."""
    missing = set(_HOLE.findall(signature.title)) - known.keys() - _OPTIONAL
    wording = signature.bare_title if missing else signature.title
    return _HOLE.sub(lambda m: known.get(m[1], ""), wording)


def fixes(signature: Signature, known: Mapping[str, str]) -> tuple[Fix, ...]:
    """The fixes of which every hole is filled, each title once; not a bare one that a filled one says with values."""
    found: dict[str, Fix] = {}
    said: list[str] = []
    for template in signature.fix:
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
