"""The check that reads what importing vLLM and its libraries in a child interpreter raised (`--deep`)."""

import re
from collections.abc import Iterator
from contextlib import suppress

from msgspec import structs

from vllm_doctor.check import Check, NotApplicable, NotKnown, check
from vllm_doctor.facts import Environment, ImportTrial
from vllm_doctor.finding import Confidence, Finding, Fix, Severity, error, warning
from vllm_doctor.snapshot import Snapshot
from vllm_doctor_checks import (
    cloud,
    install,
    installed_files,
    installers,
    kernels,
    libraries,
    platform_support,
    requirements,
)
from vllm_doctor_checks import torch_family as torch

# What an exception's text says for certain, by the library that failed; the first that matches decides. Every pattern
# is bounded: an exception may hold megabytes of template names.
CERTAIN = (
    ("platform-unsupported", r"version `GLIBC_[0-9.]{1,8}' not found"),
    ("flash-attn-mismatch", r"flash_attn[^\n]{0,300}undefined symbol"),
    ("torch-companion-mismatch", r"operator torch(?:vision|audio)::"),
    ("torch-companion-mismatch", r"torch(?:vision|audio)/[^\n]{0,300}undefined symbol"),
    (
        "cuda-wheel-mismatch",
        r"lib(?:cudart|cublas|cudnn|cufft|cusparse|cusolver|nvrtc|nvJitLink|nccl)[^\n]{0,80}cannot open",
    ),
    ("cuda-wheel-mismatch", r"undefined symbol: _{0,2}(?:nvJitLink|ncclCommW|cublas|cudnn|cusparse)"),
    ("torch-vllm-mismatch", r"vllm/[^\n]{0,300}undefined symbol"),
    ("torch-vllm-mismatch", r"lib(?:torch|c10)[A-Za-z0-9_]{0,40}\.so[^\n]{0,80}cannot open"),
    ("flashinfer-mismatch", r"flashinfer-(?:cubin|jit-cache) version"),
    ("broken-install", r"No package metadata was found for vllm"),
    ("broken-install", r"No module named '(?:vllm|torch)['.]"),
    ("transformers-mismatch", r"cannot import name '[^'\n]{1,100}' from 'transformers"),
    ("transformers-mismatch", r"is already used by a Transformers config"),
    ("dependency-conflict", r"is required for a normal functioning of this module"),
    ("dependency-conflict", r"pydantic-core version|compiled using NumPy 1\.x|DEFAULT_CIPHERS"),
    ("dependency-conflict", r"No module named '(?!vllm|torch)"),
    ("dependency-conflict", r"cannot import name '[^'\n]{1,100}' from '(?!vllm|torch|transformers)"),
)

# Whose import failed, where the text says nothing known.
BY_MODULE = {
    "torchvision": "torch-companion-mismatch",
    "torchaudio": "torch-companion-mismatch",
    "flash_attn": "flash-attn-mismatch",
    "flashinfer": "flashinfer-mismatch",
    "transformers": "transformers-mismatch",
}

# vLLM cannot start without these; what else was tried may fail without harm.
ESSENTIAL = ("torch", "vllm", "transformers")

EXPLAINING: tuple[Check, ...] = (
    install.vllm_metadata,
    installed_files.vllm_files,
    install.shadowed_package,
    platform_support.glibc,
    torch.torch_pin,
    torch.torch_companions,
    kernels.flash_attn,
    kernels.flashinfer_parts,
    kernels.cuda_wheels,
    libraries.transformers_range,
    libraries.requirement_violated,
    cloud.cloud_libraries,
)


@check(
    "import-trial",
    causes=(
        "platform-unsupported",
        "broken-install",
        "torch-vllm-mismatch",
        "cuda-wheel-mismatch",
        "torch-companion-mismatch",
        "flash-attn-mismatch",
        "flashinfer-mismatch",
        "transformers-mismatch",
        "dependency-conflict",
    ),
    needs=("environment",),
)
def import_trial(snapshot: Snapshot) -> Iterator[Finding]:
    """Importing vLLM, or a library that it needs, fails in its own interpreter.

    Why: with `--deep` the imports are tried in a child of the examined interpreter; what they raise is what `vllm
    serve` would raise. The library that fails decides the cause. Where another check has named that cause already from
    the files alone, this one is silent.
    Fix: as the exception says; the finding names the library.
    """
    environment = requirements.examined(snapshot)
    if environment.imports is None:
        raise NotApplicable("nothing was imported: only --deep does")
    explained = _explained(snapshot)
    spoken_of: set[str] = set()
    for trial in environment.imports:
        if trial.error is None:
            continue
        cause, certain = _cause_of(trial)
        if cause in explained or cause in spoken_of or (explained and not certain):
            continue
        spoken_of.add(cause)
        yield _finding(environment, trial, cause, certain)


def _explained(snapshot: Snapshot) -> set[str]:
    """The causes of the errors that the other checks see without importing anything."""
    return {f.cause for other in EXPLAINING for f in _said(other, snapshot) if f.severity is Severity.ERROR}


def _said(other: Check, snapshot: Snapshot) -> list[Finding]:
    """What the check finds, up to where a fact is missing to it."""
    found: list[Finding] = []
    with suppress(NotKnown, NotApplicable):
        found.extend(other.function(snapshot))
    return found


def _cause_of(trial: ImportTrial) -> tuple[str, bool]:
    text = trial.error or ""
    for cause, pattern in CERTAIN:
        if re.search(pattern, text):
            return cause, True
    return BY_MODULE.get(trial.module.split(".")[0], "broken-install"), False


def _finding(environment: Environment, trial: ImportTrial, cause: str, certain: bool) -> Finding:
    last = _last_line(trial.error or "")
    title = f"`import {trial.module}` fails: {last}"
    evidence = (f"tried by {environment.python}, {trial.seconds:.1f} s", last)
    fixes = _fixes(environment, trial, cause)
    if trial.module.split(".")[0] not in ESSENTIAL:
        return warning(cause, title, evidence=evidence, fixes=fixes)
    found = error(cause, title, evidence=evidence, fixes=fixes)
    return found if certain else structs.replace(found, confidence=Confidence.LIKELY)


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return (lines[-1] if lines else "no text")[:300]


def _fixes(environment: Environment, trial: ImportTrial, cause: str) -> tuple[Fix, ...]:
    missing = re.search(r"No module named '([A-Za-z0-9_]{1,80})['.]", trial.error or "")
    build = environment.vllm
    wanted = f"vllm=={requirements.public(build.version)}" if build is not None and build.version else "vllm"
    again = Fix(
        title="Let the installer bring vLLM's requirements in order again",
        command=installers.install(environment, wanted),
    )
    if cause == "dependency-conflict" and missing:
        return (Fix(title=f"The module {missing[1]} is missing: install the distribution that brings it"), again)
    return (again,)
