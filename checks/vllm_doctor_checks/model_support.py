"""Checks on what can run the model: vLLM's registry of architectures, transformers, or the model's own code."""

from collections.abc import Iterator

from vllm_doctor.check import NotApplicable, check
from vllm_doctor.facts import Model, ModelConfig
from vllm_doctor.finding import Finding, Fix, LaunchEdit, error, warning
from vllm_doctor.releases import Release
from vllm_doctor.releases.unbuildable import unbuildable
from vllm_doctor.snapshot import Snapshot
from vllm_doctor_checks.launching import planned_release
from vllm_doctor_checks.model_facts import (
    config_of,
    is_at_least,
    is_beyond_data,
    model_of,
    plugins_of,
    reads_itself,
    transformers_version,
)

# From this release on an architecture that vLLM does not know may run by transformers' code (`--model-impl auto`).
TRANSFORMERS_BACKEND = "0.7.2"
# vLLM 0.32 config/model.py `_SUFFIX_TO_DEFAULTS`: a class of one of these endings runs as the base model of another.
SUFFIXES = ("ForCausalLM", "ForConditionalGeneration", "ChatModel", "LMHeadModel", "ForTextEncoding", "EmbeddingModel",
            "ForSequenceClassification", "ForTokenClassification", "ForAudioClassification", "ForImageClassification",
            "ForVideoClassification", "ClassificationModel", "ForRewardModeling", "RewardModel", "Model")  # fmt: skip
# vLLM 0.32 model_executor/layers/rotary_embedding `get_rope`, and the names that transformers_utils/config.py
# `patch_legacy_rope_type` renames.
ROPE_TYPES = frozenset(
    {
        "default", "llama3", "mllama4", "linear", "ntk", "dynamic", "yarn", "deepseek_yarn", "deepseek_llama_scaling",
        "longrope", "su", "openpangu", "proportional", "bailing_mrope", "mrope", "telechat3-yarn",
    }
)  # fmt: skip
# Types that single models handle themselves (vllm/model_executor/models and transformers_utils/configs, 0.32).
OTHER_ROPE_TYPES = frozenset({"axial", "rope", "rope_2d", "rope_3d", "1d", "xdrope"})
TRUST = "--trust-remote-code"
READ_FIRST = Fix(
    title="Read the repository's Python files, which vLLM will run, then allow them with --trust-remote-code",
    launch=LaunchEdit(set={TRUST: None}),
)


@check("remote-code", causes=("trust-remote-code",), needs=("model", "launch"))
def remote_code(snapshot: Snapshot) -> Iterator[Finding]:
    """The model needs Python code of its own repository, and the launch does not allow it.

    Why: config.json names classes of the repository (`auto_map`). Where neither transformers nor vLLM has classes for
    this model, they must run; without `--trust-remote-code` the start ends with "contains custom code which must be
    executed to correctly load the model". Where vLLM has its own, the code is not needed and the flag only a risk.
    Fix: read the code, then add `--trust-remote-code`; or take a vLLM that knows the architecture.
    """
    model, config = model_of(snapshot), config_of(snapshot)
    if not config.remote_code:
        raise NotApplicable("config.json names no code of its own")
    if snapshot.launch is not None and snapshot.launch.has(TRUST):
        return
    release = planned_release(snapshot)
    reasons = tuple(_needs_own_code(config, release, snapshot))
    if not reasons:
        return
    report = warning if plugins_of(snapshot) or is_beyond_data(release) else error
    yield report(
        "trust-remote-code",
        f"{model.given} needs its own code, and {TRUST} is not given",
        evidence=(f"config.json: auto_map names {', '.join(config.auto_map[:4])}", *reasons),
        fixes=(READ_FIRST, *_upgrades(config, release)),
    )


def _needs_own_code(config: ModelConfig, release: Release, snapshot: Snapshot) -> Iterator[str]:
    """Why vLLM cannot do without: no config class, or no model class."""
    kind = config.model_type
    if kind and "AutoConfig" in config.auto_map and not reads_itself(kind, release) and not _knows_type(kind, snapshot):
        yield f"model_type {kind!r}: neither transformers nor vLLM {release.version} has a config for it"
    names_model = any(name.startswith("AutoModel") for name in config.auto_map)
    if names_model and not _is_known(config, release) and not _may_be_of_transformers(config, snapshot):
        yield f"{', '.join(config.architectures)}: not among the architectures of vLLM {release.version}"


@check(
    "architecture",
    causes=("model-arch-unsupported", "transformers-mismatch", "model-files-incomplete"),
    needs=("model",),
)
def architecture(snapshot: Snapshot) -> Iterator[Finding]:
    """This vLLM, or the transformers beside it, does not know the model's architecture.

    Why: config.json names an architecture and a model_type. vLLM looks the first up in its registry (from 0.7.2 on in
    transformers too), transformers the second; an older one than the model does not have it, and old architectures
    leave vLLM. The start ends with "are not supported for now" or "does not recognize this architecture".
    Fix: the release of vLLM or transformers that knows it, or another model.
    """
    model, config = model_of(snapshot), config_of(snapshot)
    if snapshot.launch is not None and snapshot.launch.value("--config-format") == "mistral":
        raise NotApplicable("--config-format mistral does not read config.json")
    release = planned_release(snapshot)
    if not config.architectures:
        yield from _no_architecture(config, release, snapshot)
    elif not _is_known(config, release):
        yield from _unknown_architecture(model, config, release, snapshot)
    else:
        yield from _unbuildable(model, config, release, snapshot)
        yield from _unknown_type(config, release, snapshot)
        yield from _unknown_rope(config, release)


def _unbuildable(model: Model, config: ModelConfig, release: Release, snapshot: Snapshot) -> Iterator[Finding]:
    """A class of this release's own that ends in an error in every launch."""
    asked = snapshot.launch.value("--model-impl") if snapshot.launch is not None else None
    name = config.architectures[0]
    case = unbuildable(name, release.version)
    if case is None or asked == "transformers":
        return
    yield error(
        "model-arch-unsupported",
        f"vLLM {release.version} cannot build {name}: it ends there whatever the flags are",
        evidence=(f"config.json of {model.given}: architectures {name}", case.error, case.reason),
        fixes=(
            Fix(title=f"Install vLLM {case.after} or newer", command=("pip", "install", f"vllm>={case.after}")),
            Fix(title=f"Or stay with vLLM {case.before}", command=("pip", "install", f"vllm=={case.before}")),
        ),
    )


def _is_known(config: ModelConfig, release: Release) -> bool:
    known = release.architectures
    return any(name in known or any(base in known for base in _bases(name)) for name in config.architectures)


def _bases(name: str) -> Iterator[str]:
    """The base models that a class of such an ending may be converted from (`_normalize_arch`, vLLM 0.32)."""
    for suffix in SUFFIXES:
        if name.endswith(suffix):
            yield from (name.removesuffix(suffix) + other for other in SUFFIXES)


def _knows_type(kind: str, snapshot: Snapshot) -> bool:
    """Whether the installed transformers (or, where that is not known, any) has the model_type, or may have it."""
    from vllm_doctor import transformers_releases

    return _reaches(transformers_releases.first_with_model_type(kind), snapshot)


def _may_be_of_transformers(config: ModelConfig, snapshot: Snapshot) -> bool:
    from vllm_doctor import transformers_releases

    firsts = (transformers_releases.first_with_architecture(name) for name in config.architectures)
    return any(_reaches(first, snapshot) for first in firsts)


def _reaches(first: str | None, snapshot: Snapshot) -> bool:
    """Whether the installed transformers is at least `first`; one newer than the data may know anything."""
    from packaging.version import InvalidVersion, Version

    from vllm_doctor import transformers_releases

    installed = transformers_version(snapshot)
    try:
        if installed is not None and Version(installed) > Version(transformers_releases.newest()):
            return True
        return first is not None and (installed is None or Version(installed) >= Version(first))
    except InvalidVersion:
        return True


def _no_architecture(config: ModelConfig, release: Release, snapshot: Snapshot) -> Iterator[Finding]:
    """vLLM 0.32 transformers_utils/config.py fills the gap by transformers' table of model types."""
    kind = config.model_type
    if kind is not None and (reads_itself(kind, release) or _knows_type(kind, snapshot)):
        return
    yield error(
        "model-arch-unsupported",
        "config.json names no architecture",
        evidence=(f"architectures: none; model_type: {kind or 'none'}", "vLLM cannot tell which model this is"),
        fixes=(Fix(title="Take the config.json of the original repository"),),
    )


def _unknown_architecture(model: Model, config: ModelConfig, release: Release, snapshot: Snapshot) -> Iterator[Finding]:
    names = ", ".join(config.architectures)
    removed = [
        (n, release.removed_architectures[n]) for n in config.architectures if n in release.removed_architectures
    ]
    asked = snapshot.launch.value("--model-impl") if snapshot.launch is not None else None
    falls_back = asked in (None, "auto", "transformers") and is_at_least(release, TRANSFORMERS_BACKEND)
    if falls_back and not removed and _may_be_of_transformers(config, snapshot):
        return
    if falls_back and any(name.startswith("AutoModel") for name in config.auto_map):
        yield from _own_code_without_base(config, release, snapshot)
        return
    report = warning if plugins_of(snapshot) else error
    gone = tuple(f"{name} left vLLM after {last}" for name, last in removed)
    plugins = plugins_of(snapshot)
    maybe = (f"a plugin may bring it: {', '.join(plugins[:4])}",) if plugins else ()
    kind = f"model_type {config.model_type!r}: {_type_words(config, snapshot)}"
    yield report(
        "model-arch-unsupported",
        f"vLLM {release.version} does not know the architecture {names}",
        evidence=(
            f"config.json of {model.given}: architectures {names}",
            f"not among the {len(release.architectures)} of vLLM {release.version}, nor a class of transformers",
            *gone,
            kind,
            *maybe,
        ),
        fixes=(*_upgrades(config, release), Fix(title="Serve a model of a supported architecture")),
    )


def _own_code_without_base(config: ModelConfig, release: Release, snapshot: Snapshot) -> Iterator[Finding]:
    """The backend builds `AutoModel`: code that only brings a head ends with "Unrecognized configuration class".

    vLLM 0.32 model_executor/models/transformers/base.py, `AutoModel.from_config`; seen so on 0.32.0. Without
    `--trust-remote-code` nothing of it runs, and the check on that speaks of it.
    """
    trusted = snapshot.launch is not None and snapshot.launch.has(TRUST)
    if not trusted or "AutoModel" in config.auto_map or not is_at_least(release, "0.32.0"):
        return
    yield error(
        "model-arch-unsupported",
        f"The model's own code has no AutoModel, which vLLM {release.version} asks for",
        evidence=(
            f"{', '.join(config.architectures)}: not among the architectures of vLLM {release.version}",
            f"config.json: auto_map names {', '.join(config.auto_map[:6])}, and no AutoModel",
        ),
        fixes=(Fix(title="Add the base model to auto_map, if the code has one that supports attention interfaces"),),
    )


def _type_words(config: ModelConfig, snapshot: Snapshot) -> str:
    known = config.model_type is not None and _knows_type(config.model_type, snapshot)
    return "transformers knows it" if known else "transformers does not know it either"


def _upgrades(config: ModelConfig, release: Release) -> tuple[Fix, ...]:
    """The releases of vLLM that have, or had, the architecture."""
    from packaging.version import Version

    from vllm_doctor.releases import architecture_history

    for name in config.architectures:
        for span in architecture_history(name):
            if Version(span.first) > Version(release.version):
                title = f"Install vLLM {span.first} or newer: it is the first release with {name}"
                return (Fix(title=title, command=("pip", "install", f"vllm>={span.first}")),)
            if span.last is not None and Version(span.last) < Version(release.version):
                title = f"Install vLLM {span.last}: it is the last release with {name}"
                return (Fix(title=title, command=("pip", "install", f"vllm=={span.last}")),)
    return ()


def _unknown_type(config: ModelConfig, release: Release, snapshot: Snapshot) -> Iterator[Finding]:
    """The architecture is vLLM's, but transformers must read the config, and does not know its model_type."""
    from vllm_doctor import transformers_releases

    kind, installed = config.model_type, transformers_version(snapshot)
    if kind is None and installed is not None:
        yield from _no_type(config, installed)
    if kind is None or reads_itself(kind, release) or installed is None or "AutoConfig" in config.auto_map:
        return
    first = transformers_releases.first_with_model_type(kind)
    if first is None or _reaches(first, snapshot):
        return
    yield error(
        "transformers-mismatch",
        f"transformers {installed} does not know the model type {kind!r}: it came with {first}",
        evidence=(
            f"config.json: model_type {kind!r}, architectures {', '.join(config.architectures)}",
            f"installed: transformers {installed}; vLLM {release.version} asks for {_pin(release)}",
        ),
        fixes=(
            Fix(
                title=f"Install transformers {first} or later, as far as this vLLM allows it",
                command=("pip", "install", f"transformers>={first}"),
            ),
        ),
    )


def _no_type(config: ModelConfig, installed: str) -> Iterator[Finding]:
    """transformers 5 `AutoConfig.from_pretrained`; those before it guessed the type from the name of the folder.

    vLLM 0.32 `transformers_utils/config.py` fills it for speculators and for some architectures of code of their own.
    """
    from packaging.version import InvalidVersion, Version

    try:
        guesses = Version(installed) < Version("5")
    except InvalidVersion:
        return
    if guesses or config.remote_code or "speculators_config" in config.whole():
        return
    yield error(
        "model-files-incomplete",
        "config.json has no model_type",
        evidence=(
            f"config.json: architectures {', '.join(config.architectures)}, model_type: none",
            f"transformers {installed} ends with: Should have a `model_type` key in its config.json",
        ),
        fixes=(Fix(title="Take the config.json of the original repository"),),
    )


def _pin(release: Release) -> str:
    return f"transformers{release.pins['transformers']}" if "transformers" in release.pins else "no certain one"


def _unknown_rope(config: ModelConfig, release: Release) -> Iterator[Finding]:
    """`get_rope` raises "Unknown RoPE scaling type" for a name that it has no branch for."""
    if config.rope_type is None or config.rope_type in ROPE_TYPES | OTHER_ROPE_TYPES:
        return
    report = warning if is_beyond_data(release) else error
    yield report(
        "model-arch-unsupported",
        f"vLLM {release.version} does not know the RoPE scaling {config.rope_type!r}",
        evidence=(
            f"config.json: rope type {config.rope_type!r}",
            f"known: {', '.join(sorted(ROPE_TYPES))}",
        ),
        fixes=(
            Fix(title="Take the rope_scaling of the original repository's config.json"),
            Fix(title="Or give the one that the model was trained with by --hf-overrides"),
        ),
    )
