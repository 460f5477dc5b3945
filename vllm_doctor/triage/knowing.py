"""What the release data knows of a name that a text holds: flags, variables, architectures, parsers."""

import re
from collections.abc import Callable, Iterator, Mapping

from vllm_doctor import releases, tool_families
from vllm_doctor.launch.spelling import nearest
from vllm_doctor.launch.strangers import OF_OTHERS, OF_OTHERS_ONLY

Pairs = Iterator[tuple[str, str]]

_ARCHITECTURE = re.compile(r"[A-Za-z]\w{3,79}")


def known_of(captures: Mapping[str, str]) -> dict[str, str]:
    """What is to be said of the captured names, under names of its own; nothing of those that the data does not know.

    `version` is the release that the text tells of: what it ought to have is not said to come later, or to be gone.
    `served` is the model: where its family calls tools it brings `tool_parser`, the usual one that the release has.
    `argument` brings `flag` and, of a flag that releases have, `flag_since` (`flag_always` of one that all have); of
    one that is gone `flag_from`, `flag_until` and `flag_instead`; else `flag_meant`. So does `engine_argument`, the
    flag's name in EngineArgs. `architectures` brings `architecture` and the like of it; `parser` and `reasoning_parser`
    bring `parser_since`, `variable` brings `variable_instead`.
    """
    found: dict[str, str] = {}
    for name, look in _LOOKS.items():
        if value := captures.get(name):
            found.update(look(value))
    if parser := _parser_of(captures.get("served", ""), captures.get("version")):
        found["tool_parser"] = parser
    return _without_what_it_has(found, captures.get("version", ""))


def _without_what_it_has(found: dict[str, str], version: str) -> dict[str, str]:
    order = {known: number for number, known in enumerate(releases.known_versions())} if found and version else {}
    now = order.get(version.partition("+")[0])
    if now is None:
        return found
    since = {n for n, v in found.items() if n.endswith("_since") and order.get(v, 0) <= now}
    until = {n for n, v in found.items() if n.endswith("_until") and order.get(v, now) >= now}
    return {name: value for name, value in found.items() if name not in since | until}


def _flag(argument: str) -> Pairs:
    word = argument.partition("=")[0].rstrip("`'\".,;:)")
    name = "--" + word.lstrip("-").replace("_", "-").partition(".")[0]
    if not word.startswith("-") or len(name) < 5:
        return
    spans = releases.flag_history(name)
    if spans and (word.startswith("--") or spans[-1].last is not None):
        yield "flag", name
        yield from _history("flag", spans)
        if instead := releases.removed_flag_replacement(name):
            yield "flag_instead", instead
    elif meant := _meant(name, spans):
        yield "flag", word
        yield "flag_meant", meant


def _engine_argument(name: str) -> Pairs:
    """EngineArgs' fields are the flags with underscores (vllm/engine/arg_utils.py 0.4 - 0.33)."""
    return _flag("--" + name)


def _meant(name: str, spans: tuple[releases.Span, ...]) -> str:
    """What a flag that no release had, or one with too few dashes, stands for; "" where that is not known."""
    if spans:
        return name
    if name in releases.NEVER_EXISTED:
        return releases.NEVER_EXISTED[name]
    if name in OF_OTHERS:
        owner, own = OF_OTHERS[name]
        return f"{'the model as the first word after `serve`' if own == 'MODEL' else own} (this one is {owner}'s)"
    if name in OF_OTHERS_ONLY:
        owner, instead = OF_OTHERS_ONLY[name]
        return f"nothing (this one is {owner}'s): {instead}"
    newest = releases.release(releases.newest())
    return nearest(name, newest.flags if newest else ()) or ""


def _architecture(names: str) -> Pairs:
    first = _ARCHITECTURE.search(names)
    if first and (spans := releases.architecture_history(first[0])):
        yield "architecture", first[0]
        yield from _history("architecture", spans)


def _tool_parser(name: str) -> Pairs:
    yield from _history("parser", releases.tool_parser_history(name))


def _reasoning_parser(name: str) -> Pairs:
    yield from _history("parser", releases.reasoning_parser_history(name))


def _variable(name: str) -> Pairs:
    if instead := releases.removed_env_replacement(name):
        yield "variable_instead", instead


def _parser_of(model: str, version: str | None) -> str | None:
    family = tool_families.family(model)
    parsers = family.parsers if family else ()
    return next((parser for parser in parsers if tool_families.in_release(parser, version)), None)


def _history(name: str, spans: tuple[releases.Span, ...]) -> Pairs:
    """Since when releases have it, or the first and the last one that had it."""
    if spans and spans[-1].last is not None:
        yield f"{name}_from", spans[0].first
        yield f"{name}_until", spans[-1].last
    elif spans:
        always = spans[-1].first == releases.known_versions()[0]
        yield f"{name}_{'always' if always else 'since'}", spans[-1].first


_LOOKS: Mapping[str, Callable[[str], Pairs]] = {
    "argument": _flag,
    "engine_argument": _engine_argument,
    "architectures": _architecture,
    "parser": _tool_parser,
    "reasoning_parser": _reasoning_parser,
    "variable": _variable,
}
