"""What an expression cannot say of its captures: named conditions that a signature may ask for (`when`)."""

from collections.abc import Callable, Mapping

MEBIBYTES_PER_GIBIBYTE = 1024


def _other_holds_more(captures: Mapping[str, str]) -> bool:
    """Another process holds a good part of the GPU, and more than a third of what this one holds.

    torch names every process on the device, this one's own CUDA context of some hundred MiB included.
    """
    other = _gibibytes(captures.get("other", ""), "GiB")
    own = _gibibytes(captures.get("own", ""), captures.get("own_unit", "GiB"))
    return other > 2 and other > own / 3


def _gibibytes(number: str, unit: str) -> float:
    try:
        value = float(number)
    except ValueError:
        return 0.0
    return value / MEBIBYTES_PER_GIBIBYTE if unit == "MiB" else value


CONDITIONS: Mapping[str, Callable[[Mapping[str, str]], bool]] = {"other-holds-more": _other_holds_more}
