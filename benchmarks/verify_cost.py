#!/usr/bin/env python3
"""What `vllm-doctor verify` itself costs beside the server that it waits for: the doctor and its guardian together.

    verify_cost.py --python VENV/bin/python --models FOLDER

CPU is user and system time of both processes between the start of the server and its first answer, as a share of one
core; memory is the largest sum of their resident sets in that time, pages that both share counted twice. The launch
names another family's tool parser, so that two servers are waited for: the second one by a doctor that has walked and
explained before. The figures are those of the worse of the two.
"""

import argparse
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TICKS = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
LOOK_SECONDS = 0.2

MAXIMUM_CORE_SHARE = 0.02
MAXIMUM_BYTES = 60 * 2**20


def fields(pid: int) -> list[str]:
    """The fields of /proc/PID/stat behind the name."""
    return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()


def cpu_seconds(pids: list[int]) -> float:
    """User and system time of these processes, without their children."""
    return sum(int(fields(pid)[11]) + int(fields(pid)[12]) for pid in pids) / TICKS


def resident_bytes(pids: list[int]) -> int:
    """The sum of their resident sets."""
    return sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in pids) * PAGE_BYTES


def child(pid: int, has: str) -> int | None:
    """The child whose command line holds that text."""
    for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        words = Path(f"/proc/{each}/cmdline").read_bytes().decode(errors="replace")
        if has in words:
            return int(each)
    return None


def answers(port: int) -> bool:
    """Whether somebody listens there."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def free_port() -> int:
    """A port that nobody has."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def measured(doctor: "subprocess.Popen[bytes]", port: int, ended: set[int]) -> tuple[float, float, int, list[int]]:
    """Of the next start: seconds of waiting, CPU seconds in it, the largest sum of memory, and each one's at the end.

    `ended` are the guardians of the starts before; this one's is added.
    """
    while (guardian := child(doctor.pid, "os.read(0")) is None or guardian in ended or child(guardian, "serve") is None:
        if doctor.poll() is not None:
            raise SystemExit(f"the doctor ended before it started a server: exit {doctor.returncode}")
        time.sleep(0.02)
    ended.add(guardian)
    pids = [doctor.pid, guardian]
    began, cpu, most = time.monotonic(), cpu_seconds(pids), 0
    while not answers(port) and doctor.poll() is None:
        most = max(most, resident_bytes(pids))
        time.sleep(LOOK_SECONDS)
    return time.monotonic() - began, cpu_seconds(pids) - cpu, most, [resident_bytes([pid]) for pid in pids]


def main() -> None:
    """Measure one start, print the line; the exit code says whether the bars hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", type=Path, required=True)
    parser.add_argument("--models", type=Path, required=True)
    options = parser.parse_args()
    port = free_port()
    launch = [str(options.python.parent / "vllm"), "serve", str(options.models / "tiny-toolcall"), "--enforce-eager",
              "--max-model-len", "2048", "--host", "127.0.0.1", "--port", str(port),
              "--enable-auto-tool-choice", "--tool-call-parser", "pythonic"]  # fmt: skip
    environment = {**os.environ, "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1"}
    environment["PYTHONPATH"] = f"{ROOT}:{ROOT / 'checks'}"
    with tempfile.TemporaryFile() as out:
        argv = [sys.executable, "-m", "vllm_doctor", "verify", "--fail-on", "never", "--", *launch]
        doctor = subprocess.Popen(argv, stdout=out, stderr=out, env=environment)
        try:
            ended: set[int] = set()
            starts = [measured(doctor, port, ended) for _ in range(2)]
            doctor.wait(120)
        finally:
            doctor.kill()
        out.seek(0)
        if doctor.returncode:
            raise SystemExit(out.read().decode(errors="replace"))
    share = max(cpu / seconds for seconds, cpu, _, _ in starts)
    most = max(each[2] for each in starts)
    told = "; ".join(
        f"{cpu:.2f} CPU s in {seconds:.0f} s, doctor {parts[0] / 2**20:.1f}, guardian {parts[1] / 2**20:.1f} MiB"
        for seconds, cpu, _, parts in starts
    )
    print(f"verify_cost: {100 * share:.2f} % of a core, {most / 2**20:.1f} MiB ({told})")
    sys.exit(int(share > MAXIMUM_CORE_SHARE or most > MAXIMUM_BYTES))


if __name__ == "__main__":
    main()
