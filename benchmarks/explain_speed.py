#!/usr/bin/env python3
"""How fast `explain` reads: a plain log, and the worst of many fuzzed and adversarial inputs per byte.

    explain_speed.py [--megabytes 1000] [--inputs 10000] [--kibibytes 64]

The plain log is what a healthy server writes; it is streamed, and the peak of this process's memory is printed. Times
are those of the processor, so that other work on the machine does not count. Each
adversarial input is as long as --kibibytes says; its time per byte is compared with that of a plain log of that length
(the median of many), the smaller of two measurements each.
"""

import argparse
import io
import random
import resource
import statistics
import time

from vllm_doctor.triage.explain import Reading, explain_stream, explain_text
from vllm_doctor.triage.signature import book

PLAIN = (
    "(APIServer pid=1) INFO 01-20 13:03:{0:02} [loggers.py:123] Engine 000: Avg prompt throughput: 2082.8 tokens/s, "
    "Avg generation throughput: 194.4 tokens/s, Running: 3 reqs, Waiting: 0 reqs, GPU KV cache usage: 4.8%\n"
    '(APIServer pid=1) INFO:     172.27.0.4:6{0:03} - "POST /v1/chat/completions HTTP/1.1" 200 OK\n'
    "(APIServer pid=1) INFO 01-20 13:03:{0:02} [logger.py:39] Received request chatcmpl-{0:032x}: params: "
    "SamplingParams(n=1, temperature=0.7, top_p=0.8, max_tokens=512)\n"
)


def plain(size: int) -> bytes:
    """A healthy server's log of so many bytes."""
    lines = "".join(PLAIN.format(number % 60) for number in range(200)).encode()
    return (lines * (size // len(lines) + 1))[:size]


class Stream(io.RawIOBase):
    """So many bytes of a log, made while they are read."""

    def __init__(self, size: int) -> None:
        self._left = size
        self._block = plain(2**20)

    def readable(self) -> bool:
        """It can be read."""
        return True

    def readinto(self, buffer: "bytearray | memoryview") -> int:  # type: ignore[override]
        """Put the next bytes into a buffer."""
        taken = min(self._left, len(self._block), len(buffer))
        self._left -= taken
        buffer[:taken] = self._block[:taken]
        return taken


def inputs(count: int, size: int) -> "list[tuple[str, bytes]]":
    """Named hostile inputs; those beyond the made ones are mixtures, from a fixed seed."""
    chance = random.Random(20)
    lines = [line for s in book().values() for line in (*s.match, *s.miss)]
    made: list[tuple[str, bytes]] = [
        ("no line end", b"x" * size),
        ("empty lines", b"\n" * size),
        ("nul bytes", b"\0" * size),
        ("escapes", b"\x1b[31m" * (size // 5)),
        ("backslashes", b"\\" * size),
        ("brackets", b"([{" * (size // 3)),
        ("prefixes", b"(EngineCore pid=1) " * (size // 19)),
        ("levels", b"ERROR 01-20 13:03:50 [core.py:12] " * (size // 34)),
        ("json escapes", b'\\\\\\"' * (size // 4)),
        ("high bytes", bytes(range(128, 256)) * (size // 128)),
        ("a's", b"a" * 50 + b"ValueError: " * (size // 12)),
    ]
    made += [(f"repeated {line[:40]}", ((line + "\n").encode() * (size // len(line) + 1))[:size]) for line in lines]
    while len(made) < count:
        made.append((f"mixture {len(made)}", _mixture(chance, lines, size)))
    return made[:count]


def _mixture(chance: random.Random, lines: list[str], size: int) -> bytes:
    parts: list[bytes] = []
    total = 0
    kind = chance.randrange(4)
    while total < size:
        line = chance.choice(lines).encode()
        if kind == 1:
            cut = chance.randrange(len(line) + 1)
            line = line[:cut] + chance.randbytes(chance.randrange(20)) + line[cut:]
        elif kind == 2:
            line = line * chance.randrange(1, 30)
        elif kind == 3:
            line = chance.randbytes(chance.randrange(200)) + line
        parts.append(line + (b"\n" if chance.random() < 0.9 else b" "))
        total += len(parts[-1])
    return b"".join(parts)[:size]


def seconds(data: bytes) -> float:
    """The time to explain it."""
    started = time.process_time()
    explain_text(data)
    return time.process_time() - started


def main() -> None:
    """Measure and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--inputs", type=int, default=10_000)
    parser.add_argument("--kibibytes", type=int, default=1024)
    options = parser.parse_args()
    Reading()
    started = time.process_time()
    explain_stream(io.BufferedReader(Stream(options.megabytes * 10**6)))
    elapsed = time.process_time() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    size = options.kibibytes * 1024
    usual = statistics.median(seconds(plain(size)) for _ in range(50))
    worst, name = 0.0, ""
    for label, data in inputs(options.inputs, size):
        taken = seconds(data)
        if taken > 2 * usual:
            taken = min(taken, seconds(data))
        if taken / max(1, len(data)) * size > worst:
            worst, name = taken / max(1, len(data)) * size, label
    print(
        f"{options.megabytes} MB in {elapsed:.1f} s: {options.megabytes / elapsed:.0f} MB/s, peak {peak:.0f} MiB; "
        f"worst of {options.inputs} inputs of {options.kibibytes} KiB: {worst / usual:.1f} times the plain log ({name})"
    )


if __name__ == "__main__":
    main()
