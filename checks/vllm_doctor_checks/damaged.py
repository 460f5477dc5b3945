"""Compiled modules whose file is damaged, and the pieces that an interrupted pip leaves beside them."""

from collections.abc import Iterator
from pathlib import PurePath

from vllm_doctor.facts import Distribution, Environment, Extension, Unknown
from vllm_doctor.finding import Finding, Fix, error, info, warning
from vllm_doctor_checks import installers, requirements

# What the reader of ELF files says of a file that the loader refuses as well, whatever it was meant to be.
DAMAGED = ("cut short", "no ELF file", "an empty file")
OTHER_PROCESSOR = "built for another processor"

# pip puts `~` and more of these in place of a name's first characters while it replaces a folder
# (pip/_internal/utils/temp_dir.py, AdjacentTempDirectory.LEADING_CHARS).
LEADING_CHARACTERS = "-~.=%0123456789"


def modules(environment: Environment) -> Iterator[Finding]:
    """One finding for every distribution of which a compiled module cannot be loaded: cut short, empty, no library."""
    spoken_of: set[str] = set()
    for extension in _with_problem(environment, DAMAGED):
        if extension.owner not in spoken_of:
            spoken_of.add(extension.owner)
            yield _damaged(environment, extension)


def for_other_processor(environment: Environment) -> Extension | None:
    """A compiled module of vLLM or torch that is for another processor than the one it would run on."""
    found = _with_problem(environment, (OTHER_PROCESSOR,))
    return next((e for e in found if e.owner in ("vllm", "torch")), None)


def _with_problem(environment: Environment, beginnings: tuple[str, ...]) -> Iterator[Extension]:
    if not isinstance(environment.extensions, Unknown):
        yield from (e for e in environment.extensions if e.problem is not None and e.problem.startswith(beginnings))


def _damaged(environment: Environment, extension: Extension) -> Finding:
    name = PurePath(extension.path).name
    # vLLM's kernels and torch's libraries are needed by every launch, the others by some.
    needed = extension.owner == "torch" or (extension.owner == "vllm" and name.startswith("_C"))
    there = environment.distribution(requirements.normalised(extension.owner))
    pieces = remains_of(environment, there) if there is not None else ()
    make = error if needed else warning
    return make(
        "broken-install",
        f"{extension.owner}'s {name} is damaged: {extension.problem}",
        evidence=(f"{extension.path}: {extension.problem}", "the loader refuses such a file: ImportError", *pieces),
        fixes=(_again(environment, extension, there),),
    )


def _again(environment: Environment, extension: Extension, there: Distribution | None) -> Fix:
    if there is not None:
        return installers.again(environment, there)
    if extension.owner == "vllm" and environment.vllm is not None:
        return installers.again_vllm(environment, environment.vllm.version)
    return Fix(title=f"Install {extension.owner} again")


def remains_of(environment: Environment, distribution: Distribution) -> tuple[str, ...]:
    """A line of evidence that names what an interrupted pip left of this distribution; none where nothing is left."""
    left = [p for p in environment.leftovers if _is_of(PurePath(p).name, distribution.name)]
    return (f"an interrupted pip left {left[0]} behind",) if left else ()


def leftovers(environment: Environment) -> Iterator[Finding]:
    """Folders like `~orch`, where nothing else is wrong: an install of vLLM or torch that was cut short."""
    left = [p for p in environment.leftovers if any(_is_of(PurePath(p).name, n) for n in ("vllm", "torch"))]
    if left:
        yield info(
            "broken-install",
            "An interrupted pip left pieces of vLLM or torch behind",
            evidence=(f"in this environment: {', '.join(left[:4])}", "pip writes such names while it replaces"),
            fixes=(Fix(title="Remove them: they are in use by nothing", command=("rm", "-r", *left[:4])),),
        )


def _is_of(leftover: str, name: str) -> bool:
    """Whether the folder is the distribution's or its metadata's (`~orch`, `~-rch-2.11.0.dist-info`)."""
    folder, rest = leftover[: len(name)].lower().replace("_", "-").replace(".", "-"), leftover[len(name) :]
    if not leftover.startswith("~") or len(folder) != len(name) or (rest and "dist-info" not in rest):
        return False
    replaced = len(folder) - len(folder.lstrip(LEADING_CHARACTERS))
    return replaced < len(name) and folder[replaced:] == name[replaced:]
