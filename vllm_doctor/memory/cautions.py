"""What the figures of a plan do not say: a flag that was not read, GPUs that stay idle, a context that is refused."""

from collections.abc import Iterator

from vllm_doctor import releases
from vllm_doctor.facts import FlagUse, Launch
from vllm_doctor.memory.defaults import NEWEST
from vllm_doctor.memory.facts import Release
from vllm_doctor.memory.implementation import BACKEND_FROM, THROUGH_TRANSFORMERS
from vllm_doctor.memory.plan import Verdict
from vllm_doctor.memory.planning import Planned
from vllm_doctor.releases.unbuildable import unbuildable

# Methods that left vLLM and that plugins bring back (release notes of 0.24.0 and 0.28.0).
_BY_PLUGINS = ("gguf", "bitsandbytes")

# Flags that every release takes and no list of flags names.
_ALWAYS = frozenset({"--model", "--config", "--help"})


def cautions(planned: Planned) -> tuple[str, ...]:
    """What to know before the verdict is believed, one sentence each."""
    flags = of_flags(planned.launch, planned.release)
    return (*_runs(planned), *_host(planned), *_context(planned), *_idle(planned), *flags)


def _host(planned: Planned) -> Iterator[str]:
    """Tables in the host's memory (0.32 config/engram.py: cpu_offload is on by default)."""
    size = planned.architecture.host_bytes
    if size and not planned.settings.tables_on_gpu:
        yield f"{size / 2**30:.1f} GiB of tables of n-grams lie in the host's memory, pinned: it has to have them."


def of_flags(launch: Launch, release: Release | None) -> Iterator[str]:
    """A release that is not known, and flags that it does not have."""
    oldest, newest = releases.known_versions()[0], releases.newest()
    asked = newest if release is None else _named(release)
    if asked is None:
        version = ".".join(str(number) for number in release or ())
        yield f"vLLM {version} is not known here ({oldest} to {newest} are): it is planned by what the nearest does."
        return
    known = releases.release(asked)
    for name in dict.fromkeys(use.name.partition(".")[0] for use in launch.flags):
        if known is not None and not _is_known(name, known.flags):
            yield f"vLLM {asked} has no flag {name}: it ends there, and the plan does not count with it."
    for use in launch.flags if known is not None else ():
        if known is not None and (value := _refused(use, known)) is not None:
            yield f"vLLM {asked} takes no {value!r} for {use.name}: it ends there."


def _refused(use: FlagUse, known: releases.Release) -> str | None:
    """The value of a flag that is none of those that the release takes; None where all are, or where that is open."""
    flag = known.flags.get(use.name)
    if flag is None:
        return None
    choices = flag.choices if not flag.open_choices else None
    if use.name == "--quantization":
        choices = (*known.quantization, *_BY_PLUGINS) if known.quantization else None
    if not choices or any("<" in choice for choice in choices):
        return None
    plain = (value for value in use.values if value not in ("", "None") and "$" not in value)
    folded = ((value.lower().replace("-", "_") if flag.folded else value, value) for value in plain)
    return next((value for one, value in folded if one not in choices and value not in choices), None)


def _runs(planned: Planned) -> Iterator[str]:
    """Whether the release has code for the architecture, and kernels for the GPU: memory is not all that it takes."""
    version = releases.newest() if planned.release is None else _named(planned.release)
    known = releases.release(version) if version is not None else None
    if known is None:
        return
    name = planned.architecture.name
    spans = releases.architecture_history(name)
    falls_back = name in THROUGH_TRANSFORMERS and (planned.release or NEWEST) >= BACKEND_FROM
    if falls_back and name not in known.architectures:
        yield f"vLLM {version} has no code for {name}: it runs through Transformers' own, where that is installed."
    elif spans and name not in known.architectures:
        had = ", ".join(f"{span.first} to {span.last or releases.newest()}" for span in spans)
        yield f"vLLM {version} has no code for {name} ({had} have)."
    if version is not None and (case := unbuildable(name, version)) is not None:
        yield f"vLLM {version} cannot build {name}, whatever its memory: {case.error} ({case.after} can)."
    least = min((_tenfold(each) for each in known.kernel_architectures), default=0)
    own = planned.device.capability
    if own is not None and own < least:
        yield (
            f"The wheel of vLLM {version} has no kernels for the {planned.device.name} (compute capability "
            f"{own // 10}.{own % 10}; from {least // 10}.{least % 10} on)."
        )


def _tenfold(capability: str) -> int:
    major, _, minor = capability.partition(".")
    return 10 * int(major) + int(minor)


def _named(release: Release) -> str | None:
    """The version of the data with these numbers; a plan does not tell post releases apart."""
    return next((v for v in reversed(releases.known_versions()) if _numbers(v) == release), None)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:3])


def _is_known(name: str, flags: "dict[str, releases.Flag]") -> bool:
    """Whether argparse takes the word: a flag, its `--no-` or mirrored form, or the beginning of one."""
    if not name.startswith("--") or name in _ALWAYS:
        return True
    bare = name.removeprefix("--no-").removeprefix("--").removeprefix("enable-").removeprefix("disable-")
    forms = (name, f"--{bare}", f"--enable-{bare}", f"--disable-{bare}")
    return any(form in flags for form in forms) or any(flag.startswith(name) for flag in flags)


def _idle(planned: Planned) -> Iterator[str]:
    used, count = planned.plan.gpus_needed, planned.device.count
    if used < count:
        yield (
            f"Only {used} of the {count} GPUs {'is' if used == 1 else 'are'} used: --tensor-parallel-size spreads the "
            "model over more of them."
        )


def _context(planned: Planned) -> Iterator[str]:
    native, asked = planned.architecture.native_max_model_len, planned.settings.max_model_len
    if native and asked and asked > native and planned.plan.verdict is not Verdict.TP_DIVISIBILITY:
        yield f"The model's own config allows {native:,} tokens: vLLM refuses {asked:,}."
