"""Runs one of the scripts that ask vLLM what it builds, in a process that takes itself to be on an H100.

Usage: PYTHON scripts/as_if_cuda.py scripts/built_by_vllm.py CONFIG.json [TPxPP ...], with an interpreter that has vLLM
for CPU. vLLM chooses layers, precisions and caches by the platform; here its own CudaPlatform answers, with the numbers
of an H100, kernels that are missing are names without a body, and tensors for the GPU have no memory (torch's meta
device). Nothing can be computed so, only built.
"""

import os
import runpy
import sys
import types
from pathlib import Path
from typing import Any

# The parts of vLLM that need a CUDA build of it.
COMPILED = (
    "vllm._C_stable_libtorch",
    "vllm._moe_C",
    "vllm._flashkda_C",
    "vllm._flashmla_C",
    "vllm._flashmla_extension_C",
    "vllm.third_party.flashmla.flash_mla_interface",
    "vllm.cumem_allocator",
    "vllm.vllm_flash_attn",
    "vllm.vllm_flash_attn.flash_attn_interface",
    "deep_gemm",
)
# Another GPU's compute capability, such as 10.0, makes it one of its family with an H100's other numbers.
CAPABILITY = tuple(int(part) for part in os.environ.get("AS_IF_CAPABILITY", "9.0").split("."))
NAME = "NVIDIA H100 80GB HBM3"
MEMORY_BYTES = 80 * 2**30


class Nameless(types.ModuleType):
    """A compiled module of which every name is a function that does nothing."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *_, **__: None


class Idle:
    """A stream or an event without a GPU."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: None


def replace_modules() -> None:
    """Stand in for what only a CUDA build has."""
    for name in COMPILED:
        module = Nameless(name)
        module.__path__ = []
        module.is_fa_version_supported = lambda version, *_: version in (2, 3)  # type: ignore[attr-defined]
        module.FlashMLASchedMeta = type("FlashMLASchedMeta", (), {})  # type: ignore[attr-defined]
        sys.modules.setdefault(name, module)


def answer_for_torch() -> None:
    """torch.cuda's questions, answered as on an H100."""
    import torch

    properties = types.SimpleNamespace(
        major=CAPABILITY[0],
        minor=CAPABILITY[1],
        name=NAME,
        total_memory=MEMORY_BYTES,
        multi_processor_count=132,
        warp_size=32,
        shared_memory_per_block_optin=232448,
        L2_cache_size=50 * 2**20,
        is_integrated=0,
    )
    answers: dict[str, Any] = {
        "get_device_properties": properties,
        "get_device_capability": CAPABILITY,
        "get_device_name": NAME,
        "device_count": 8,
        "current_device": 0,
        "is_available": True,
        "mem_get_info": (MEMORY_BYTES, MEMORY_BYTES),
        "is_current_stream_capturing": False,
        "current_stream": Idle(),
        "set_device": None,
        "synchronize": None,
    }
    for name, value in answers.items():
        setattr(torch.cuda, name, lambda *_, value=value, **__: value)
    torch.cuda.Stream = torch.cuda.Event = Idle
    torch.accelerator.current_device_index = answers["current_device"].__int__


def answer_for_operators() -> None:
    """Operators that are not registered are functions that do nothing."""
    import torch._ops as operators  # type: ignore[import-not-found]

    own = operators._OpNamespace.__getattr__

    def found(self: Any, name: str) -> Any:
        try:
            return own(self, name)
        except AttributeError:
            if name.startswith("__"):
                raise
            return Nameless(name).call

    operators._OpNamespace.__getattr__ = found


def become_cuda() -> None:
    """Put vLLM's CUDA platform in the place of the one for CPU."""
    import vllm.platforms as platforms  # type: ignore[import-not-found]
    from vllm.platforms import cuda
    from vllm.platforms.interface import DeviceCapability  # type: ignore[import-not-found]

    number = CAPABILITY[0] * 10 + CAPABILITY[1]

    def asked(capability: Any) -> int:
        return capability if isinstance(capability, int) else capability[0] * 10 + capability[1]

    answers: dict[str, Any] = {
        "get_device_capability": lambda *_: DeviceCapability(*CAPABILITY),
        "has_device_capability": lambda capability, *_: number >= asked(capability),
        "is_device_capability": lambda capability, *_: number == asked(capability),
        "is_device_capability_family": lambda capability, *_: number // 10 == capability // 10,
        "get_device_name": lambda *_: NAME,
        "get_device_total_memory": lambda *_: MEMORY_BYTES,
        "import_kernels": lambda *_: None,
        "is_fully_connected": lambda *_: True,
        "log_warnings": lambda *_: None,
        "num_compute_units": lambda *_: 132,
    }
    members = {name: staticmethod(answer) for name, answer in answers.items()}
    platforms._current_platform = type("AsIfCuda", (cuda.NonNvmlCudaPlatform,), members)()
    platforms.current_platform = platforms._current_platform


def answer_for_kernels() -> None:
    """What vLLM asks of its kernels and of Triton while it builds."""
    import vllm._custom_ops as kernels  # type: ignore[import-not-found]
    import vllm.config.vllm as engine  # type: ignore[import-not-found]
    import vllm.triton_utils as triton_utils  # type: ignore[import-not-found]
    import vllm.utils.import_utils as imports  # type: ignore[import-not-found]

    able = ("block_fp8", "fp8")
    for name in (n for n in dir(kernels) if n.startswith("cutlass_") and "support" in n):
        answer = name.endswith(able) or "group" in name
        setattr(kernels, name, lambda *_, answer=answer, **__: answer)
    imports.has_deep_gemm = lambda: True
    engine.HAS_TRITON = True  # Which of its two model runners vLLM takes hangs on it.
    triton_utils.triton.Config = lambda values=None, num_warps=4, num_stages=1, **_: types.SimpleNamespace(
        kwargs=values or {}, num_warps=num_warps, num_stages=num_stages
    )


def ask_in_this_process() -> None:
    """vLLM asks what a class can do in a child, which would be on a CPU again, and keeps the answer in a file."""
    import vllm.model_executor.models.registry as registry  # type: ignore[import-not-found]
    import vllm.utils.platform_utils as memory  # type: ignore[import-not-found]

    registry._run_in_subprocess = lambda ask: ask()
    registry._LazyRegisteredModel._load_modelinfo_from_cache = lambda *_: None
    registry._LazyRegisteredModel._save_modelinfo_to_cache = lambda *_: None
    memory.is_uva_available = lambda: True


def keep_off_the_gpu() -> None:
    """Every tensor that is asked for on CUDA is made on the meta device."""
    from torch.overrides import TorchFunctionMode  # type: ignore[import-not-found]

    class ToMeta(TorchFunctionMode):  # type: ignore[misc]
        def __torch_function__(self, function: Any, _: Any, args: Any = (), kwargs: Any = None) -> Any:
            named = dict(kwargs or {})
            if named.get("device") is not None and (isinstance(named["device"], int) or "cuda" in str(named["device"])):
                named["device"] = "meta"
            named.pop("pin_memory", None)
            moved = tuple("meta" if str(a).startswith("cuda") and not hasattr(a, "shape") else a for a in args)
            return function(*moved, **named)

    ToMeta().__enter__()


def main() -> None:
    """Becomes an H100 and runs the script that is named, with its own arguments."""
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    steps = (
        replace_modules,
        answer_for_torch,
        become_cuda,
        answer_for_kernels,
        answer_for_operators,
        ask_in_this_process,
    )
    for step in steps:
        step()
    keep_off_the_gpu()
    sys.argv = sys.argv[1:]
    sys.path.insert(0, str(Path(sys.argv[0]).parent))
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main()
