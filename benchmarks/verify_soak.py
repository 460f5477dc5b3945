#!/usr/bin/env python3
"""Launches in a row, ended in every stage and by every means; counts what is left, by a look of its own.

    verify_soak.py --python VENV/bin/python --models FOLDER [--launches 50] [--first 0]

Each launch is a real `vllm serve` of a tiny model. One in five is stopped when it serves; the others while they import,
start the engine or load, by a stop, by SIGKILL of the server, of the guardian, or of the engine. Left are processes of
its session, open ports, segments in /dev/shm that the job was seen with, and the job's folder. Segments that appeared
meanwhile and that nobody holds are counted apart: on a machine that does nothing else they would be the job's as well.
"""

import argparse
import os
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from vllm_doctor.trial.guardian import ours, segments
from vllm_doctor.trial.job import Job, start
from vllm_doctor.trial.progress import Ready, Stage, wait_ready

STAGES = ("import", "init", "ready", "profile", "init")


class Reached(Exception):
    """The stage to end in."""


def free_port() -> int:
    """A port that nobody has."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def stop(_job: Job) -> None:
    """In order."""


def kill_server(job: Job) -> None:
    """The first process alone, as an out-of-memory killer does it."""
    os.kill(job.pid, signal.SIGKILL)


def kill_engine(job: Job) -> None:
    """The last one that was started: an engine core or a worker where there is one."""
    os.kill(max(job.processes(), key=lambda process: process.started).pid, signal.SIGKILL)


def freeze(job: Job) -> None:
    """All of them: none reacts to SIGTERM."""
    for process in job.processes():
        ours.send(process, signal.SIGSTOP)


def kill_guardian(job: Job) -> None:
    """The one that is to take it down."""
    os.kill(job.guardian_pid, signal.SIGKILL)


ENDS: Sequence[Callable[[Job], None]] = (stop, kill_server, kill_engine, freeze, kill_guardian, stop)


def ended(argv: Sequence[str], environment: dict[str, str], stage: str, end: Callable[[Job], None]) -> Counter[str]:
    """What is left of one launch."""
    before = segments.present()

    def tell(seen: Stage) -> None:
        if seen.name == stage and stage != "ready":
            raise Reached

    port = free_port()
    with start([*argv, "--port", str(port)], environment=environment, folder=None, port=port) as job:
        served = False
        try:
            served = isinstance(wait_ready(job, f"http://127.0.0.1:{port}/v1", tell=tell), Ready)
        except Reached:
            # A moment further on, for the import has only begun.
            time.sleep(1)
        mine = set().union(*(segments.held_by(process.pid) for process in job.processes())) - before
        end(job)
        said = job.stop()
    for line in said.what:
        print(f"  {stage}, {end.__name__}: {line}", file=sys.stderr)
    held = set().union(*(segments.held_by(pid) for pid in ours.everyone()))
    with socket.socket() as probe:
        is_open = probe.connect_ex(("127.0.0.1", port)) == 0
    present = segments.present()
    forgotten = present & mine
    for path, _ in sorted(forgotten):
        print(f"  {stage}, {end.__name__}: {path} is left", file=sys.stderr)
    return Counter(
        served=served,
        processes=sum(process.session == job.pid for process in ours.everyone().values() if not process.ended),
        ports=is_open,
        segments=len(forgotten),
        others=len(present - before - held - mine),
        folders=Path(job.folder).exists(),
        said=not said.nothing,
    )


def main() -> None:
    """Launch, end, look, again; print the line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", type=Path, required=True)
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--launches", type=int, default=50)
    parser.add_argument("--first", type=int, default=0, help="go on with that launch: for a soak in parts")
    options = parser.parse_args()
    argv = [str(options.python.parent / "vllm"), "serve", str(options.models / "tiny-hello"), "--enforce-eager",
            "--max-model-len", "2048", "--host", "127.0.0.1"]  # fmt: skip
    environment = {**os.environ, "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1"}
    total: Counter[str] = Counter()
    began = time.monotonic()
    for number in range(options.first, options.first + options.launches):
        total += ended(argv, environment, STAGES[number % len(STAGES)], ENDS[number % len(ENDS)])
    print(
        f"verify_soak: {options.launches} launches in {time.monotonic() - began:.0f} s, {total['served']} served;"
        f" left behind: {total['processes']} processes, {total['ports']} ports, {total['segments']} segments,"
        f" {total['folders']} folders ({total['others']} segments of unknown origin);"
        f" the doctor said so {total['said']} times"
    )
    raise SystemExit(any(total[name] for name in ("processes", "ports", "segments", "folders", "said")))


if __name__ == "__main__":
    main()
