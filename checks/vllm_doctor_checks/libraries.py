"""Checks on the Python libraries that vLLM requires: transformers' range, and every other one that is reached."""

from collections.abc import Iterable, Iterator

from msgspec import Struct

from vllm_doctor.check import NotKnown, check
from vllm_doctor.facts import Distribution, Environment, VllmBuild
from vllm_doctor.finding import Finding, Fix, error, warning
from vllm_doctor.snapshot import Snapshot
from vllm_doctor_checks import installers, requirements, startup
from vllm_doctor_checks.breakages import CLOUD, breaks, is_cuda_wheel, optional_comparison
from vllm_doctor_checks.requirements import Edge

NO_REQUIREMENTS = "vLLM's metadata is not at hand, and with it the list of what it requires"


@check("transformers-range", causes=("transformers-mismatch",), needs=("environment",))
def transformers_range(snapshot: Snapshot) -> Iterator[Finding]:
    """transformers is older or newer than this vLLM works with.

    Why: vLLM imports names and reads attributes of transformers that come and go with its releases. From 0.11.1 on it
    declares a range; before, only a lower bound, so that pip takes the newest one, which breaks. vLLM before 0.10.0
    ends with transformers 4.54 in `'aimv2' is already used by a Transformers config`, vLLM up to 0.11.0 with
    transformers 5 in `has no attribute all_special_tokens_extended`.
    Fix: install a transformers within the range, or a vLLM for the transformers that the model needs.
    """
    environment, build = requirements.vllm_of(snapshot)
    there = environment.distribution("transformers")
    if there is None or there.version is None:
        requirements.refuse_incomplete(environment)
        return
    yield from _known_breakage(environment, build, there)
    edge = requirements.pin_of(environment, "transformers")
    if edge is not None and edge.violated:
        yield _out_of_range(environment, build, edge, there)


def _out_of_range(environment: Environment, build: VllmBuild, edge: Edge, there: Distribution) -> Finding:
    has = requirements.release(there.version)
    reasons = [
        f"{there.name} {there.version} compares versions when it is imported: it requires {e.text}, "
        f"installed: {e.target} {e.installed.version}"
        for e in requirements.edges_of(there, environment)
        if e.violated and e.installed is not None and breaks(build, e)
    ]
    if has < (5, 0, 0) and requirements.release(build.version) >= startup.TRACED_RELEASE:
        # Reproduced: vLLM 0.32.0 with transformers 4.57.1 and the tokenizers and huggingface_hub that it takes.
        reasons.append("transformers 4 has no PreTrainedConfig, which vLLM imports: ImportError at start")
    make = error if reasons else warning
    return make(
        "transformers-mismatch",
        f"transformers {there.version} is outside the range of vllm {build.version or '?'}: {edge.specifier}",
        evidence=(
            f"vllm {build.version or '?'} requires {edge.text}",
            f"installed: transformers {there.version}",
            *reasons,
        ),
        fixes=(installers.repair(environment, "Install a transformers that this vLLM takes", edge.text),),
    )


class Breakage(Struct, frozen=True):
    """vLLM releases (from, up to but not including) that fail with transformers from a release on, and how."""

    since: tuple[int, int, int]
    until: tuple[int, int, int]
    transformers: tuple[int, int, int]
    below: str
    how: str


BREAKAGES = (
    Breakage(
        (0, 8, 0),
        (0, 10, 0),
        (4, 54, 0),
        "<4.54",
        # vllm-project/vllm issue 22178 (0.9.0), gpustack/gpustack issue 2665 (0.9.2).
        "vllm/transformers_utils/configs/ovis.py: ValueError: 'aimv2' is already used by a Transformers config",
    ),
    Breakage(
        (0, 4, 0),
        (0, 11, 1),
        (5, 0, 0),
        "<5",
        # QwenLM/Qwen3-VL issue 2058; vllm-project/vllm pull request 29686 removed the use.
        "tokenizers of transformers 5 have no attribute all_special_tokens_extended, which this vLLM reads",
    ),
)


def _known_breakage(environment: Environment, build: VllmBuild, there: Distribution) -> Iterator[Finding]:
    mine, has = requirements.release(build.version), requirements.release(there.version)
    for known in BREAKAGES:
        if not (known.since <= mine < known.until and has >= known.transformers):
            continue
        yield warning(
            "transformers-mismatch",
            f"transformers {there.version} is newer than vllm {build.version} works with",
            evidence=(
                f"installed: transformers {there.version}, vllm {build.version}",
                "this vLLM declares no upper bound, and is known to fail from transformers "
                + ".".join(map(str, known.transformers[:2])),
                known.how,
            ),
            fixes=(
                installers.repair(
                    environment, "Install a transformers of that vLLM's time", f"transformers{known.below}"
                ),
            ),
        )
        return


# Named by a check of their own where they are there in the wrong version; where they are missing as well.
OWN_CHECK = frozenset({"torch", "torchvision", "torchaudio", "transformers", "flash-attn"})
OWN_CHECK_MISSING = frozenset({"torch", "flash-attn", "flashinfer-python", "flashinfer-cubin"})

# The same modules under another name.
ALSO_BROUGHT_BY = {
    "opencv-python-headless": ("opencv-python", "opencv-contrib-python", "opencv-contrib-python-headless"),
    "oss-harmony": ("openai-harmony",),
    "openai-harmony": ("oss-harmony",),
}


@check(
    "requirement-violated",
    causes=("dependency-conflict", "cuda-wheel-mismatch"),
    needs=("environment",),
)
def requirement_violated(snapshot: Snapshot) -> Iterator[Finding]:
    """A library that vLLM requires, itself or through others, is missing or of another version than is asked for.

    Why: installing or removing another package moved it. A missing library that `vllm serve` imports at start fails it
    at once. A version outside the declared range often does no harm (numpy 1.26 and protobuf 3.20 served), so it is an
    error only where it is known to fail: where pydantic or transformers compare versions when they are imported, or the
    import was seen to fail with such a version.
    Fix: install the version that everybody asks for.
    """
    environment, build = requirements.vllm_of(snapshot)
    yield from _numpy_2(environment, build)
    own = requirements.own_distribution(environment)
    if own is None or not requirements.has_metadata(environment):
        raise NotKnown(NO_REQUIREMENTS)
    edges = list(requirements.walk(own, environment))
    edges.extend(optional_comparison(environment, edges))
    for root, members in _by_root(environment, edges).items():
        yield _finding(environment, build, root, members, edges)
    if not environment.complete:
        raise NotKnown("not all that is installed is known")


def _numpy_2(environment: Environment, build: VllmBuild) -> Iterator[Finding]:
    """numpy 2 came out after vLLM 0.5.0, and the releases up to it declare no bound (vLLM issues 5587 and 5594)."""
    numpy = environment.distribution("numpy")
    if numpy is None or requirements.release(numpy.version) < (2, 0, 0):
        return
    if (0, 0, 0) < requirements.release(build.version) < (0, 5, 1):
        yield warning(
            "dependency-conflict",
            f"numpy {numpy.version} is newer than vllm {build.version} and its libraries work with",
            evidence=(
                f"installed: numpy {numpy.version}, vllm {build.version}",
                "vLLM before 0.5.1 declares no upper bound; its torch, xformers and outlines were made for numpy 1",
                "outlines of that time ends with: No module named 'numpy.lib.function_base'",
            ),
            fixes=(installers.repair(environment, "Install the numpy of that vLLM's time", "numpy<2"),),
        )


def _by_root(environment: Environment, edges: list[Edge]) -> dict[str, list[Edge]]:
    """The requirements that do not hold, by the distribution to blame."""
    wrong = {e.target for e in edges if e.violated}
    found: dict[str, list[Edge]] = {}
    for edge in edges:
        missing = edge.installed is None and environment.complete and not _brought_otherwise(environment, edge)
        if (edge.violated and not _satisfied_by_twin(environment, edge)) or missing:
            root = _to_blame(edge, edges, wrong)
            if not _elsewhere(edge, root):
                found.setdefault(root, []).append(edge)
    return found


def _satisfied_by_twin(environment: Environment, edge: Edge) -> bool:
    """Whether metadata of another version lies beside the one that counts, and fits: the check of files says so."""
    there = edge.installed
    return any(
        there is not None and d.version is not None and requirements.satisfies(d.version, edge.specifier)
        for d in environment.distributions
        if there is not None and d is not there and (d.name, d.location) == (there.name, there.location)
    )


def _to_blame(edge: Edge, edges: list[Edge], wrong: set[str]) -> str:
    """The target, or a distribution of a wrong version that asks for it: mending that one brings other requirements.

    Where such a one has drawn the target down (an upper bound that holds), it is to blame for the others' complaints.
    """
    if edge.by.name in wrong:
        return edge.by.name
    drawn = (e.by.name for e in edges if e.target == edge.target and e.by.name in wrong and _holds_down(e))
    return next(drawn, edge.target)


def _holds_down(edge: Edge) -> bool:
    return edge.installed is not None and not edge.violated and ("<" in edge.specifier or "==" in edge.specifier)


def _brought_otherwise(environment: Environment, edge: Edge) -> bool:
    return any(environment.distribution(other) is not None for other in ALSO_BROUGHT_BY.get(edge.target, ()))


def _elsewhere(edge: Edge, root: str) -> bool:
    """Whether a check of its own speaks of this requirement."""
    if root.startswith("flashinfer-"):
        return True
    if root != edge.target:
        return root in OWN_CHECK or is_cuda_wheel(root)
    if edge.installed is None:
        return root in OWN_CHECK_MISSING or (is_cuda_wheel(root) and edge.by.name == "torch")
    return root in OWN_CHECK or is_cuda_wheel(root) or (edge.by.name in CLOUD and root in CLOUD)


def _finding(environment: Environment, build: VllmBuild, root: str, members: list[Edge], edges: list[Edge]) -> Finding:
    there = environment.distribution(root)
    missing = there is None
    reasons = list(dict.fromkeys(r for e in members if (r := breaks(build, e))))
    by = startup.importer(build, root) if missing else None
    if by is not None:
        reasons.append(f"{by} imports it when vLLM starts: ModuleNotFoundError")
    make = error if reasons else warning
    return make(
        _cause(root),
        _title(root, there, members),
        evidence=(*(_asked(e) for e in members[:6]), *reasons),
        fixes=(_fix(environment, root, members, edges),),
    )


def _cause(root: str) -> str:
    return "cuda-wheel-mismatch" if is_cuda_wheel(root) else "dependency-conflict"


def _title(root: str, there: Distribution | None, members: list[Edge]) -> str:
    first = next((e for e in members if e.target == root), members[0])
    if there is None:
        return f"{root} is not installed, and {first.by.name} requires it"
    return f"{root} {there.version} does not go with {first.by.name if first.target == root else first.target}"


def _asked(edge: Edge) -> str:
    who = f"{edge.by.name} {edge.by.version or ''}".rstrip()
    via = f" (reached through {' > '.join(edge.path)})" if len(edge.path) > 2 else ""
    has = f"installed: {edge.installed.version}" if edge.installed is not None else "not installed"
    return f"{who} requires {edge.text}, {has}{via}"


def _fix(environment: Environment, root: str, members: list[Edge], edges: Iterable[Edge]) -> Fix:
    """Install what all agree on who ask for it, the one to blame aside; and what it has drawn with it."""
    names = dict.fromkeys((root, *(e.target for e in members if e.by.name != root)))
    wanted = [_agreed(name, root, edges) for name in names]
    return installers.repair(environment, f"Install {root} as it is required", *wanted)


def _agreed(name: str, root: str, edges: Iterable[Edge]) -> str:
    return name + requirements.combined(e.specifier for e in edges if e.target == name and e.by.name != root)
