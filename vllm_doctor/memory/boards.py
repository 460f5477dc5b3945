"""GPUs by the names that people give them: `H100 80GB:2`, `4090`, `A100-40GB`, `8xH100`."""

import re
from collections.abc import Iterator

from vllm_doctor import hardware
from vllm_doctor.errors import DoctorError
from vllm_doctor.memory.budget import device_of_board
from vllm_doctor.memory.facts import Device

MAXIMUM_COUNT = 4096
_BRANDS = frozenset({"nvidia", "tesla", "geforce"})


# Names of machines and makers' lines, and the board that is meant; words of the form that no name in the table needs.
_ALIASES = {"dgx spark": "gb10", "spark": "gb10", "jetson thor": "thor", "agx thor": "thor", "agx orin": "orin"}
_FORMS = frozenset({"sxm", "sxm2", "sxm3", "sxm4", "sxm5", "sxm6", "pcie", "hbm2", "hbm2e", "hbm3", "hbm3e", "jetson"})
_OTHER_MAKERS = re.compile(r"(?:mi ?[0-9]{2,3}|instinct|radeon|gaudi|arc |tpu|ascend|rx ?[0-9]{4})")
_DIGITS, _TIMES = "0123456789", "xX*\u00d7"
_GLUED = re.compile(r"(?<=[a-z])(?=[0-9])|(?<=[0-9])(?=[a-z])")


def device(text: str) -> Device:
    """`NAME[:COUNT]` as a device; raises DoctorError for a name of no board, or of boards of several sizes."""
    name, colon, number = text.strip().rpartition(":")
    if not colon:
        name, number = text.strip(), "1"
    if not (number.isascii() and number.isdecimal() and len(number) < 6 and 0 < int(number) <= MAXIMUM_COUNT):
        raise DoctorError(f"--gpu {text!r}: {number!r} is no number of GPUs", "write NAME or NAME:COUNT, as in H100:2")
    if not colon and not _fitting(name) and (counted := _counted(name)) is not None:
        name, number = counted
    board, memory = _board(name)
    return device_of_board(board, memory, int(number))


def _counted(text: str) -> tuple[str, str] | None:
    """`8xH100` and `H100 x 8`, where the rest is a name."""
    text = text.strip()[:128]
    behind = text.lstrip(_DIGITS)
    before = text.rstrip(_DIGITS)
    for number, rest, sign in (
        (text[: len(text) - len(behind)], behind.strip()[1:], behind.strip()[:1]),
        (text[len(before) :], before.strip()[:-1], before.strip()[-1:]),
    ):
        is_count = 0 < len(number) < 6 and 0 < int(number) <= MAXIMUM_COUNT
        if is_count and sign and sign in _TIMES and _fitting(rest):
            return rest, number
    return None


def capability(name: str) -> str | None:
    """The compute capability, where all boards that may be meant have the same; None where it is not told."""
    for words, _ in _readings(_ALIASES.get(name.strip().lower(), name)):
        boards = [b for b in hardware.models() if words and set(words) <= set(_words(b.name)[0])]
        if boards:
            found = {b.compute_capability for b in boards}
            return found.pop() if len(found) == 1 else None
    return None


def every(count: int) -> tuple[Device, ...]:
    """Every board of the catalogue whose memory is known, `count` of each; boards of two sizes are two."""
    return tuple(
        device_of_board(board, size, count) for board in hardware.models() for size in board.memory_mib if size >= 6144
    )


def _board(name: str) -> tuple[hardware.GpuModel, int]:
    words, gigabytes = _words(name)
    if not words:
        raise DoctorError("--gpu names no GPU", "write it as nvidia-smi does, as in --gpu 'H100 80GB:2'")
    fitting = _fitting(name)
    if not fitting:
        raise DoctorError(*_refusal(name.strip()[:60], words))
    if gigabytes is None and _sizes_differ(fitting):
        raise DoctorError(
            f"{name.strip()!r} is sold with different memory",
            f"say which: {', '.join(dict.fromkeys(f'{b.name} ({m / 1024:.0f} GiB)' for b, m in fitting))}",
        )
    return min(fitting, key=lambda pair: len(_words(pair[0].name)[0]))


def _fitting(name: str) -> list[tuple[hardware.GpuModel, int]]:
    """The boards that are meant, with their MiB, by the first way of reading the name that any board fits."""
    return next((found for words, gigabytes in _readings(name) if (found := _of_words(words, gigabytes))), [])


def _readings(name: str) -> Iterator[tuple[tuple[str, ...], int | None]]:
    """As it is written; with letters and numbers parted (`rtx4090`); without the words of the form (`H100 SXM5`)."""
    for text in (name, _GLUED.sub(" ", name[:128].lower())):
        words, gigabytes = _words(text)
        yield words, gigabytes
        yield tuple(word for word in words if word not in _FORMS), gigabytes


def _of_words(words: tuple[str, ...], gigabytes: int | None) -> list[tuple[hardware.GpuModel, int]]:
    """All boards whose name has these words; a name of exactly these words is meant before a longer one."""
    if not words:
        return []
    found = [(b, size) for b in hardware.models() for size in b.memory_mib if set(words) <= set(_words(b.name)[0])]
    exact = [pair for pair in found if set(_words(pair[0].name)[0]) == set(words)]
    if gigabytes is None:
        return exact or found
    near = [p for p in exact if _is_about(p[1], gigabytes)]
    return near or [p for p in found if _is_about(p[1], gigabytes)]


def _is_about(mebibytes: int, gigabytes: int) -> bool:
    return abs(mebibytes / 1024 - gigabytes) < 0.06 * gigabytes + 0.5


def _refusal(name: str, words: tuple[str, ...]) -> tuple[str, str]:
    text = " ".join(words)
    meant = {_ALIASES.get(text, text), " ".join(word for word in words if word not in _FORMS)}
    if shared := next((b for b in hardware.models() if not b.memory_mib and b.name.lower() in meant), None):
        title = f"how much memory a GPU called {shared.name} has is not told by its name"
        return title, "run `vllm-doctor plan` without --gpu on the machine that has it"
    if _OTHER_MAKERS.match(text):
        return f"{name!r} is no NVIDIA GPU, and plans are made for those only", "name an NVIDIA GPU, as in --gpu H100"
    return f"no GPU called {name!r} is known", _hint(words)


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

    names = {b.name.lower(): b.name for b in hardware.models() if b.memory_mib}
    near = [names[found] for found in get_close_matches(" ".join(words), list(names), n=3, cutoff=0.6)]
    return f"did you mean {', '.join(near)}?" if near else "write it as nvidia-smi does, as in --gpu 'H100 80GB:2'"
