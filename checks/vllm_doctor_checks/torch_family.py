"""Checks on torch and its companions: what vLLM was built for, what torchvision and torchaudio were built for."""

from collections.abc import Iterator
from pathlib import PurePath

from vllm_doctor.check import NotApplicable, NotKnown, check, known
from vllm_doctor.facts import Distribution, Environment, Extension, TorchBuild, VllmBuild
from vllm_doctor.finding import Finding, Fix, error, warning
from vllm_doctor.snapshot import Snapshot
from vllm_doctor_checks import installers, requirements, symbols

# Up to this release vLLM's kernels use torch's C++ interface, which changes with every release of torch; from here on
# most sit in `_C_stable_libtorch.abi3.so`, built on torch's stable ABI (wheel contents of 0.25.1 and 0.26.0).
STABLE_ABI_RELEASE = (0, 26, 0)


@check("torch-pin", causes=("torch-vllm-mismatch", "broken-install"), needs=("environment",))
def torch_pin(snapshot: Snapshot) -> Iterator[Finding]:
    """torch is missing, or is not the version that this vLLM was built for.

    Why: every release of vLLM pins one exact torch (Requires-Dist), because its kernels are compiled against it. With
    another one they ask for symbols that this torch does not have: `undefined symbol` in `vllm/_C*.so`. Installing
    another package that wants its own torch is the usual way to get there.
    Fix: install the torch that this vLLM pins, with its companions; or a vLLM that pins the torch you need.
    """
    environment, build = requirements.vllm_of(snapshot)
    if environment.torch is None:
        yield from _torch_missing(environment, build)
        return
    if symbols.torch_for_another_platform(environment) is not None:
        raise NotApplicable("see gpu-visible: this torch is no CUDA build, which is the cause whatever its version")
    broken = next(_unresolved(environment, build, environment.torch), None)
    if broken is not None:
        yield broken
        return
    yield from _pin_violated(environment, build, environment.torch)
    requirements.pin_of(environment, "torch")
    known(environment.extensions)
    symbols.refuse_unjudged(environment, "vllm")


def _torch_missing(environment: Environment, build: VllmBuild) -> Iterator[Finding]:
    if not environment.complete:
        raise NotKnown("not all that is installed is known")
    pin = _pin(environment)
    remains = environment.distribution("torch")
    if remains is not None and remains.missing:
        return  # its files are gone: the check of files says so
    yield error(
        "broken-install",
        "torch is missing: vLLM cannot be imported",
        evidence=(
            f"no package `torch` can be imported by {environment.python}",
            f"vllm {build.version or ''} requires {pin.text if pin else 'torch'}".replace("  ", " "),
            *((f"the metadata of torch {remains.version} is there, its files are not",) if remains else ()),
        ),
        fixes=(_install_pin(environment, build, pin),),
    )


def _unresolved(environment: Environment, build: VllmBuild, torch: TorchBuild) -> Iterator[Finding]:
    """An error where a compiled module of vLLM asks for what this torch does not have."""
    pin = _pin(environment)
    for extension in symbols.extensions_of(environment, "vllm"):
        lacking = symbols.torch_symbols(extension)
        libraries = symbols.torch_libraries(extension)
        if not lacking and not libraries:
            continue
        name = PurePath(extension.path).name
        yield error(
            "torch-vllm-mismatch",
            f"vLLM's {name} does not fit the installed torch {torch.version}",
            evidence=(
                *_what_lacks(extension, lacking, libraries),
                f"installed: torch {torch.version} ({torch.platform}); vllm {build.version or '?'} pins "
                f"{pin.specifier if pin and pin.specifier else 'none in its metadata'}",
            ),
            fixes=(_install_pin(environment, build, pin),),
        )


def _what_lacks(extension: Extension, lacking: tuple[str, ...], libraries: tuple[str, ...]) -> tuple[str, ...]:
    lines = []
    if lacking:
        lines.append(f"{extension.undefined_count} symbols of {extension.path} are defined nowhere: {lacking[0]}")
    if libraries:
        lines.append(f"{extension.path} needs {', '.join(libraries)}: this torch has none")
    return tuple(lines)


def _pin_violated(environment: Environment, build: VllmBuild, torch: TorchBuild) -> Iterator[Finding]:
    pin = _pin(environment)
    if pin is None or requirements.satisfies(torch.version, pin.specifier):
        return
    asked, has = requirements.pinned_version(pin.specifier), requirements.public(torch.version)
    if asked is not None and requirements.public(asked) == has:
        what = f"torch {torch.version} is another build of the version that this vLLM pins"
        yield _pin_warning(environment, build, pin, torch, what)
        return
    what = f"torch {torch.version} is not the one that vllm {build.version or '?'} was built for"
    checked = bool(symbols.extensions_of(environment, "vllm"))
    old_interface = requirements.release(build.version) < STABLE_ABI_RELEASE and requirements.has_metadata(environment)
    other_minor = asked is not None and requirements.release(asked)[:2] != requirements.release(has)[:2]
    if old_interface and other_minor and not checked and build.extensions:
        yield error(
            "torch-vllm-mismatch",
            what,
            evidence=_pin_evidence(build, pin, torch, "kernels before vLLM 0.26 load with the pinned torch only"),
            fixes=(_install_pin(environment, build, pin),),
        )
        return
    yield _pin_warning(environment, build, pin, torch, what)


def _pin_warning(
    environment: Environment, build: VllmBuild, pin: requirements.Edge, torch: TorchBuild, title: str
) -> Finding:
    read = symbols.extensions_of(environment, "vllm")
    seen = "no symbol that its kernels need was seen to be missing" if read else "its compiled kernels were not read"
    return warning(
        "torch-vllm-mismatch",
        title,
        evidence=_pin_evidence(build, pin, torch, seen),
        fixes=(_install_pin(environment, build, pin),),
    )


def _pin_evidence(build: VllmBuild, pin: requirements.Edge, torch: TorchBuild, last: str) -> tuple[str, ...]:
    cuda = torch.cuda.split(".")[0] if torch.cuda else None
    return (
        f"vllm {build.version or '?'} requires torch{pin.specifier}",
        f"installed: torch {torch.version}",
        *(
            (f"vLLM's kernels are for CUDA {build.cuda}, this torch for CUDA {torch.cuda}",)
            if build.cuda and cuda and build.cuda != cuda
            else ()
        ),
        last,
    )


def _pin(environment: Environment) -> requirements.Edge | None:
    """The pin on torch where it is known; None where it is not, or there is none."""
    try:
        return requirements.pin_of(environment, "torch")
    except NotKnown:
        return None


def _install_pin(environment: Environment, build: VllmBuild, pin: requirements.Edge | None) -> Fix:
    """torch as pinned, with the companions that vLLM pins with it."""
    own = requirements.own_distribution(environment)
    names = frozenset({"torch", "torchvision", "torchaudio"})
    wanted = [e.text for e in requirements.edges_of(own, environment, names)] if own is not None else []
    wanted = wanted or [pin.text if pin is not None else "torch"]
    title = f"Install the torch that vllm {build.version or ''} pins".rstrip()
    if build.platform == "cpu":
        return Fix(
            title=f"{title}, as a CPU build", command=installers.install_build(environment, *wanted, backend="cpu")
        )
    return Fix(title=title, command=installers.install(environment, *wanted))


@check("torch-companions", causes=("torch-companion-mismatch",), needs=("environment",))
def torch_companions(snapshot: Snapshot) -> Iterator[Finding]:
    """torchvision or torchaudio was built for another torch than the one installed.

    Why: their compiled modules load with one torch only. torchvision swallows the load error, so that it shows later
    and elsewhere: `RuntimeError: operator torchvision::nms does not exist`, raised when transformers imports it. A
    torchvision with CUDA beside a torch without does the same. Upgrading torch alone is the usual way to get there.
    Fix: install the companion that belongs to the installed torch. A torchaudio from 2.11 on goes with any torch.
    """
    environment, build = requirements.vllm_of(snapshot)
    torch = environment.torch
    if torch is None:
        return
    for name in ("torchvision", "torchaudio"):
        companion = environment.distribution(name)
        if companion is None or _explained_by_torch(environment, companion, torch):
            continue
        yield from _companion(environment, build, companion, torch)
    for name in ("torchvision", "torchaudio"):
        if environment.distribution(name) is not None:
            known(environment.extensions)
            symbols.refuse_unjudged(environment, name)
    requirements.refuse_incomplete(environment)


def _explained_by_torch(environment: Environment, companion: Distribution, torch: TorchBuild) -> bool:
    """Whether the companion is the one that vLLM pins and torch is not: then torch is the root cause."""
    if symbols.torch_for_another_platform(environment) is not None:
        return True
    pin, ours = _pin(environment), _pin_on(environment, companion)
    if pin is None or ours is None or companion.version is None:
        return False
    wrong_torch = not requirements.satisfies(requirements.public(torch.version), requirements.public(pin.specifier))
    return wrong_torch and requirements.satisfies(companion.version, ours.specifier)


def _companion(
    environment: Environment, build: VllmBuild, companion: Distribution, torch: TorchBuild
) -> Iterator[Finding]:
    version = companion.version or "(no version)"
    lacking = [(e, symbols.torch_symbols(e), symbols.torch_libraries(e)) for e in _modules_of(environment, companion)]
    broken = [(e, undefined, libraries) for e, undefined, libraries in lacking if undefined or libraries]
    needs = _needs_torch(environment, companion)
    fix = _companion_fix(environment, build, companion, torch)
    if broken:
        first = broken[0]
        yield error(
            "torch-companion-mismatch",
            f"{companion.name} {version} does not load with torch {torch.version}",
            evidence=(
                *_what_lacks(*first),
                *((f"{companion.name} {version} requires torch{needs}",) if needs else ()),
                *(("it shows as: operator torchvision::nms does not exist",) if _is_vision(companion) else ()),
            ),
            fixes=(fix,),
        )
    elif needs is not None and not requirements.satisfies(requirements.public(torch.version), needs):
        yield warning(
            "torch-companion-mismatch",
            f"{companion.name} {version} was built for another torch than {torch.version}",
            evidence=(f"{companion.name} {version} requires torch{needs}", f"installed: torch {torch.version}"),
            fixes=(fix,),
        )
    elif _other_platform(companion, torch):
        yield warning(
            "torch-companion-mismatch",
            f"{companion.name} {version} and torch {torch.version} are builds for different platforms",
            evidence=(f"installed: {companion.name} {version}", f"installed: torch {torch.version} ({torch.platform})"),
            fixes=(fix,),
        )
    else:
        yield from _pinned_companion(environment, build, companion, fix)


def _pinned_companion(
    environment: Environment, build: VllmBuild, companion: Distribution, fix: Fix
) -> Iterator[Finding]:
    """A companion that fits torch and not vLLM's pin, while torch is the pinned one or no pin is there.

    Where torch is not the pinned one, its companions moved with it: torch is the root cause, and its fix names them.
    """
    pin, ours, torch = _pin(environment), _pin_on(environment, companion), environment.torch
    torch_fits = (
        pin is None or torch is None or requirements.satisfies(torch.version, requirements.public(pin.specifier))
    )
    if ours is not None and ours.violated and torch_fits:
        yield warning(
            "torch-companion-mismatch",
            f"{companion.name} {companion.version} is not the one that vllm {build.version or '?'} pins",
            evidence=(
                f"vllm {build.version or '?'} requires {ours.text}",
                f"installed: {companion.name} {companion.version}",
            ),
            fixes=(fix,),
        )


def _pin_on(environment: Environment, companion: Distribution) -> requirements.Edge | None:
    try:
        return requirements.pin_of(environment, companion.name)
    except NotKnown:
        return None


def _modules_of(environment: Environment, companion: Distribution) -> tuple[Extension, ...]:
    return symbols.extensions_of(environment, companion.name)


def _is_vision(companion: Distribution) -> bool:
    return companion.name == "torchvision"


def _needs_torch(environment: Environment, companion: Distribution) -> str | None:
    """The range of torch that the companion takes: its own requirement, else the table; None where it takes any."""
    own = requirements.declared(companion, environment, "torch")
    if own is not None and own.specifier:
        return own.specifier
    parsed = requirements.version(companion.version or "")
    if parsed is None or parsed.is_prerelease:
        # `0.23.0a0+824e8c8`: built from source for the torch beside it, as ROCm's and NVIDIA's images do.
        return None
    _, minor, _ = requirements.release(companion.version)
    if _is_vision(companion):
        return f"==2.{minor - VISION_OFFSET}.*" if minor in VISION_MINORS else None
    return f"==2.{minor}.*" if minor < FREE_AUDIO_MINOR and requirements.release(companion.version)[0] == 2 else None


# torchvision 0.16 .. 0.28 belong to torch 2.1 .. 2.13 (the pins in torchvision's metadata); from 0.29.1 on it takes
# `torch>=2.14.0`.
VISION_OFFSET = 15
VISION_MINORS = range(16, 29)

# torchaudio 2.11.0 declares no torch (its metadata), and vLLM pins it with torch 2.11, 2.13 and 2.14.
FREE_AUDIO_MINOR = 11


def _other_platform(companion: Distribution, torch: TorchBuild) -> bool:
    """A `+cpu` companion beside a torch with a GPU, or one with a GPU beside a CPU torch, by their local versions."""
    local = (companion.version or "").partition("+")[2]
    if not local:
        return False
    return local.startswith("cpu") != (torch.platform == "cpu")


def _companion_fix(environment: Environment, build: VllmBuild, companion: Distribution, torch: TorchBuild) -> Fix:
    wanted = _belongs(companion, torch)
    title = f"Install the {companion.name} that belongs to torch {torch.version}"
    if torch.platform == "cpu":
        command = installers.install_build(environment, wanted, backend="cpu")
        return Fix(title=f"{title}, as a CPU build; or remove it: text models need none", command=command)
    ours = _pin_on(environment, companion)
    pin = _pin(environment)
    if ours is not None and pin is not None and requirements.satisfies(torch.version, pin.specifier):
        return Fix(title=f"{title} and to vllm {build.version or ''}", command=_install(environment, ours.text))
    return Fix(title=title, command=_install(environment, wanted))


def _install(environment: Environment, wanted: str) -> tuple[str, ...]:
    return installers.install(environment, wanted)


def _belongs(companion: Distribution, torch: TorchBuild) -> str:
    major, minor, _ = requirements.release(torch.version)
    if major != 2 or minor + VISION_OFFSET not in VISION_MINORS:
        return companion.name
    return f"torchvision==0.{minor + VISION_OFFSET}.*" if _is_vision(companion) else f"torchaudio==2.{min(minor, 11)}.*"
