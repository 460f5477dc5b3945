"""Changes of a launch, as a pure function: what a fix would do to the command."""

from collections.abc import Mapping, Sequence

from msgspec.structs import replace

from vllm_doctor.facts import FlagUse, Launch
from vllm_doctor.finding import LaunchEdit
from vllm_doctor.launch.arguments import canonical
from vllm_doctor.launch.program import ASSIGNMENT

# Flags of several words, none of which holds a blank.
_LISTS = frozenset({"--served-model-name", "--cudagraph-capture-sizes"})


def apply(launch: Launch, edit: LaunchEdit) -> Launch:
    """The launch with the edit done to it; doing it twice changes nothing more.

    A flag that stands in a `--config` file is not taken out of it: a value set on the command line wins over it.
    """
    changed = replace(launch, flags=_flags(launch.flags, edit), problems=_problems(launch.problems, edit))
    changed = _words(changed, edit.drop_words)
    if edit.positional is not None:
        changed = _model(changed, edit.positional)
    if "--model" in edit.set or "--model" in edit.unset:
        # A positional model goes where the edit names one by the flag.
        by_flag = edit.positional is None and edit.set.get("--model") is not None
        if by_flag or not changed.model_is_positional:
            changed = replace(changed, model=changed.value("--model"), model_is_positional=False)
    return _variables(changed, edit.env) if edit.env else changed


def _same(use: FlagUse, name: str) -> bool:
    return name in (use.name, use.spelled) or use.name == canonical(name)


def _opposite(name: str) -> str:
    return f"--{name[5:]}" if name.startswith("--no-") else f"--no-{name[2:]}"


def _flags(flags: Sequence[FlagUse], edit: LaunchEdit) -> tuple[FlagUse, ...]:
    wanted = {canonical(name) for name in edit.set}
    unset = [name for name in edit.unset if canonical(name) not in wanted]
    kept = [use for use in flags if use.source != "command" or not any(_same(use, name) for name in unset)]
    for name, value in edit.set.items():
        kept = _set(kept, name, value)
    return tuple(kept)


def _set(flags: Sequence[FlagUse], name: str, value: str | None) -> list[FlagUse]:
    """A flag that was given keeps its place and spelling, one that was not comes last; its opposite goes."""
    typed = [use.source == "command" for use in flags]
    same = [i for i, use in enumerate(flags) if typed[i] and _same(use, name)]
    opposite = [i for i, use in enumerate(flags) if typed[i] and use.name == _opposite(canonical(name))]
    place = next(iter([*same, *opposite]), len(flags))
    spelled = flags[place].spelled if same else name
    new = FlagUse(name=canonical(name), spelled=spelled, values=() if value is None else words_of(name, value))
    drop = {*same, *opposite}
    before = [use for i, use in enumerate(flags[:place]) if i not in drop]
    return [*before, new, *(use for i, use in enumerate(flags[place:], place) if i not in drop)]


def words_of(name: str, value: str) -> tuple[str, ...]:
    """The words of a value on the command line: several names or sizes are a word each, any other value is one."""
    return tuple(value.split()) if canonical(name) in _LISTS else (value,)


def _problems(problems: Sequence[str], edit: LaunchEdit) -> tuple[str, ...]:
    """A complaint begins with the option it is about, and goes with it."""
    changed = {canonical(name) for name in (*edit.set, *edit.unset)}
    return tuple(p for p in problems if canonical(p.partition(" ")[0].rstrip(":")) not in changed)


def _words(launch: Launch, dropped: Sequence[str]) -> Launch:
    """Stray words go; the program that is named twice, after an image whose entry point it is, goes whole."""
    if not dropped:
        return launch
    if launch.docker is not None and tuple(dropped[: len(launch.program)]) == launch.program:
        launch, dropped = replace(launch, program=()), dropped[len(launch.program) :]
    return replace(launch, words=tuple(w for w in launch.words if w not in dropped))


def _model(launch: Launch, name: str) -> Launch:
    if launch.model_is_positional or not launch.has("--model"):
        return replace(launch, model=name, model_is_positional=True)
    flags = [replace(f, values=(name,)) if f.name == "--model" and f.source == "command" else f for f in launch.flags]
    return replace(launch, model=name, flags=tuple(flags))


def _variables(launch: Launch, variables: Mapping[str, str | None]) -> Launch:
    environment = {name: value for name, value in launch.environment.items() if name not in variables}
    environment.update((name, value) for name, value in variables.items() if value is not None)
    changed = replace(launch, environment=environment)
    if launch.docker is not None:
        options = _docker_options(launch.docker.options, variables)
        return replace(changed, docker=replace(launch.docker, options=options))
    return replace(changed, prefix=_prefix(launch.prefix, variables), shell=_prefix(launch.shell, variables, add=False))


def _prefix(prefix: Sequence[str], variables: Mapping[str, str | None], *, add: bool = True) -> tuple[str, ...]:
    words: list[str] = []
    seen: set[str] = set()
    for word in prefix:
        match = ASSIGNMENT.match(word)
        if match is None or match[1] not in variables:
            words.append(word)
            continue
        value = variables[match[1]]
        if value is not None and match[1] not in seen:
            words.append(f"{match[1]}={value}")
        seen.add(match[1])
    new = [f"{name}={value}" for name, value in variables.items() if value is not None and name not in seen]
    # `sudo` and `env` pass on what stands after them; `sudo` drops what stands before.
    names = [w.rsplit("/", 1)[-1] for w in words]
    place = max((i + 1 for i, w in enumerate(names) if w in ("sudo", "env")), default=0)
    while place and place < len(words) and words[place].startswith("-"):
        place += 2 if words[place] in ("-u", "-C", "--unset", "--chdir", "-g") else 1
    return tuple([*words[:place], *new, *words[place:]] if add else words)


def _docker_options(options: Sequence[str], variables: Mapping[str, str | None]) -> tuple[str, ...]:
    words: list[str] = []
    at = 0
    while at < len(options):
        pair, size = _pair(options, at)
        if pair is None or pair.partition("=")[0] not in variables:
            words.extend(options[at : at + size])
        at += size
    for name, value in variables.items():
        if value is not None:
            words.extend(("-e", f"{name}={value}"))
    return tuple(words)


def _pair(options: Sequence[str], at: int) -> tuple[str | None, int]:
    """The `NAME=value` that the option sets, and how many words that took; None where it sets none."""
    option = options[at]
    if option in ("-e", "--env") and at + 1 < len(options):
        return options[at + 1], 2
    if option.startswith("--env="):
        return option[len("--env=") :], 1
    return (option[2:].removeprefix("="), 1) if option[:2] == "-e" and len(option) > 2 else (None, 1)
