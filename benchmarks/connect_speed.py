#!/usr/bin/env python3
"""What `connect` costs against a server that answers at once: seconds of the process, of the walk, tokens asked for.

    connect_speed.py [--runs N] [--url BASE_URL]

Without --url the server is the tests' scripted one, so that the figures are the doctor's own. The issue's bound: one
second plus the time of the answers themselves, and no more than 64 tokens.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time

from tests.client.scripted import Scripted


def one(url: str) -> tuple[float, float, float]:
    """Wall seconds of the process, CPU seconds of it, and seconds of its steps."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.monotonic()
    argv = [sys.executable, "-m", "vllm_doctor", "connect", url, "--format", "json"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    wall = time.monotonic() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    report = json.loads(done.stdout)
    if report["findings"]:
        raise SystemExit(f"the server is not healthy: {report['findings'][0]['title']}")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return wall, cpu, sum(step["seconds"] for step in report["steps"])


def main() -> None:
    """Measure and print one line of figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--url")
    given = parser.parse_args()
    with Scripted() as server:
        rows = [one(given.url or server.base) for _ in range(given.runs)]
        bodies = [asked.json() for asked in server.asked if asked.method == "POST"]
        tokens = sum(body["max_tokens"] for body in bodies) / given.runs
    wall, cpu, steps = (statistics.median(column) for column in zip(*rows, strict=True))
    memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    asked = f"; {tokens:.0f} tokens asked for" if given.url is None else ""
    print(f"connect-speed: {wall:.2f} s wall, {cpu:.2f} s CPU, {memory:.0f} MiB; steps {steps:.3f} s{asked}")


if __name__ == "__main__":
    main()
