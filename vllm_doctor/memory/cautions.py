"""What the figures of a plan do not say: a flag that was not read, kernels that are missing, GPUs that stay idle."""

from collections.abc import Iterator

from vllm_doctor import releases
from vllm_doctor.memory.defaults import NEWEST
from vllm_doctor.memory.estimate import gib
from vllm_doctor.memory.facts import Release
from vllm_doctor.memory.implementation import BACKEND_FROM, THROUGH_TRANSFORMERS
from vllm_doctor.memory.planning import Planned
from vllm_doctor.memory.refusals import bad_flags, kernels_missing, named
from vllm_doctor.releases.unbuildable import unbuildable


def cautions(planned: Planned) -> tuple[str, ...]:
    """What to know before the verdict is believed, one sentence each."""
    flags = (flag.words for flag in bad_flags(planned.launch, planned.release))
    release = of_release(planned.release)
    return (*_runs(planned), *_host(planned), *_loading(planned), *_idle(planned), *release, *flags)


def _host(planned: Planned) -> Iterator[str]:
    """Tables in the host's memory (0.32 config/engram.py: cpu_offload is on by default)."""
    size = planned.architecture.host_bytes
    if size and not planned.settings.tables_on_gpu:
        yield f"{size / 2**30:.1f} GiB of tables of n-grams lie in the host's memory, pinned: it has to have them."


def of_release(release: Release | None) -> Iterator[str]:
    """A release that is not known."""
    if release is not None and named(release) is None:
        oldest, newest = releases.known_versions()[0], releases.newest()
        version = ".".join(str(number) for number in release)
        yield f"vLLM {version} is not known here ({oldest} to {newest} are): it is planned by what the nearest does."


def _runs(planned: Planned) -> Iterator[str]:
    """Whether the release has code for the architecture, and kernels for the GPU: memory is not all that it takes."""
    version = releases.newest() if planned.release is None else named(planned.release)
    known = releases.release(version) if version is not None else None
    name = planned.architecture.name
    spans = releases.architecture_history(name) if known is not None else ()
    falls_back = name in THROUGH_TRANSFORMERS and (planned.release or NEWEST) >= BACKEND_FROM
    if known is not None and falls_back and name not in known.architectures:
        yield f"vLLM {version} has no code for {name}: it runs through Transformers' own, where that is installed."
    elif known is not None and spans and name not in known.architectures:
        had = ", ".join(f"{span.first} to {span.last or releases.newest()}" for span in spans)
        yield f"vLLM {version} has no code for {name} ({had} have)."
    if version is not None and (case := unbuildable(name, version)) is not None:
        yield f"vLLM {version} cannot build {name}, whatever its memory: {case.error} ({case.after} can)."
    if (missing := kernels_missing(planned.device, planned.release)) is not None:
        yield missing


def _loading(planned: Planned) -> Iterator[str]:
    """More than the weights weigh, where a release packs them after they were all loaded."""
    size = planned.plan.weights.loading_bytes[0]
    if size > planned.plan.weights.per_gpu_bytes:
        yield f"Before 0.16, vLLM packs the weights to FP8 when all of them are on the GPU in 16 bits: {gib(size)}."


def _idle(planned: Planned) -> Iterator[str]:
    used, count = planned.plan.gpus_needed, planned.device.count
    if used < count:
        yield (
            f"Only {used} of the {count} GPUs {'is' if used == 1 else 'are'} used: --tensor-parallel-size spreads the "
            "model over more of them."
        )
