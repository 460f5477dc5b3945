"""Checks of the launch command: its form, its flags, LoRA and the attention backend."""

import json
from collections.abc import Iterator

from msgspec.structs import replace

from vllm_doctor.check import NotApplicable, NotKnown, check
from vllm_doctor.facts import Launch, LaunchForm
from vllm_doctor.facts.launch import integer
from vllm_doctor.finding import Finding, Fix, LaunchEdit, error, info, warning
from vllm_doctor.launch import argv
from vllm_doctor.launch.arity import Arity, arity
from vllm_doctor.launch.docker import is_official
from vllm_doctor.launch.spelling import nearest
from vllm_doctor.releases import Release
from vllm_doctor.snapshot import Snapshot
from vllm_doctor_checks import devices
from vllm_doctor_checks.flag_conflicts import flag_conflict
from vllm_doctor_checks.flag_names import unknown_flag
from vllm_doctor_checks.flag_platform import platform_flag
from vllm_doctor_checks.flag_values import flag_value
from vllm_doctor_checks.kv_cache import kv_cache_size
from vllm_doctor_checks.launch_needs import feature_package, named_path
from vllm_doctor_checks.launching import (
    is_placeholder,
    newest_release,
    numbers,
    planned_release,
    plugin,
    switched,
)

__all__ = [
    "attention_backend_name",
    "feature_package",
    "flag_conflict",
    "flag_value",
    "kv_cache_size",
    "launch_form",
    "lora_flags",
    "named_path",
    "platform_flag",
    "unknown_flag",
]

# From this image on the entry point is `vllm serve`; before it `python3 -m vllm.entrypoints.openai.api_server`.
# SOURCE: ENTRYPOINT of docker/Dockerfile in the source releases 0.11.0 and 0.11.1.
_SERVE_IMAGE_FROM = (0, 11, 1)
# From here on the parser of the module takes a positional word, and ignores it.
_POSITIONAL_ACCEPTED_FROM = (0, 10)
# The last release that reads VLLM_ATTENTION_BACKEND is 0.14.1 (vllm/envs.py).
_BACKEND_VARIABLE_UNTIL = (0, 15)


@check("launch-form", causes=("bad-flag", "flag-conflict"), needs=("launch",))
def launch_form(snapshot: Snapshot) -> Iterator[Finding]:
    """The command itself is miswritten: a wrong program, stray words, a missing value, a broken line.

    The demo server taken for the OpenAI-compatible one, `vllm serve` repeated after an image that runs it already, a
    second positional word, a flag without its value, a line that the shell does not continue.

    Why: vLLM ends with exit code 2, or another server starts than the one that was meant.
    Fix: write the command as the fix shows it.
    """
    launch = snapshot.launch
    assert launch is not None
    if launch.form is LaunchForm.DEMO_SERVER:
        yield _demo_server(launch)
    if _repeated(launch):
        yield _repeated_program(launch)
    elif launch.words:
        yield _stray_words(launch)
    if launch.model is None and launch.config_file is None:
        yield _no_model(launch)
    for problem in launch.problems:
        if not problem.startswith(("--config:", "--env-file:")):
            title = problem[:1].upper() + problem[1:]
            yield error("bad-flag", title, evidence=(f"in: {launch.given[:300]}",), fixes=_problem_fixes(problem))
    if unread := next((p for p in launch.problems if p.startswith("--env-file:")), None):
        yield warning("bad-flag", unread, evidence=(f"in: {launch.given[:300]}",))
    if launch.model_is_positional and _runs_module(launch):
        yield from _model_not_taken(snapshot, launch)
    docker = launch.docker
    if docker is not None and docker.entrypoint is None and not is_official(docker.image):
        raise NotKnown(f"what the image {docker.image} runs by itself is not known")


def _demo_server(launch: Launch) -> Finding:
    serve = replace(
        launch,
        form=LaunchForm.SERVE,
        program=("vllm", "serve"),
        model_is_positional=launch.model is not None,
        flags=tuple(f for f in launch.flags if f.name != "--model"),
    )
    command = argv(serve) if launch.docker is None else None
    return error(
        "bad-flag",
        "vllm.entrypoints.api_server is the old demo server: it is not OpenAI-compatible and has no /v1",
        evidence=(" ".join(launch.program), "the OpenAI-compatible server is `vllm serve`"),
        fixes=(Fix(title="Start the server with `vllm serve`", command=command),),
    )


def _runs_module(launch: Launch) -> bool:
    """Whether `python -m vllm.entrypoints.openai.api_server` gets the words, by itself or as an image's entry point."""
    docker = launch.docker
    if launch.form is LaunchForm.MODULE or any(word.endswith("openai.api_server") for word in launch.program):
        return True
    if docker is None or docker.entrypoint is not None or launch.program or not is_official(docker.image):
        return False
    return docker.version is not None and numbers(docker.version) < _SERVE_IMAGE_FROM


def _model_not_taken(snapshot: Snapshot, launch: Launch) -> Iterator[Finding]:
    """Only `vllm serve` takes the positional word for the model.

    SOURCE: `model_tag` in the sources of 0.10.0 to 0.33.0: `make_arg_parser` accepts it, and nothing but
    entrypoints/cli/serve.py reads it; the parser of 0.9.2 does not have it.
    """
    version = planned_release(snapshot).version
    if numbers(version) < _POSITIONAL_ACCEPTED_FROM:
        title = f"{launch.model} belongs to no flag: vLLM ends with `unrecognized arguments`"
    else:
        title = f"{launch.model} is not taken for the model: the server loads its small default model instead"
    yield error(
        "bad-flag",
        title,
        evidence=(
            f"in: {launch.given[:300]}",
            f"vllm.entrypoints.openai.api_server of {version} takes the model by --model; `vllm serve` takes it as a "
            "word",
        ),
        fixes=(
            Fix(
                title=f"Write --model {launch.model}",
                launch=LaunchEdit(set={"--model": launch.model or ""}),
                automatic=True,
            ),
        ),
    )


def _no_model(launch: Launch) -> Finding:
    """A flag with several values takes every word up to the next flag, a model that comes after it too."""
    lists = [f for f in launch.flags if len(f.values) > 1 and arity(f.name) is Arity.MANY and f.source == "command"]
    if lists:
        last = lists[-1]
        title = f"No model is named: {last.spelled} has taken {last.values[-1]!r} for one of its values"
        fix = Fix(title="Write the model as the first word after `serve`")
        return error("bad-flag", title, evidence=(f"{last.spelled} {' '.join(last.values)}",), fixes=(fix,))
    return warning(
        "bad-flag",
        "No model is named: vLLM serves its small default model",
        evidence=(f"in: {launch.given[:300]}", "the default is opt-125m to 0.9.2, Qwen3-0.6B from 0.10.0"),
        fixes=(Fix(title="Write the model as the first word after `serve`"),),
    )


def _repeated(launch: Launch) -> bool:
    """Whether words follow vLLM's own image that name the program again, with the entry point left as it is."""
    docker = launch.docker
    if docker is None or docker.entrypoint is not None or not is_official(docker.image):
        return False
    return bool(launch.program or launch.shell)


def _repeated_program(launch: Launch) -> Finding:
    assert launch.docker is not None
    typed = launch.program if not launch.shell else launch.shell
    version = launch.docker.version
    old = version is not None and numbers(version) < _SERVE_IMAGE_FROM
    entry = "python3 -m vllm.entrypoints.openai.api_server" if old else "vllm serve"
    edit = LaunchEdit(drop_words=launch.program) if not launch.shell and not old else None
    return error(
        "bad-flag",
        f"The image runs `{entry}` by itself: `{' '.join(typed)}` after it is taken for its arguments",
        evidence=(
            f"image {launch.docker.image}, and after it: {' '.join(typed)}",
            f"entry point of the image: {entry}",
        ),
        fixes=(
            Fix(title="Give only the model and the flags after the image", launch=edit, automatic=edit is not None),
        ),
    )


def _stray_words(launch: Launch) -> Finding:
    named = launch.has("--model") and not launch.model_is_positional
    shown = " ".join(launch.words)[:200]
    guess = _missing_dashes(launch.words)
    if named:
        title = f"The model is named twice: --model {launch.model} and {shown}"
    else:
        title = f"{shown!r} belongs to no flag: vLLM ends with `unrecognized arguments`"
    evidence = [f"the model is {launch.model}; left over: {shown}"]
    if guess:
        evidence.append(f"{launch.words[0]!r} looks like the flag {guess} without its dashes")
    evidence.append("a value with blanks must stand in quotes; a switch takes no value")
    fix = Fix(title=f"Drop {shown}", launch=LaunchEdit(drop_words=launch.words), automatic=True)
    if guess:
        fix = _with_dashes(launch.words, guess)
    elif together := _quoted_together(launch.words[0]):
        fix = together
    return error("flag-conflict" if named else "bad-flag", title, evidence=tuple(evidence), fixes=(fix,))


def _quoted_together(word: str) -> Fix | None:
    """`'--max-model-len 4096'`: a flag and its value in one pair of quotes are one word."""
    flag, blank, value = word.partition(" ")
    if not blank or flag not in newest_release().flags or arity(flag) is not Arity.ONE:
        return None
    edit = LaunchEdit(drop_words=(word,), set={flag: value.strip()})
    return Fix(title=f"Write {flag} and its value as two words, not in one pair of quotes", launch=edit, automatic=True)


def _missing_dashes(words: tuple[str, ...]) -> str | None:
    name = "--" + words[0].lstrip("-\u2013\u2014").partition("=")[0].replace("_", "-")
    return next((f for f in newest_release().flags if f == name), None)


def _with_dashes(words: tuple[str, ...], flag: str) -> Fix:
    """`max-model-len=4096`, and the flag with the long dash of a word processor."""
    _, equals, attached = words[0].partition("=")
    count = arity(flag)
    value = attached if equals else words[1] if count is Arity.ONE and len(words) > 1 else None
    used = words[: 1 if equals or count is not Arity.ONE else 2]
    fits = (value is None) == (count is Arity.NONE)
    edit = LaunchEdit(drop_words=used, set={flag: value}) if fits else None
    return Fix(title=f"Write {flag} with two plain hyphens", launch=edit, automatic=fits)


def _problem_fixes(problem: str) -> tuple[Fix, ...]:
    option = problem.partition(" ")[0]
    if problem.startswith("--") and "takes no value" in problem:
        return (Fix(title=f"Write {option} alone", launch=LaunchEdit(set={option: None}), automatic=True),)
    if problem.startswith("-") and "needs" in problem:
        edit = LaunchEdit(unset=(option,))
        return (Fix(title=f"Give {option} its value, or leave it out", launch=edit),)
    return ()


@check("lora-flags", causes=("lora-config",), needs=("launch",))
def lora_flags(snapshot: Snapshot) -> Iterator[Finding]:
    """LoRA adapters that the server's LoRA flags do not fit.

    Adapters given without `--enable-lora`, or written in a form that vLLM does not read.

    Why: the adapters are loaded last, after minutes of loading the model, and one that does not fit ends the server.
    Fix: add `--enable-lora`; write each adapter as NAME=PATH or as a JSON object with `name` and `path`.
    """
    launch = snapshot.launch
    assert launch is not None
    if not any("lora" in use.name for use in launch.flags):
        raise NotApplicable("the launch has no LoRA flags")
    yield from _rank(launch, planned_release(snapshot))
    modules = [value for use in launch.uses("--lora-modules") for value in use.values]
    settings = [
        f for f in launch.flags if f.name in ("--max-loras", "--max-lora-rank", "--max-cpu-loras", "--lora-dtype")
    ]
    enabled = switched(launch, "enable-lora") is True
    add = Fix(title="Add --enable-lora", launch=LaunchEdit(set={"--enable-lora": None}), automatic=True)
    if modules and not enabled:
        title = "--lora-modules without --enable-lora: the server ends when it loads the first adapter"
        yield error(
            "lora-config", title, evidence=(f"--lora-modules {' '.join(modules)}", "no --enable-lora"), fixes=(add,)
        )
    elif settings and not enabled:
        shown = tuple(f"{f.spelled} {f.value or ''}".strip() for f in settings)
        yield info(
            "lora-config", f"{settings[0].name} does nothing without --enable-lora", evidence=shown, fixes=(add,)
        )
    for module in modules:
        yield from _module(module)


def _rank(launch: Launch, release: Release) -> Iterator[Finding]:
    """The rank must be one of the release's list; it is what buffers are made for, so the next larger one will do."""
    flag, value = release.flags.get("--max-lora-rank"), launch.value("--max-lora-rank")
    choices = flag.choices if flag is not None else None
    if not choices or value is None or is_placeholder(value) or value.strip() in choices:
        return
    asked = integer(value)
    fits = next((c for c in choices if asked is not None and int(c) >= asked > 0), None)
    edit = LaunchEdit(set={"--max-lora-rank": fits}) if fits else None
    yield error(
        "lora-config",
        f"--max-lora-rank takes no {value!r} in vLLM {release.version}",
        evidence=(f"--max-lora-rank {value}", f"the choices are {', '.join(choices)}"),
        fixes=(Fix(title=f"Write --max-lora-rank {fits or choices[-1]}", launch=edit, automatic=edit is not None),),
    )


def _module(module: str) -> Iterator[Finding]:
    """SOURCE: `LoRAParserAction` of vllm/entrypoints/launchers/cli_args.py, 0.32.0."""
    if module in ("", "None") or is_placeholder(module) or ("=" in module and "," not in module):
        return
    try:
        document = json.loads(module[:100_000])
        valid = isinstance(document, dict) and {"name", "path"} <= set(document)
    except (ValueError, RecursionError):
        valid = False
    if not valid:
        yield error(
            "lora-config",
            f"--lora-modules {module[:80]!r} is neither NAME=PATH nor a JSON object with name and path",
            evidence=(
                f"--lora-modules {module[:200]}",
                "a model that comes after --lora-modules is taken for an adapter, too",
            ),
            fixes=(Fix(title="Write NAME=PATH, several separated by blanks, and the model right after `serve`"),),
        )


@check("attention-backend-name", causes=("attention-backend",), needs=("launch",))
def attention_backend_name(snapshot: Snapshot) -> Iterator[Finding]:
    """An attention backend that this vLLM does not have.

    Backend names come and go with releases: XFORMERS went with 0.12, the names that end in _VLLM_V1 with 0.11.

    Why: vLLM ends with `Unknown attention backend` and the list of those it has.
    Fix: leave the choice to vLLM, or write one that the release has.
    """
    asked = list(_asked_backends(snapshot))
    if not asked:
        raise NotApplicable("the launch asks for no attention backend")
    release = planned_release(snapshot)
    known = {name.upper() for name in release.attention_backends}
    if not known:
        raise NotApplicable(f"the attention backends of vLLM {release.version} are not recorded")
    for given, value in asked:
        if value.upper() in known or value.lower() == "auto" or is_placeholder(value):
            continue
        if given == "VLLM_ATTENTION_BACKEND" and numbers(release.version) >= _BACKEND_VARIABLE_UNTIL:
            continue
        yield _unknown_backend(snapshot, given, value, known, release.version)


def _asked_backends(snapshot: Snapshot) -> Iterator[tuple[str, str]]:
    launch = snapshot.launch
    assert launch is not None
    for name in ("--attention-backend", "--attention-config.backend"):
        if value := launch.value(name):
            yield name, value
    if (text := launch.value("--attention-config")) and text.startswith("{"):
        try:
            backend = json.loads(text[:100_000]).get("backend")
        except (ValueError, RecursionError):
            backend = None
        if isinstance(backend, str):
            yield "--attention-config", backend
    if value := devices.variables(snapshot).get("VLLM_ATTENTION_BACKEND"):
        yield "VLLM_ATTENTION_BACKEND", value


def _unknown_backend(snapshot: Snapshot, given: str, value: str, known: set[str], version: str) -> Finding:
    guess = nearest(value.upper().replace("-", "_"), known) or nearest(value.upper().removesuffix("_VLLM_V1"), known, 0)
    is_flag = given.startswith("-")
    leave = LaunchEdit(unset=(given,)) if is_flag else LaunchEdit(env={given: None})
    fixes = [
        Fix(title="Leave the choice to vLLM", launch=leave if given != "--attention-config" else None, automatic=True)
    ]
    if guess is not None and given != "--attention-config":
        edit = LaunchEdit(set={given: guess}) if is_flag else LaunchEdit(env={given: guess})
        fixes.insert(0, Fix(title=f"Write {guess}", launch=edit, automatic=True))
    judge = error if is_flag and plugin(snapshot) is None else warning
    return judge(
        "attention-backend",
        f"vLLM {version} has no attention backend {value!r}",
        evidence=(f"{given} {value}", f"it has {', '.join(sorted(known))}"),
        fixes=tuple(fixes),
    )
