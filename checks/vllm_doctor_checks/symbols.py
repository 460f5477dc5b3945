"""Reads what compiled modules lack: which missing symbols and libraries are torch's, CUDA's, or somebody else's."""

import re
from pathlib import PurePath

from vllm_doctor.check import NotKnown
from vllm_doctor.facts import Environment, Extension, TorchBuild, Unknown
from vllm_doctor_checks.requirements import normalised

# Length-prefixed namespaces of a mangled C++ name (Itanium C++ ABI, <source-name>): at::, c10::, torch::, caffe2::; and
# the C interface of torch's AOTInductor shim (torch/csrc/inductor/aoti_torch/c/shim.h).
_TORCH = re.compile(r"_ZN?K?(?:2at|3c10|5torch|6caffe2)|(?:2at|3c10|5torch|6caffe2)\d|^(?:aoti_)?torch_")
_TORCH_LIBRARY = re.compile(r"lib(?:torch|c10|caffe2|shm)[A-Za-z0-9_-]{0,40}\.so")
_CUDA_LIBRARY = re.compile(
    r"lib(?:cudart|cublas|cudnn|cufft|cufile|cupti|curand|cusolver|cusparse|cudss|nccl|nvrtc|nvJitLink|nvshmem|nvToolsExt)"
    r"[A-Za-z0-9_-]{0,40}\.so"
)
_CUDA_SYMBOL = re.compile(r"^_{0,2}(?:nvJitLink|cublas|cudnn|cusparse|nccl|nvshmem|cuda[A-Z])")


def extensions_of(environment: Environment, owner: str) -> tuple[Extension, ...]:
    """The compiled modules of that distribution; none where they could not be read at all."""
    if isinstance(environment.extensions, Unknown):
        return ()
    return tuple(e for e in environment.extensions if normalised(e.owner) == owner)


def torch_for_another_platform(environment: Environment) -> TorchBuild | None:
    """The torch without CUDA beside a CUDA build of vLLM; None where they go together or vLLM's platform is not known.

    It lacks whatever the kernels of vLLM, flash-attn and torchvision need, so it is the one root cause of all that.
    """
    build, torch = environment.vllm, environment.torch
    if build is None or torch is None or build.platform != "cuda" or torch.platform == "cuda":
        return None
    return torch


def vllm_lacks_torch(environment: Environment) -> bool:
    """Whether vLLM's modules ask for what this torch does not have: then torch is the one root cause."""
    return any(torch_symbols(e) or torch_libraries(e) for e in extensions_of(environment, "vllm"))


def refuse_unjudged(environment: Environment, owner: str) -> None:
    """Raise NotKnown where a compiled module of the distribution could not be judged."""
    for extension in extensions_of(environment, owner):
        if extension.problem is not None:
            raise NotKnown(f"{PurePath(extension.path).name}: {extension.problem}")


def torch_symbols(extension: Extension) -> tuple[str, ...]:
    """The undefined symbols that torch's libraries should define."""
    return tuple(s for s in extension.undefined if _TORCH.search(s))


def torch_libraries(extension: Extension) -> tuple[str, ...]:
    """The missing libraries that torch should bring."""
    return tuple(n for n in extension.needed_missing if _TORCH_LIBRARY.match(n))


def cuda_libraries(extension: Extension) -> tuple[str, ...]:
    """The missing libraries that the CUDA wheels should bring."""
    return tuple(n for n in extension.needed_missing if _CUDA_LIBRARY.match(n))


def cuda_symbols(extension: Extension) -> tuple[str, ...]:
    """The undefined symbols that CUDA's libraries should define."""
    return tuple(s for s in extension.undefined if _CUDA_SYMBOL.match(s))
