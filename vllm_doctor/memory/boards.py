"""GPUs by the names that people give them: `H100 80GB:2`, `4090`, `A100-40GB`."""

from vllm_doctor import hardware
from vllm_doctor.errors import DoctorError
from vllm_doctor.memory.budget import device_of_board
from vllm_doctor.memory.facts import Device

MAXIMUM_COUNT = 4096
_BRANDS = frozenset({"nvidia", "tesla", "geforce"})


def device(text: str) -> Device:
    """`NAME[:COUNT]` as a device; raises DoctorError for a name of no board, or of boards of several sizes."""
    name, colon, number = text.strip().rpartition(":")
    if not colon:
        name, number = text.strip(), "1"
    if not (number.isascii() and number.isdecimal() and len(number) < 6 and 0 < int(number) <= MAXIMUM_COUNT):
        raise DoctorError(f"--gpu {text!r}: {number!r} is no number of GPUs", "write NAME or NAME:COUNT, as in H100:2")
    board, memory = _board(name)
    return device_of_board(board, memory, int(number))


def every(count: int) -> tuple[Device, ...]:
    """Every board of the catalogue whose memory is known, `count` of each; boards of two sizes are two."""
    return tuple(
        device_of_board(board, size, count) for board in hardware.models() for size in board.memory_mib if size >= 6144
    )


def _board(name: str) -> tuple[hardware.GpuModel, int]:
    words, gigabytes = _words(name)
    if not words:
        raise DoctorError("--gpu names no GPU", "write it as nvidia-smi does, as in --gpu 'H100 80GB:2'")
    # All boards whose name has these words; a name of exactly these words is meant before a longer one.
    found = [(b, size) for b in hardware.models() for size in b.memory_mib if set(words) <= set(_words(b.name)[0])]
    exact = [pair for pair in found if set(_words(pair[0].name)[0]) == set(words)]
    fitting = [p for p in exact or found if gigabytes is None or abs(p[1] / 1024 - gigabytes) < 0.06 * gigabytes + 0.5]
    if not fitting and gigabytes is not None:
        fitting = [p for p in found if abs(p[1] / 1024 - gigabytes) < 0.06 * gigabytes + 0.5]
    if not fitting:
        raise DoctorError(f"no GPU called {name.strip()[:60]!r} is known", _hint(words))
    if gigabytes is None and _sizes_differ(fitting):
        raise DoctorError(
            f"{name.strip()!r} is sold with different memory",
            f"say which: {', '.join(dict.fromkeys(f'{b.name} ({m / 1024:.0f} GiB)' for b, m in fitting))}",
        )
    return min(fitting, key=lambda pair: len(_words(pair[0].name)[0]))


def _sizes_differ(found: list[tuple[hardware.GpuModel, int]]) -> bool:
    """Whether the boards are too far apart for the plainest of them to speak for all (the H100 NVL has 17 % more)."""
    sizes = [m for _, m in found]
    return max(sizes) > 1.25 * min(sizes)


def _words(name: str) -> tuple[tuple[str, ...], int | None]:
    """The words of a name, and the gigabytes that it gives (`80GB`, `80G`, `24 GB`)."""
    text = "".join(c if c.isalnum() else " " for c in name[:128].lower())
    words: list[str] = []
    gigabytes: int | None = None
    for word in text.split():
        number = word.removesuffix("b").removesuffix("g") if word[:1].isdecimal() else ""
        if number.isdecimal() and word != number and len(number) < 4:
            gigabytes = int(number)
        elif word in ("gb", "gib") and words and words[-1].isdecimal():
            gigabytes = int(words.pop())
        elif word not in _BRANDS:
            words.append(word)
    return tuple(words), gigabytes


def _hint(words: tuple[str, ...]) -> str:
    from difflib import get_close_matches

    near = get_close_matches(" ".join(words), [b.name.lower() for b in hardware.models()], n=3, cutoff=0.4)
    return f"did you mean {', '.join(near)}?" if near else "write it as nvidia-smi does, as in --gpu 'H100 80GB:2'"
