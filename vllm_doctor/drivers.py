"""Which NVIDIA driver a CUDA version needs, and which CUDA a driver brings."""

# CUDA Compatibility guide, "Minor version compatibility", and the CUDA release notes, table 2: a driver from here on
# runs every minor version of that CUDA major.
MINIMUM_DRIVER = {11: "450.80.02", 12: "525.60.13", 13: "580.65.06"}

# CUDA release notes, table 3: the branch of the driver that came with each toolkit.
TOOLKIT_BRANCH = {
    (11, 8): 520,
    (12, 0): 525,
    (12, 1): 530,
    (12, 2): 535,
    (12, 3): 545,
    (12, 4): 550,
    (12, 5): 555,
    (12, 6): 560,
    (12, 8): 570,
    (12, 9): 575,
    (13, 0): 580,
    (13, 1): 590,
    (13, 2): 595,
    (13, 3): 610,
}


def numbers(version: str) -> tuple[int, ...]:
    """`580.65.06` as (580, 65, 6); an empty tuple for what is no such version."""
    parts = version.split(".")
    return tuple(int(p[:9]) for p in parts) if all(p.isascii() and p.isdecimal() for p in parts) else ()


def cuda_numbers(version: str) -> tuple[int, int] | None:
    """`12.8` as (12, 8), None for what is no such version."""
    parts = numbers(version)
    return (parts[0], parts[1]) if len(parts) >= 2 else None
