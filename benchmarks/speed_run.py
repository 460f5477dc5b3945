#!/usr/bin/env python3
"""What the check-up costs against `python -m vllm.collect_env` of the same environment, whole processes, in turn.

    speed_run.py --python VENV/bin/python [--runs N]

CPU seconds are user plus system of the process and all that it waited for; memory is the largest single process.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

LOADING = """
import time, msgspec
started = time.process_time()
from vllm_doctor import releases
releases.release("0.32.0")
print(time.process_time() - started)
"""


def measured(argv: list[str], environment: dict[str, str]) -> tuple[float, float]:
    """(CPU seconds, peak MiB) of one run; the output goes to a file, as with a CI runner."""
    with tempfile.TemporaryFile() as out:
        process = subprocess.Popen(argv, stdout=out, stderr=out, env=environment, cwd=tempfile.gettempdir())
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode not in (0, 1):
            out.seek(0)
            raise SystemExit(f"{argv}: exit {process.returncode}: {out.read().decode(errors='replace')[-2000:]}")
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def loading_seconds() -> float:
    """CPU seconds until one release's data are there, in a fresh process."""
    return float(subprocess.run([sys.executable, "-c", LOADING], capture_output=True, text=True, check=True).stdout)


def main() -> None:
    """Measure in turn, print the line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", type=Path, required=True)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    environment = {**os.environ, "PATH": f"{options.python.parent}:{os.environ['PATH']}"}
    doctor = [str(Path(sys.executable).parent / "vllm-doctor")]
    commands = {
        "run": [*doctor, "run"],
        "collect_env": [str(options.python), "-m", "vllm.collect_env"],
        "version": [*doctor, "--version"],
        "pass": [sys.executable, "-c", "pass"],
    }
    rows: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    for turn in range(options.runs + 1):
        for name, argv in commands.items():
            row = measured(argv, environment)
            if turn:  # the first turn warms the caches of the file system
                rows[name].append(row)
    cpu = {name: statistics.median(seconds for seconds, _ in values) for name, values in rows.items()}
    loading = statistics.median(loading_seconds() for _ in range(options.runs))
    peak_mib = max(mib for _, mib in rows["run"])
    print(
        f"speed_run: run {cpu['run']:.3f} CPU s, {peak_mib:.1f} MiB, a release's data {loading * 1000:.0f} ms;"
        f" collect_env {cpu['collect_env']:.2f} CPU s"
        f" ({cpu['collect_env'] / cpu['run']:.1f} times run); --version {cpu['version'] / cpu['pass']:.1f} times"
        f" `python -c pass` ({cpu['pass'] * 1000:.0f} ms)"
    )


if __name__ == "__main__":
    main()
