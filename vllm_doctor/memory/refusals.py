"""What vLLM refuses before it looks at any memory: a context over the config's, flags that a release does not take."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from vllm_doctor import releases
from vllm_doctor.facts import FlagUse, Launch
from vllm_doctor.memory.facts import Architecture, Device, LaunchSettings, Release
from vllm_doctor.releases.unbuildable import unbuildable

# Methods that left vLLM and that plugins bring back (release notes of 0.24.0 and 0.28.0).
_BY_PLUGINS = ("gguf", "bitsandbytes")

# Flags that every release takes and no list of flags names.
_ALWAYS = frozenset({"--model", "--config", "--help"})


# The Transformers backend (vllm/model_executor/models/transformers.py, release notes of 0.7.2).
_TRANSFORMERS_FROM: Release = (0, 7, 2)


class BadFlag(NamedTuple):
    """A flag with which the launch ends: a sentence for the reader, and what vLLM says (`said`)."""

    name: str
    words: str
    said: str


def context_refusal(architecture: Architecture, settings: LaunchSettings) -> str | None:
    """vLLM's words for a context over what the config allows (0.32 config/model.py _get_and_verify_max_len)."""
    asked, longest = settings.max_model_len, architecture.longest_max_model_len
    if asked is None or longest is None or asked <= longest or settings.any_max_model_len:
        return None
    return (
        f"User-specified max_model_len ({asked}) is greater than the derived max_model_len "
        f"({architecture.position_key}={longest} or model_max_length=None in model's config.json). To allow overriding "
        "this maximum, set the env var VLLM_ALLOW_LONG_MAX_MODEL_LEN=1."
    )


def bad_flags(launch: Launch, release: Release | None) -> Iterator[BadFlag]:
    """Flags that the release does not have, then values that it does not take; none where it is not known."""
    version = releases.newest() if release is None else named(release)
    known = releases.release(version) if version is not None else None
    if known is None:
        return
    for name in dict.fromkeys(use.name.partition(".")[0] for use in launch.flags):
        if not _is_known(name, known.flags):
            words = f"vLLM {version} has no flag {name}: it ends there, and the plan does not count with it."
            yield BadFlag(name, words, f"error: unrecognized arguments: {name}")
    for use in launch.flags:
        if (value := _refused(use, known)) is not None:
            words = f"vLLM {version} takes no {value!r} for {use.name}: it ends there."
            yield BadFlag(use.name, words, f"error: argument {use.name}: invalid choice: {value!r}")


def architecture_refusal(name: str, release: Release | None) -> str | None:
    """vLLM's words for an architecture that it cannot build, or has no code for.

    From 0.7.2 on Transformers' code may run what vLLM has none for.
    """
    version = releases.newest() if release is None else named(release)
    if version is not None and (case := unbuildable(name, version)) is not None:
        return case.error
    known = releases.release(version) if version is not None else None
    if known is None or name in known.architectures or not releases.architecture_history(name):
        return None
    if release is None or release >= _TRANSFORMERS_FROM:
        return None
    return f"Model architectures ['{name}'] are not supported for now."


def kernels_missing(device: Device, release: Release | None) -> str | None:
    """Why the release's wheel has no kernels for the GPU; None where it has, or where that is not known."""
    version = releases.newest() if release is None else named(release)
    known = releases.release(version) if version is not None else None
    own = device.capability
    least = min((_tenfold(each) for each in known.kernel_architectures), default=0) if known is not None else 0
    if own is None or own >= least:
        return None
    return (
        f"The wheel of vLLM {version} has no kernels for the {device.name} (compute capability "
        f"{own // 10}.{own % 10}; from {least // 10}.{least % 10} on)."
    )


def _tenfold(capability: str) -> int:
    major, _, minor = capability.partition(".")
    return 10 * int(major) + int(minor)


def named(release: Release) -> str | None:
    """The version of the data with these numbers; a plan does not tell post releases apart."""
    return next((v for v in reversed(releases.known_versions()) if _numbers(v) == release), None)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:3])


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


def _is_known(name: str, flags: Mapping[str, releases.Flag]) -> bool:
    """Whether argparse takes the word: a flag, its `--no-` or mirrored form, or the beginning of one."""
    if not name.startswith("--") or name in _ALWAYS:
        return True
    bare = name.removeprefix("--no-").removeprefix("--").removeprefix("enable-").removeprefix("disable-")
    forms = (name, f"--{bare}", f"--enable-{bare}", f"--disable-{bare}")
    return any(form in flags for form in forms) or any(flag.startswith(name) for flag in flags)
