"""The one way to NVML: every call goes through `query`, and no driver exception leaves it."""

from pathlib import Path
from typing import Any, NamedTuple

from vllm_doctor.facts import NvmlFailure, NvmlUnavailable, Unknown

# nvml.h, nvmlReturn_t.
NOT_SUPPORTED = 3
NO_PERMISSION = 4
NOT_FOUND = 6
DRIVER_NOT_LOADED = 9
LIBRARY_NOT_FOUND = 12
FUNCTION_NOT_FOUND = 13
GPU_IS_LOST = 15
RESET_REQUIRED = 16
VERSION_MISMATCH = 18
UNKNOWN_ERROR = 999

LIBRARY = "libnvidia-ml.so.1"

# /proc/self/maps of a doctor has some 300 lines; this bounds the read of an odd one.
_MAXIMUM_MAPS_BYTES = 4 * 2**20

_FAILURES = {
    NO_PERMISSION: NvmlFailure.NO_PERMISSION,
    DRIVER_NOT_LOADED: NvmlFailure.DRIVER_NOT_LOADED,
    LIBRARY_NOT_FOUND: NvmlFailure.NO_LIBRARY,
    GPU_IS_LOST: NvmlFailure.GPU_LOST,
    RESET_REQUIRED: NvmlFailure.GPU_LOST,
    VERSION_MISMATCH: NvmlFailure.VERSION_MISMATCH,
}


class Answer(NamedTuple):
    """What NVML said: a value, or the return code of its refusal and NVML's own words for it."""

    value: Any
    refusal: int = 0
    text: str = ""

    @property
    def lost(self) -> bool:
        """Whether the refusal means that the GPU does not answer any more."""
        return self.refusal in (GPU_IS_LOST, RESET_REQUIRED)

    def fact(self) -> Any:
        """The value, or Unknown with NVML's words."""
        return Unknown(f"NVML: {self.text}") if self.refusal else self.value

    def if_supported(self) -> Any:
        """The value; None where the board does not have such a thing; Unknown where NVML refused otherwise."""
        return None if self.refusal == NOT_SUPPORTED else self.fact()


def query(function: str, *arguments: Any) -> Answer:
    """Call one function of NVIDIA's binding by its name.

    A function that this binding or this driver's library lacks answers FUNCTION_NOT_FOUND, as NVML itself does.
    """
    import pynvml

    called = getattr(pynvml, function, None)
    if called is None:
        return Answer(None, FUNCTION_NOT_FOUND, f"this binding has no {function}")
    try:
        value = called(*arguments)
    except pynvml.NVMLError as problem:
        return Answer(None, int(getattr(problem, "value", UNKNOWN_ERROR)), _words(problem))
    except UnicodeDecodeError:
        return Answer(None, UNKNOWN_ERROR, f"{function} answered bytes that are no text")
    return Answer(value.decode(errors="replace") if isinstance(value, bytes) else value)


def first(*calls: tuple[Any, ...]) -> Answer:
    """The answer of the first of these calls that the installed driver knows (newest version of a function first)."""
    answer = Answer(None, FUNCTION_NOT_FOUND, "no version of the function is known")
    for function, *arguments in calls:
        answer = query(function, *arguments)
        # Some drivers answer NOT_SUPPORTED or ARGUMENT_VERSION_MISMATCH (25) for a newer structure only.
        if answer.refusal not in (FUNCTION_NOT_FOUND, 25):
            break
    return answer


def start() -> NvmlUnavailable | None:
    """Initialise NVML; None when it is ready, else why it can be asked nothing."""
    import ctypes

    # The binding costs 30 ms to import: where there is no library there is no need of it.
    try:
        ctypes.CDLL(LIBRARY)
    except OSError as problem:
        return NvmlUnavailable(failure=NvmlFailure.NO_LIBRARY, detail=_without_library(problem))
    answer = query("nvmlInit")
    return unavailable(answer) if answer.refusal else None


def stop() -> None:
    """Shut NVML down."""
    query("nvmlShutdown")


def unavailable(answer: Answer) -> NvmlUnavailable:
    """The refusal of everything, as a fact, with the version of the user-space library."""
    return NvmlUnavailable(
        failure=_FAILURES.get(answer.refusal, NvmlFailure.OTHER),
        detail=f"NVML error {answer.refusal}: {answer.text.rstrip('. ')}",
        library_version=library_version(),
    )


def library_version() -> str | None:
    """The version in the file name of the loaded library (`libnvidia-ml.so.580.65.06`), None where it names none.

    NVML itself cannot be asked: before a successful nvmlInit it answers UNINITIALIZED.
    """
    try:
        with Path("/proc/self/maps").open("rb") as file:
            maps = file.read(_MAXIMUM_MAPS_BYTES)
    except OSError:
        return None
    for line in maps.splitlines():
        _, found, rest = line.partition(b"libnvidia-ml.so.")
        version = rest.strip().decode(errors="replace")
        if found and version.count(".") >= 1 and version.replace(".", "").isdigit():
            return version
    return None


def _words(problem: Exception) -> str:
    text = str(problem)
    # The binding's texts for some codes come from the library, which may return bytes.
    return text[2:-1] if text.startswith("b'") and text.endswith("'") else text


def _without_library(problem: OSError) -> str:
    """`libnvidia-ml.so.1: cannot open shared object file: ...` is the common case: no driver is installed here."""
    text = " ".join(str(problem).split())[:200]
    return f"there is no {LIBRARY}" if "No such file" in text else f"{LIBRARY} cannot be loaded: {text}"
