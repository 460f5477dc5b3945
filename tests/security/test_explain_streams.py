"""`vllm-doctor explain -` as a process: any stream is read in bounded memory."""

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from benchmarks.hostile_texts import text
from tests.cli.calling import ROOT
from tests.security.calling import MEASURE

# A gigabyte was measured by hand; the memory is the same from a few megabytes on.
STREAM_BYTES = 96 * 2**20

FAULT = b"\nValueError: Total number of attention heads (12) must be divisible by tensor parallel size (8).\n"

MAXIMUM_MIB = 120


def blocks(part: bytes) -> Iterator[bytes]:
    block = part * (2**20 // len(part) + 1)
    for _ in range(STREAM_BYTES // len(block)):
        yield block


STREAMS = {
    "zeros": b"\0" * 4096,
    "line ends": b"\n" * 4096,
    "one line": b"x" * 4096,
    "one word": b"error ",
    "numbers": b"".join(b"%d\n" % number for number in range(50_000)),
    "all lines": text("all lines", 1, 2**20),
    "a mixture": text("a mixture of all", 1, 2**20),
}


def explained(part: bytes) -> "tuple[subprocess.Popen[bytes], bytes]":
    argv = [sys.executable, "-c", MEASURE, sys.executable, "-m", "vllm_doctor", "explain", "-"]
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'checks'}"}
    process = subprocess.Popen(
        argv, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with process.stdin as pipe:
        for block in blocks(part):
            pipe.write(block)
        pipe.write(FAULT)
    with process.stdout:
        output = process.stdout.read()
    process.wait(60)
    return process, output


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_of_any_size_takes_little_memory(name: str) -> None:
    process, output = explained(STREAMS[name])
    assert process.returncode == 1
    assert b"tp-divisibility" in output or name in ("all lines", "a mixture")
    assert b"\x1b" not in output
    assert int(output.partition(b"PEAK ")[2].split()[0]) / 1024 < MAXIMUM_MIB
