"""The check of flag names: flags that the release to be run does not know."""

from collections.abc import Iterator

from vllm_doctor.check import NotKnown, check
from vllm_doctor.facts import FlagUse
from vllm_doctor.finding import Finding, Fix, LaunchEdit, error, warning
from vllm_doctor.launch.edit import words_of
from vllm_doctor.launch.spelling import nearest
from vllm_doctor.launch.strangers import OF_OTHERS, OF_OTHERS_ONLY
from vllm_doctor.releases import NEVER_EXISTED, flag_history, newest, removed_flag_replacement
from vllm_doctor.snapshot import Snapshot
from vllm_doctor_checks.launching import Options, newest_release, numbers, options_of, planned_release, plugin

# `--task` of 0.6.4 to 0.12.0 and what each of its values became (release notes of 0.13.0; the hint that 0.32.0 prints).
_TASKS: dict[str, dict[str, str | None] | None] = {
    "generate": {},
    "auto": {},
    "embed": {"--runner": "pooling", "--convert": "embed"},
    "embedding": {"--runner": "pooling", "--convert": "embed"},
    "classify": {"--runner": "pooling", "--convert": "classify"},
    "score": {"--runner": "pooling", "--convert": "classify"},
    "reward": {"--runner": "pooling"},
}
# Fewer than so many per step cannot be tokens: `--max-num-batches 8` was meant for sequences.
_FEWEST_TOKENS = 1024


@check("unknown-flag", causes=("bad-flag",), needs=("launch",))
def unknown_flag(snapshot: Snapshot) -> Iterator[Finding]:
    """A flag that this vLLM does not know.

    A name that the release never had, has no more or has not yet, or an abbreviation that fits several flags.
    Underscores, short forms and abbreviations that fit one flag are as good as the full name.

    Why: argparse ends the start with exit code 2 and `unrecognized arguments`, before anything is loaded.
    Fix: write the name that this release has; `vllm-doctor releases VERSION` lists them.
    """
    assert snapshot.launch is not None
    try:
        planned, unsure = planned_release(snapshot), None
    except NotKnown as problem:
        planned, unsure = newest_release(), str(problem)
    version, options = planned.version, options_of(planned)
    seen: set[str] = set()
    for use in snapshot.launch.flags:
        if use.spelled in seen or use.spelled.startswith("-O"):
            continue
        seen.add(use.spelled)
        fitting = options.resolve(use.spelled)
        if len(fitting) > 1:
            yield from _ambiguous(use, fitting, version) if unsure is None else ()
        elif not fitting and (unsure is None or not flag_history(use.name.partition(".")[0])):
            yield _unknown(snapshot, use, options, version, unsure)
    if unsure is not None:
        raise NotKnown(unsure)


def _ambiguous(use: FlagUse, fitting: tuple[str, ...], version: str) -> Iterator[Finding]:
    shown = ", ".join(sorted(fitting)[:6])
    yield error(
        "bad-flag",
        f"{use.spelled} is short for several flags of vLLM {version}: {shown}",
        evidence=(
            f"{use.spelled} {' '.join(use.values)}".strip(),
            "argparse takes an abbreviation that fits one flag only",
        ),
        fixes=(Fix(title="Write the whole name of the flag that is meant"),),
    )


def _unknown(snapshot: Snapshot, use: FlagUse, options: Options, version: str, unsure: str | None) -> Finding:
    name = use.name.partition(".")[0]
    spans = flag_history(name)
    title, fixes = _explained(use, name, options, version, bool(spans))
    evidence = [f"{use.spelled} {' '.join(use.values)}".strip() + _where(use)]
    if spans:
        evidence.append(f"{name} exists in vLLM " + ", ".join(f"{s.first} to {s.last or newest()}" for s in spans))
    else:
        evidence.append(f"no vLLM release from 0.4.0 to {newest()} has {name}")
    stranger = None if unsure else plugin(snapshot)
    if stranger is not None:
        evidence.append(f"{stranger} may bring flags of its own")
    if unsure is not None or (stranger is not None and not spans):
        return warning("bad-flag", title, evidence=(*evidence, *([unsure] if unsure else [])), fixes=fixes)
    return error("bad-flag", title, evidence=tuple(evidence), fixes=fixes)


def _where(use: FlagUse) -> str:
    return "" if use.source == "command" else f" (in {use.source})"


def _explained(use: FlagUse, name: str, options: Options, version: str, existed: bool) -> tuple[str, tuple[Fix, ...]]:
    spans = flag_history(name)
    if existed and numbers(spans[0].first) > numbers(version):
        why = f"{name} comes only with vLLM {spans[0].first}; this is {version}"
        return why, (Fix(title=f"Drop {name}, or run vLLM {spans[0].first} or newer", launch=_dropped(use)),)
    if existed:
        last = [s.last for s in spans if s.last and numbers(s.last) <= numbers(version)][-1:] or [version]
        instead = removed_flag_replacement(name) or "drop it"
        return f"{name} is gone from vLLM {version} (last in {last[0]})", _replaced(use, name, instead, options)
    if name in NEVER_EXISTED:
        return f"{name} is no flag of any vLLM release", _meant(use, name, NEVER_EXISTED[name], options)
    if name in OF_OTHERS:
        owner, own = OF_OTHERS[name]
        return f"{name} is a flag of {owner}, not of vLLM", _of_another(use, own, options)
    if name in OF_OTHERS_ONLY:
        owner, instead = OF_OTHERS_ONLY[name]
        fix = Fix(title=f"Drop {name}: {instead}", launch=_dropped(use), automatic=True)
        return f"{name} is a flag of {owner}, not of vLLM", (fix,)
    guess = nearest(name, options.long)
    if guess is None:
        return f"vLLM {version} has no flag {name}", (Fix(title=f"Drop {name}", launch=_dropped(use)),)
    return f"vLLM {version} has no flag {name}; the nearest is {guess}", (_set_instead(use, guess, options),)


def _dropped(use: FlagUse) -> LaunchEdit:
    return LaunchEdit(unset=(use.spelled,))


def _set_instead(use: FlagUse, name: str, options: Options) -> Fix:
    """The same value under the right name; only where the two take the same number of words."""
    flag = options.flags.get(options.long.get(name, name))
    takes = flag is not None and flag.nargs != "0" and name == flag.name
    several = flag is not None and takes and words_of(name, "a b") == ("a", "b")
    fits = (bool(use.values) if several else len(use.values) == 1) if takes else not use.values
    value = " ".join(use.values if several else use.values[:1]) if takes and use.values else None
    edit = LaunchEdit(set={name: value}, unset=(use.spelled,))
    words = f"{name} {value}" if value else name
    return Fix(title=f"Write {words} in place of {use.spelled}", launch=edit if fits else None, automatic=fits)


def _replaced(use: FlagUse, name: str, instead: str, options: Options) -> tuple[Fix, ...]:
    if name == "--task":
        return _task(use)
    if instead.startswith("drop it"):
        return (Fix(title=f"{name}: {instead}", launch=_dropped(use), automatic=True),)
    words = instead.split(" ")
    if len(words) == 1 and words[0] in options.long:
        return (_set_instead(use, words[0], options),)
    if len(words) == 2 and words[0] in options.flags and words[1].isascii() and words[1].isalnum():
        edit = LaunchEdit(set={words[0]: words[1]}, unset=(use.spelled,))
        return (Fix(title=f"Write {instead}", launch=edit, automatic=True),)
    return (Fix(title=f"Instead: {instead}", launch=None),)


def _task(use: FlagUse) -> tuple[Fix, ...]:
    became = _TASKS.get(use.value or "")
    if became is None:
        return (Fix(title="Write --runner generate, --runner pooling, or leave it out"),)
    edit = LaunchEdit(set=became, unset=(use.spelled,))
    words = " ".join(f"{k} {v}" for k, v in became.items()) or "no flag: text generation is what it does"
    return (Fix(title=f"Write {words}", launch=edit, automatic=True),)


def _meant(use: FlagUse, name: str, text: str, options: Options) -> tuple[Fix, ...]:
    if name == "--served-models":
        value = use.value or ""
        if len(use.values) == 1 and "=" not in value and "," not in value:
            return (_set_instead(use, "--served-model-name", options),)
        return (Fix(title=_sentence(text)),)
    if name == "--max-num-batches":
        tokens = (use.value or "").isdecimal() and int((use.value or "0")[:9]) >= _FEWEST_TOKENS
        meant, other = (
            ("--max-num-batched-tokens", "--max-num-seqs") if tokens else ("--max-num-seqs", "--max-num-batched-tokens")
        )
        per = {"--max-num-batched-tokens": "tokens per step", "--max-num-seqs": "sequences per step"}
        fix = _set_instead(use, meant, options)
        second = _set_instead(use, other, options)
        return (
            Fix(title=f"Write {meant} ({per[meant]})", launch=fix.launch, automatic=fix.automatic),
            Fix(title=f"Or {other} ({per[other]})", launch=second.launch),
        )
    if text.startswith("drop it"):
        return (Fix(title=_sentence(text), launch=_dropped(use), automatic=True),)
    return (_set_instead(use, text, options),) if text in options.long else (Fix(title=f"Instead: {text}"),)


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _of_another(use: FlagUse, own: str, options: Options) -> tuple[Fix, ...]:
    if own == "MODEL":
        edit = LaunchEdit(positional=use.value, unset=(use.spelled,)) if use.value else None
        return (Fix(title="Give the model as the first word after `serve`", launch=edit, automatic=edit is not None),)
    fix = _set_instead(use, own, options)
    # Another server's number need not mean the same: the name is right, the value is the reader's.
    return (Fix(title=f"Use vLLM's own, {own}", launch=fix.launch),)
