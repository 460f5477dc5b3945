"""Which GPUs would serve a model, and how many of each."""

from collections.abc import Iterator
from textwrap import wrap
from typing import Any

from msgspec import Struct, structs

from vllm_doctor.facts import Launch
from vllm_doctor.memory import boards, parallelism
from vllm_doctor.memory.backend import architecture_of
from vllm_doctor.memory.estimate import gib
from vllm_doctor.memory.facts import Architecture, Device, LaunchSettings, Release
from vllm_doctor.memory.plan import Plan, Verdict, plan
from vllm_doctor.memory.planning import MOST_GPUS, Config
from vllm_doctor.memory.refusals import bad_flags, context_refusal
from vllm_doctor.memory.settings import read_settings

# vLLM's kernels are built for 7.0 and newer (CMakeLists.txt, CUDA_SUPPORTED_ARCHS), bfloat16 wants 8.0 (Ampere).
_LEAST_CAPABILITY, _BFLOAT16_CAPABILITY = 70, 80

# The table's own width.
_WIDTH = 88


class Choice(Struct, frozen=True, kw_only=True):
    """A board, and the least number of it for which the launch fits for certain; None where not even 16 do."""

    device: Device
    count: int | None
    plan: Plan | None


def choices(launch: Launch, config: Config, release: Release | None) -> Iterator[Choice]:
    """Every board of the catalogue, by tensor parallelism over the sizes that divide the model.

    Memory alone chooses: what else vLLM refuses of the launch, `refusals` says.
    """
    architecture = architecture_of(config.text, launch)
    settings = structs.replace(read_settings(launch), any_max_model_len=True)
    wants_bfloat16 = settings.dtype == "bfloat16" or (settings.dtype == "auto" and architecture.dtype == "bfloat16")
    least = _BFLOAT16_CAPABILITY if wants_bfloat16 else _LEAST_CAPABILITY
    for device in (d for d in boards.every(MOST_GPUS) if (d.capability or 0) >= least):
        yield _choice(architecture, settings, device, release)


def refusals(launch: Launch, config: Config, release: Release | None) -> tuple[str, ...]:
    """With what the launch starts on no GPU, one sentence each."""
    architecture, settings = architecture_of(config.text, launch), read_settings(launch)
    flags = tuple(flag.words for flag in bad_flags(launch, release))
    if context_refusal(architecture, settings) is None:
        return flags
    return (
        f"The model's config allows {architecture.longest_max_model_len:,} tokens: vLLM refuses to serve "
        f"{settings.max_model_len:,}.",
        *flags,
    )


def _choice(architecture: Architecture, settings: LaunchSettings, device: Device, release: Release | None) -> Choice:
    replicas = settings.pipeline_parallel_size * settings.data_parallel_size
    for size in parallelism.sizes(architecture, MOST_GPUS, release):
        count = size * replicas
        changed = structs.replace(settings, tensor_parallel_size=size)
        found = plan(architecture, changed, structs.replace(device, count=count), release)
        if found.fits or (found.weights.uncounted is not None and found.verdict is Verdict.FITS):
            return Choice(device=device, count=count, plan=found)
    return Choice(device=device, count=None, plan=None)


def rows(found: tuple[Choice, ...], launch: Launch, config: Config) -> Iterator[str]:
    """A table: boards that do, fewest first."""
    yield f"GPUs that would serve {launch.model} as launched"
    yield from wrap(f"from {config.origin}", _WIDTH, break_long_words=False, break_on_hyphens=False)
    yield ""
    yield f"  {'GPU':<41} {'memory':>9} {'GPUs':>5} {'KV cache tokens':>16} {'longest':>11}"
    fitting = [c for c in found if c.count is not None and c.plan is not None]
    for choice in sorted(fitting, key=lambda c: (c.count or 0, c.device.total_bytes)):
        assert choice.plan is not None
        yield (
            f"  {choice.device.name:<41} {gib(choice.device.total_bytes):>9} {choice.count:>5} "
            f"{choice.plan.tokens:>16,} {choice.plan.largest_max_model_len:>11,}"
        )
    rest = len(found) - len(fitting)
    if rest:
        yield ""
        yield f"  {rest} other boards do not, not even {MOST_GPUS} of them."


def document(launch: Launch, found: tuple[Choice, ...]) -> dict[str, Any]:
    """The same as JSON values, schema `vllm-doctor/plan-gpus/1`."""
    return {
        "schema": "vllm-doctor/plan-gpus/1",
        "model": launch.model,
        "gpus": [
            {
                "name": c.device.name,
                "memory_bytes": c.device.total_bytes,
                "count": c.count,
                "tokens": c.plan.tokens if c.plan is not None else 0,
                "largest_max_model_len": c.plan.largest_max_model_len if c.plan is not None else 0,
            }
            for c in found
        ],
    }
