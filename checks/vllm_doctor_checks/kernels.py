"""Checks on the GPU kernel libraries beside vLLM: flash-attn, flashinfer and the CUDA wheels."""

import re
from collections.abc import Iterator
from pathlib import PurePath

from vllm_doctor.check import CUDA_ONLY, NotApplicable, NotKnown, check, known
from vllm_doctor.facts import Distribution, Environment, Host, TorchBuild, VllmBuild
from vllm_doctor.finding import Finding, Fix, error, warning
from vllm_doctor.snapshot import Snapshot
from vllm_doctor_checks import installers, requirements, symbols
from vllm_doctor_checks.breakages import is_cuda_wheel

FLASH_ATTN_MODULE = "flash_attn_2_cuda"


@check("flash-attn", causes=("flash-attn-mismatch",), needs=("environment",), platforms=CUDA_ONLY)
def flash_attn(snapshot: Snapshot) -> Iterator[Finding]:
    """The installed flash-attn was built for another torch, Python or C++ ABI.

    Why: vLLM brings its own flash attention and does not need this package, but where it is installed vLLM's rotary
    embedding imports it (`flash_attn.ops.triton.rotary` in vllm/model_executor/layers/rotary_embedding/common.py) and
    survives only its absence, not an `undefined symbol` in `flash_attn_2_cuda*.so`. transformers imports it too.
    Fix: remove it, or install it again built against the installed torch.
    """
    environment, _ = requirements.vllm_of(snapshot)
    there, torch = environment.distribution("flash-attn"), environment.torch
    if there is None or torch is None:
        requirements.refuse_incomplete(environment)
        return
    if symbols.torch_for_another_platform(environment) is not None or symbols.vllm_lacks_torch(environment):
        raise NotApplicable("this torch does not fit vLLM itself: see torch-pin and gpu-visible")
    modules = [e for e in symbols.extensions_of(environment, "flash-attn") if FLASH_ATTN_MODULE in e.path]
    fixes = (
        Fix(title="Remove flash-attn: vLLM brings its own", command=installers.uninstall(environment, "flash-attn")),
        Fix(
            title=f"Or build it again against torch {torch.version}",
            command=installers.install(
                environment,
                f"flash-attn=={requirements.public(there.version)}" if there.version else "flash-attn",
                options=("--force-reinstall", "--no-deps", "--no-build-isolation", "--no-cache-dir"),
            ),
        ),
    )
    for module in modules:
        lacking = (*symbols.torch_symbols(module), *symbols.torch_libraries(module))
        if lacking:
            yield error(
                "flash-attn-mismatch",
                f"flash-attn {there.version} does not load with torch {torch.version}: undefined symbol",
                evidence=(
                    f"{module.path} needs {lacking[0]}, which this torch does not define",
                    "vLLM imports flash_attn.ops.triton.rotary where the package is installed",
                ),
                fixes=fixes,
            )
            return
    yield from _built_for(environment, there, torch, fixes)
    known(environment.extensions)
    symbols.refuse_unjudged(environment, "flash-attn")


def _built_for(
    environment: Environment, there: Distribution, torch: TorchBuild, fixes: tuple[Fix, ...]
) -> Iterator[Finding]:
    """Its release wheels say what they are for: `2.7.4.post1+cu12torch2.6cxx11abiFALSE` (flash-attention, setup.py)."""
    local = _FLASH_LOCAL.search((there.version or "").partition("+")[2])
    mine = _PYTHON_TAG.search(" ".join(e.path for e in symbols.extensions_of(environment, "flash-attn")))
    python = "".join(environment.python_version.split(".")[:2])
    wrong = []
    if local and requirements.release(local["torch"] + ".0")[:2] != requirements.release(torch.version)[:2]:
        wrong.append(f"built for torch {local['torch']}, installed: torch {torch.version}")
    if mine and mine[1] != python:
        wrong.append(f"built for CPython {mine[1]}, this is {python}")
    if wrong:
        yield warning(
            "flash-attn-mismatch",
            f"flash-attn {there.version} was built for another environment",
            evidence=tuple(wrong),
            fixes=fixes,
        )


_FLASH_LOCAL = re.compile(r"torch(?P<torch>[0-9]{1,3}\.[0-9]{1,3})")
_PYTHON_TAG = re.compile(r"\.cpython-([0-9]{2,4})-")


@check("flashinfer-parts", causes=("flashinfer-mismatch",), needs=("environment",), platforms=CUDA_ONLY)
def flashinfer_parts(snapshot: Snapshot) -> Iterator[Finding]:
    """The parts of flashinfer are of different versions, or not the version that this vLLM pins.

    Why: flashinfer-python compares its version with flashinfer-cubin's and flashinfer-jit-cache's when it is imported
    and refuses to go on (`flashinfer-cubin version (X) does not match flashinfer version (Y)`). vLLM pins
    flashinfer-python exactly from 0.11.1 on; flashinfer-cubin only from 0.19.0 to 0.25.1: a missing cubin is no fault.
    Fix: install all installed parts in the version that this vLLM pins; remove a part that does not exist in it.
    """
    environment, build = requirements.vllm_of(snapshot)
    parts = {n: d for n in FLASHINFER_PARTS if (d := environment.distribution(n)) is not None and d.version}
    pin = requirements.pin_of(environment, "flashinfer-python")
    versions = {n: requirements.public(d.version or "") for n, d in parts.items()}
    if "flashinfer-python" in parts and len(set(versions.values())) > 1:
        yield _parts_differ(snapshot, environment, versions, pin)
    elif pin is not None and pin.violated:
        yield _flashinfer_warning(environment, build, pin, f"installed: {pin.target} {versions.get(pin.target)}")
    elif pin is not None and pin.installed is None and environment.complete:
        yield _flashinfer_warning(environment, build, pin, f"{pin.target} is not installed")
    requirements.refuse_incomplete(environment)


FLASHINFER_PARTS = ("flashinfer-python", "flashinfer-cubin", "flashinfer-jit-cache")


def _parts_differ(
    snapshot: Snapshot, environment: Environment, versions: dict[str, str], pin: requirements.Edge | None
) -> Finding:
    mine = versions["flashinfer-python"]
    asked = requirements.pinned_version(pin.specifier) if pin is not None else None
    wanted = requirements.public(asked) if asked else mine
    off = [n for n, v in versions.items() if v != wanted]
    fixes = [
        installers.repair(
            environment, f"Install its parts in one version, {wanted}", *(f"{n}=={wanted}" for n in versions)
        )
    ]
    if spare := [n for n in off if n != "flashinfer-python"]:
        title = "Or remove the parts that do not fit: they only save compiling and downloading"
        fixes.append(Fix(title=title, command=installers.uninstall(environment, *spare)))
    evidence = tuple(f"installed: {n} {v}" for n, v in versions.items())
    title = f"flashinfer's parts are of different versions: {', '.join(sorted(set(versions.values())))}"
    if _check_is_off(snapshot):
        return warning("flashinfer-mismatch", title, evidence=(*evidence, f"{CHECK_OFF}=1 is set"), fixes=tuple(fixes))
    return error(
        "flashinfer-mismatch",
        title,
        evidence=(*evidence, "flashinfer compares them when it is imported, and raises RuntimeError"),
        fixes=tuple(fixes),
    )


# flashinfer/jit/env.py, _get_cubin_dir and _get_aot_dir.
CHECK_OFF = "FLASHINFER_DISABLE_VERSION_CHECK"


def _check_is_off(snapshot: Snapshot) -> bool:
    launched = snapshot.launch.environment if snapshot.launch is not None else {}
    around = snapshot.host.environment if isinstance(snapshot.host, Host) else {}
    return CHECK_OFF in launched or CHECK_OFF in around


def _flashinfer_warning(environment: Environment, build: VllmBuild, pin: requirements.Edge, found: str) -> Finding:
    return warning(
        "flashinfer-mismatch",
        f"vllm {build.version or '?'} requires {pin.text}; {found}",
        evidence=(f"vllm {build.version or '?'} requires {pin.text}", found),
        fixes=(installers.repair(environment, "Install the flashinfer that this vLLM pins", pin.text),),
    )


@check("cuda-wheels", causes=("cuda-wheel-mismatch",), needs=("environment",), platforms=CUDA_ONLY)
def cuda_wheels(snapshot: Snapshot) -> Iterator[Finding]:
    """CUDA libraries are missing, or wheels for different CUDA versions are mixed.

    Why: torch, vLLM's kernels and flashinfer's load the CUDA libraries of one major version from the `nvidia-*` wheels.
    vLLM 0.20.0 moved from CUDA 12 to 13: an older torch or plugin beside it asks for `libcudart.so.12`, a newer vLLM
    beside an older torch for `libcudart.so.13`. `-cu12` wheels that nothing requires any more do no harm.
    Fix: install vLLM and torch of one CUDA version together, into a fresh environment where much is mixed.
    """
    environment, build = requirements.vllm_of(snapshot)
    torch = environment.torch
    if torch is None or torch.cuda is None:
        return
    broken = list(_libraries_missing(environment, build, torch))
    yield from broken
    if not broken:
        if _is_pinned(environment, torch):
            yield from _two_cuda_majors(build, torch)
        yield from _torch_requirements(environment, torch)
    yield from _jit_cache(environment, torch)
    known(environment.extensions)
    symbols.refuse_unjudged(environment, "vllm")


def _libraries_missing(environment: Environment, build: VllmBuild, torch: TorchBuild) -> Iterator[Finding]:
    """One error for all modules that lack a CUDA library, naming the first library that is nowhere."""
    if symbols.vllm_lacks_torch(environment):
        return
    found = []
    for owner in ("vllm", "torch", "torchvision", "torchaudio"):
        for extension in symbols.extensions_of(environment, owner):
            lacking = symbols.cuda_libraries(extension) or symbols.cuda_symbols(extension)
            if lacking and not symbols.torch_libraries(extension):
                found.append((extension.path, lacking))
                break
    if found:
        yield _missing_cuda(environment, build, torch, found)


def _missing_cuda(
    environment: Environment, build: VllmBuild, torch: TorchBuild, found: list[tuple[str, tuple[str, ...]]]
) -> Finding:
    path, first = found[0]
    own = requirements.own_distribution(environment)
    pin = requirements.declared(own, environment, "torch") if own is not None else None
    version = requirements.public(build.version) if build.version else None
    command = installers.install(
        environment,
        f"vllm=={version}" if version else "vllm",
        *((pin.text,) if pin is not None else ()),
        options=("--force-reinstall",),
    )
    return error(
        "cuda-wheel-mismatch",
        f"{PurePath(path).name} needs {first[0]}, which no installed wheel brings",
        evidence=(
            *(f"{who} needs {', '.join(lacking[:3])}: found in no folder that it searches" for who, lacking in found),
            f"torch {torch.version} is built for CUDA {torch.cuda}",
            f"vllm {build.version or '?'}" + (f" is built for CUDA {build.cuda}" if build.cuda else ""),
        ),
        fixes=(Fix(title="Install vLLM, its torch and the CUDA wheels that belong to it again", command=command),),
    )


def _is_pinned(environment: Environment, torch: TorchBuild) -> bool:
    """Whether torch is of the version that vLLM pins; where it is not, the check of the pin names the cause."""
    try:
        pin = requirements.pin_of(environment, "torch")
    except NotKnown:
        return True
    return pin is None or requirements.satisfies(requirements.public(torch.version), requirements.public(pin.specifier))


def _two_cuda_majors(build: VllmBuild, torch: TorchBuild) -> Iterator[Finding]:
    mine = _major(torch.cuda)
    if build.cuda is not None and mine is not None and _major(build.cuda) != mine:
        yield warning(
            "cuda-wheel-mismatch",
            f"vLLM is built for CUDA {build.cuda}, torch for CUDA {torch.cuda}",
            evidence=(f"vllm {build.version or '?'} loads libcudart.so.{_major(build.cuda)}", f"torch {torch.version}"),
            fixes=(Fix(title="Install a torch and a vLLM of the same CUDA major version, together"),),
        )


def _torch_requirements(environment: Environment, torch: TorchBuild) -> Iterator[Finding]:
    """CUDA wheels that torch itself requires and that are gone, or that another major version has written over."""
    there = environment.distribution("torch")
    if there is None:
        return
    edges = [e for e in requirements.edges_of(there, environment) if is_cuda_wheel(e.target)]
    gone = [e for e in edges if e.installed is None]
    if gone and environment.complete:
        yield warning(
            "cuda-wheel-mismatch",
            f"CUDA libraries that torch {torch.version} requires are not installed: {gone[0].target}",
            evidence=tuple(f"torch requires {e.text}: not installed" for e in gone[:6]),
            fixes=(installers.repair(environment, "Install what torch requires", *(e.text for e in gone)),),
        )
    yield from _overwritten(environment, edges, torch)


def _overwritten(environment: Environment, edges: list[requirements.Edge], torch: TorchBuild) -> Iterator[Finding]:
    """`nvidia-cudnn-cu12` and `-cu13` write the same files (`nvidia/cudnn/lib`): the one installed last wins."""
    for edge in edges:
        stem, dash, major = edge.target.rpartition("-cu")
        if edge.installed is None or not dash or not major.isdecimal():
            continue
        for other in _siblings(environment, stem, major):
            asking = _asked_by(environment, other.name)
            if not asking:
                continue
            yield warning(
                "cuda-wheel-mismatch",
                f"{edge.target} and {other.name} are both installed and write the same files",
                evidence=(
                    f"torch {torch.version} requires {edge.text}",
                    f"{other.name} {other.version} is required by {', '.join(asking[:3])}",
                ),
                fixes=(
                    Fix(
                        title=f"Remove {asking[0]} and {other.name}, then put {edge.target} in place again",
                        command=installers.uninstall(environment, asking[0], other.name),
                    ),
                    Fix(
                        title=f"Put {edge.target} in place again",
                        command=installers.reinstall(environment, edge.text),
                    ),
                ),
            )


def _siblings(environment: Environment, stem: str, major: str) -> list[Distribution]:
    """The same library for another CUDA major."""
    found = []
    for distribution in environment.distributions:
        other, dash, number = distribution.name.rpartition("-cu")
        if dash and other == stem and number.isdecimal() and number != major:
            found.append(distribution)
    return found


def _asked_by(environment: Environment, name: str) -> list[str]:
    """Who requires the distribution here, its own family excepted."""
    asking = []
    for distribution in environment.distributions:
        if any(requirements.requirement_name(line) == name for line in distribution.requires):
            edge = requirements.declared(distribution, environment, name)
            if edge is not None and not is_cuda_wheel(distribution.name):
                asking.append(distribution.name)
    return asking


def _jit_cache(environment: Environment, torch: TorchBuild) -> Iterator[Finding]:
    """flashinfer-jit-cache holds compiled kernels; its local version names their CUDA (`0.6.8+cu130`)."""
    cache = environment.distribution("flashinfer-jit-cache")
    tag = _CUDA_TAG.search(cache.version or "") if cache is not None else None
    if cache is None or tag is None or tag[1][:2] == _major(torch.cuda):
        return
    wanted = "cu" + "".join((torch.cuda or "").split(".")[:2])
    yield warning(
        "cuda-wheel-mismatch",
        f"flashinfer-jit-cache {cache.version} is built for another CUDA than torch {torch.version}",
        evidence=(f"installed: flashinfer-jit-cache {cache.version}", f"torch is built for CUDA {torch.cuda}"),
        fixes=(
            Fix(
                title=f"Remove it (flashinfer then compiles what it needs), or install its {wanted} build",
                command=installers.uninstall(environment, "flashinfer-jit-cache"),
            ),
        ),
    )


_CUDA_TAG = re.compile(r"\+cu([0-9]{2,4})")


def _major(cuda: str | None) -> str | None:
    return cuda.split(".")[0] if cuda else None
