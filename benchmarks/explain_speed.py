#!/usr/bin/env python3
"""How fast `explain` reads: a plain log, and the worst of many fuzzed and adversarial texts per byte.

    explain_speed.py [--megabytes 1000] [--inputs 10000] [--kibibytes 1024] [-v]

The plain log is what a healthy server writes; it is streamed, and the peak of this process's memory is printed. Times
are those of the processor, so that other work on the machine does not count. Every hostile text (hostile_texts.py) is
as long as --kibibytes says, and its time is compared with that of a plain log of that length. The slowest are measured
again, in turn with the plain log, and the least times of each are compared. -v: the worst five, and the worst of every
class. Exit status 1: below 100 MB/s, over 120 MiB, or a text that takes over three times the plain log.
"""

import argparse
import io
import resource
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.hostile_texts import text, texts
from vllm_doctor.triage.explain import explain_stream, explain_text

PLAIN = (
    "(APIServer pid=1) INFO 01-20 {hour:02}:{minute:02}:{second:02} [loggers.py:123] Engine 000: Avg prompt "
    "throughput: {rate}.8 tokens/s, Avg generation throughput: 194.4 tokens/s, Running: 3 reqs, Waiting: 0 reqs, "
    "GPU KV cache usage: 4.8%\n"
    '(APIServer pid=1) INFO:     172.27.0.4:{port} - "POST /v1/chat/completions HTTP/1.1" 200 OK\n'
    "(APIServer pid=1) INFO 01-20 {hour:02}:{minute:02}:{second:02} [logger.py:39] Received request "
    "chatcmpl-{number:032x}: params: SamplingParams(n=1, temperature=0.7, top_p=0.8, max_tokens=512)\n"
)

# Of so many of the slowest texts the time is measured so often again.
MEASURED_AGAIN = 24
TIMES = 7

MINIMUM_RATE = 100
MAXIMUM_MEBIBYTES = 120
MAXIMUM_RATIO = 3.0


def plain(size: int) -> bytes:
    """A healthy server's log of so many bytes, no two lines alike."""
    count = size // len(PLAIN) + 2
    return "".join(_plain_lines(number) for number in range(count)).encode()[:size]


def _plain_lines(number: int) -> str:
    hour, minute, second = number // 3600 % 24, number // 60 % 60, number % 60
    port = 30_000 + number * 7 % 20_000
    return PLAIN.format(hour=hour, minute=minute, second=second, rate=number * 13 % 4000, port=port, number=number)


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


def seconds(data: bytes) -> float:
    """The time to explain it."""
    started = time.process_time()
    explain_text(data)
    return time.process_time() - started


def ratio(data: bytes, usual: bytes) -> float:
    """The time per byte over that of the plain log, each the least of several taken in turn."""
    times = [(seconds(data), seconds(usual)) for _ in range(TIMES)]
    return min(t for t, _ in times) / min(t for _, t in times) * len(usual) / max(1, len(data))


def slowest(count: int, size: int) -> list[tuple[float, str]]:
    """The ratios of the slowest texts, and of the slowest of every class, the worst first."""
    measured = [(seconds(data), name, number) for name, number, data in texts(count, size)]
    measured.sort(reverse=True)
    again = {(name, number) for _, name, number in measured[:MEASURED_AGAIN]}
    again |= {next((n, k) for _, n, k in measured if n == name) for name in {n for _, n, _ in measured}}
    usual = plain(size)
    return sorted(((ratio(text(name, k, size), usual), f"{name} {k}") for name, k in again), reverse=True)


def main() -> int:
    """Measure and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--inputs", type=int, default=10_000)
    parser.add_argument("--kibibytes", type=int, default=1024)
    parser.add_argument("-v", "--verbose", action="store_true")
    options = parser.parse_args()
    started = time.process_time()
    explain_stream(io.BufferedReader(Stream(options.megabytes * 10**6)))
    elapsed = time.process_time() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    rate = options.megabytes / elapsed
    ranked = slowest(options.inputs, options.kibibytes * 1024)
    if options.verbose:
        shown = set[str]()
        for place, (worst, name) in enumerate(ranked):
            family = name.rpartition(" ")[0]
            if place < 5 or family not in shown:
                print(f"{worst:5.2f}  {name}")
            shown.add(family)
    worst, name = ranked[0]
    print(
        f"{options.megabytes} MB in {elapsed:.1f} s: {rate:.0f} MB/s, peak {peak:.0f} MiB; worst of {options.inputs} "
        f"texts of {options.kibibytes} KiB: {worst:.2f} times the plain log ({name})"
    )
    return int(rate < MINIMUM_RATE or peak > MAXIMUM_MEBIBYTES or worst > MAXIMUM_RATIO)


if __name__ == "__main__":
    sys.exit(main())
