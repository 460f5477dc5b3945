"""A size that cannot be computed exactly: the least, the likely and the most that it takes."""

from vllm_doctor.facts.base import Facts

MIB = 2**20
GIB = 2**30


class Estimate(Facts, frozen=True):
    """Bytes with their band: a launch fits for certain where it holds at `high`, and not where it fails at `low`."""

    low: int
    typical: int
    high: int

    def plus(self, other: "Estimate") -> "Estimate":
        """The sum, whose band is the sum of the bands (the terms err in the same direction)."""
        return Estimate(self.low + other.low, self.typical + other.typical, self.high + other.high)


def exactly(size_bytes: int) -> Estimate:
    """A size without a band."""
    return Estimate(size_bytes, size_bytes, size_bytes)


def banded(typical_bytes: float, below: float, above: float, floor_bytes: int = 0) -> Estimate:
    """A size with a relative band on either side, which is `floor_bytes` wide at least."""
    low = typical_bytes - max(typical_bytes * below, floor_bytes)
    high = typical_bytes + max(typical_bytes * above, floor_bytes)
    return Estimate(max(0, round(low)), round(typical_bytes), round(high))


def widest(one: Estimate, other: Estimate) -> Estimate:
    """The larger of two that do not happen at once."""
    return Estimate(max(one.low, other.low), max(one.typical, other.typical), max(one.high, other.high))


def gib(size_bytes: float) -> str:
    """A size as a reader likes it."""
    if abs(size_bytes) >= 100 * GIB:
        return f"{size_bytes / GIB:.0f} GiB"
    return f"{size_bytes / GIB:.1f} GiB" if abs(size_bytes) >= GIB else f"{size_bytes / GIB:.2f} GiB"
