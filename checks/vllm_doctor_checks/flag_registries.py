"""Flag values that vLLM looks up only after the arguments are parsed: parsers, loaders, tokenizers, backends."""

from collections.abc import Iterator

from vllm_doctor.facts import FlagUse
from vllm_doctor.finding import Finding, Fix, LaunchEdit, error, warning
from vllm_doctor.launch.spelling import nearest
from vllm_doctor.releases import Flag, Release
from vllm_doctor.snapshot import Snapshot
from vllm_doctor_checks.flag_json import is_braced
from vllm_doctor_checks.launching import numbers, parser_of_family, plugin

# SOURCE: `_LOAD_FORMAT_TO_MODEL_LOADER` of vllm/model_executor/model_loader/__init__.py, 0.32.0, and the `LoadFormat`
# members of earlier releases; a plugin may register more.
_LOADERS = """
    auto hf dummy fastsafetensors instanttensor ipc_cache mistral modelexpress npcache pt runai_streamer
    runai_streamer_sharded safetensors sharded_state tensorizer
"""
_LOADS_NOW = frozenset(_LOADERS.split())
# Loaders that were in vLLM, with the release that has them no more; the plugins vllm-gguf-plugin and vllm-bnb-plugin
# bring two of them back (release notes of 0.24.0 and 0.28.0).
_LOADS_UNTIL = {"gguf": (0, 24), "bitsandbytes": (0, 28), "remote": (0, 12)}
# Registered beside the choices that the flag shows. SOURCE: `_VLLM_TOKENIZERS` of vllm/tokenizers/registry.py and
# `_CONFIG_FORMAT_TO_CONFIG_PARSER` of vllm/transformers_utils/config.py, 0.32.0.
_TOKENIZERS_BESIDE = frozenset({"deepseek_v41", "kimi_audio"})
# From here on the two flags take any word and look it up later: what is not registered ends the start.
_LOOKED_UP_FROM = (0, 32)
# SOURCE: `OptimizationLevel` of vllm/config/vllm.py, 0.32.0.
_LEVELS = ("0", "1", "2", "3", "O0", "O1", "O2", "O3")


def judge(snapshot: Snapshot, use: FlagUse, flag: Flag, value: str, release: Release) -> Iterator[Finding]:
    """The value of a flag whose names are looked up after the arguments are parsed; others pass."""
    assert snapshot.launch is not None
    name = flag.alias_of or flag.name
    if name == "--tool-call-parser" and not snapshot.launch.has("--tool-parser-plugin"):
        needed = snapshot.launch.has("--enable-auto-tool-choice")
        meant = parser_of_family(snapshot.launch, release)
        yield from _name(snapshot, use, value, release.tool_parsers, "tool call parser", certain=needed, meant=meant)
    elif name == "--reasoning-parser" and not snapshot.launch.has("--reasoning-parser-plugin"):
        yield from _name(snapshot, use, value, release.reasoning_parsers, "reasoning parser", certain=True)
    elif name == "--load-format" and snapshot.launch.value("--quantization") != value:
        # Where both name a method that is gone (bitsandbytes, gguf), the check of the quantization says so.
        yield from _name(snapshot, use, value, _loaders(release), "load format", certain=True)
    elif name == "--hf-overrides" and not is_braced(value):
        yield _no_object(use, value)
    elif name == "--optimization-level" and value.strip() not in _LEVELS:
        title = f"There is no optimization level {value!r}"
        fix = Fix(title="Write -O0, -O1, -O2 or -O3")
        yield error("bad-flag", title, evidence=(f"{use.spelled} {value}", "the levels are 0 to 3"), fixes=(fix,))
    elif numbers(release.version)[:2] >= _LOOKED_UP_FROM and flag.choices:
        yield from _open_choice(snapshot, use, name, value, flag.choices)


def _open_choice(
    snapshot: Snapshot, use: FlagUse, name: str, value: str, choices: tuple[str, ...]
) -> Iterator[Finding]:
    if name == "--tokenizer-mode" and value not in _TOKENIZERS_BESIDE:
        yield from _name(snapshot, use, value, choices, "tokenizer mode", certain=True)
    elif name == "--config-format":
        yield from _name(snapshot, use, value, choices, "config format", certain=True)
    elif name == "--distributed-executor-backend" and "." not in value:
        # A word with dots is the path of a class.
        yield from _name(snapshot, use, value, choices, "executor backend", certain=True)


def _loaders(release: Release) -> tuple[str, ...]:
    version = numbers(release.version)[:2]
    return tuple(sorted(_LOADS_NOW | {name for name, gone in _LOADS_UNTIL.items() if version < gone}))


def _no_object(use: FlagUse, value: str) -> Finding:
    return error(
        "bad-flag",
        f"--hf-overrides needs a JSON object, and {value[:60]!r} is none",
        evidence=(f"{use.spelled} {value[:200]}", "vLLM ends with `Input should be a valid dictionary`"),
        fixes=(Fix(title="Write one JSON object in single quotes, or single keys as --hf-overrides.KEY VALUE"),),
    )


def _name(
    snapshot: Snapshot,
    use: FlagUse,
    value: str,
    known: tuple[str, ...],
    what: str,
    *,
    certain: bool,
    meant: tuple[str, str] | None = None,
) -> Iterator[Finding]:
    """`meant` is the name that the model's family takes, behind the family's own: it counts more than the spelling."""
    if not known or value in known:
        return
    # Of a short word every letter counts: `gguf` is not a slip of `hf`.
    guess = nearest(value.lower(), known, min(3, max(1, len(value) // 3))) or next(
        (k for k in known if len(k) > 2 and (value.startswith(k) or k.startswith(value))), None
    )
    near = f"; the nearest is {guess!r}" if guess else ""
    if meant is not None:
        near, guess = f"; {meant[0]} takes {meant[1]!r}", meant[1]
    title = f"{value!r} is no {what} of this vLLM{near}"
    stranger = plugin(snapshot)
    evidence = [f"{use.spelled} {value}", f"known: {', '.join(sorted(known))}"]
    if value in _LOADS_UNTIL:
        evidence.append(f"gone from vLLM {'.'.join(map(str, _LOADS_UNTIL[value]))}.0 on")
    if stranger is not None:
        evidence.append(f"{stranger} may bring its own")
    report = error if certain and stranger is None else warning
    yield report(
        "bad-flag",
        title,
        evidence=tuple(evidence),
        fixes=_instead(use, guess) or (Fix(title=f"Choose a {what} that exists"),),
    )


def _instead(use: FlagUse, value: str | None) -> tuple[Fix, ...]:
    if value is None or len(use.values) != 1:
        return ()
    return (Fix(title=f"Write {use.name} {value}", launch=LaunchEdit(set={use.name: value}), automatic=True),)
