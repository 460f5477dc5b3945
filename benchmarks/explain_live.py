#!/usr/bin/env python3
"""Whether `explain` names the cause in fresh logs: faults injected into a real vLLM now, and healthy servers.

    explain_live.py FAULTS.json --runner RUN_FAULTS.py --python VENV/bin/python --models DIR --work DIR
                    [--seconds 240] [--day N] [--all] [--only ID ...] [-v]

FAULTS.json holds records of faults, and RUN_FAULTS.py injects them again. Launches that its `--warm` forks are fast and
all are run. Of the others, which are whole processes of up to 90 seconds, another sample is taken every day: as many as
fit into --seconds by the times that were recorded. --all takes every one; --only those named.

A record whose launch did not go as it was recorded (no root for a namespace, a machine too busy for a time limit) is
counted and not judged. Exit status 1: a fresh log was judged worse than the recorded one of the same fault, or a
healthy server brought a finding.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.explain_corpus import verdict

Record = dict[str, Any]

SECONDS_PER_DAY = 86_400

# What the import of vLLM, which all forks share, and one start of a healthy server take.
IMPORT_SECONDS = 20.0
HEALTHY_SECONDS = 10.0

# The first line of an orderly stop.
STOPS = ("shutdown triggered", "INFO:     Shutting down")

WORSE = ("silent", "wrong", "false alarm")

CHAT: Record = {
    "path": "/v1/chat/completions",
    "json": {"model": "tiny", "messages": [{"role": "user", "content": "Hello there"}], "max_tokens": 8},
}
TOOL: Record = {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object"}}}
NAMED = ["--served-model-name", "tiny"]

# Servers with nothing wrong, each with requests and ended in another way.
HEALTHY: list[Record] = [
    {"id": "healthy-chat", "inject": {"kind": "launch", "wait": "ready", "args": NAMED, "request": [CHAT, CHAT]}},
    {
        "id": "healthy-tools",
        "inject": {
            "kind": "launch",
            "wait": "ready",
            "model": "tiny-toolcall",
            "args": [*NAMED, "--enable-auto-tool-choice", "--tool-call-parser", "hermes"],
            "request": [CHAT | {"json": CHAT["json"] | {"tools": [TOOL], "max_tokens": 64}}],
        },
    },
    {
        "id": "healthy-lora",
        "inject": {
            "kind": "launch",
            "wait": "ready",
            "args": [*NAMED, "--enable-lora", "--lora-modules", "mini=$MODELS/lora-r8"],
            "request": [CHAT | {"json": CHAT["json"] | {"model": "mini"}}],
        },
    },
    {
        "id": "healthy-interrupted",
        "inject": {"kind": "running", "model": "tiny-mixtral", "args": NAMED, "action": "kill -INT $SERVER"},
    },
]


def is_fast(record: Record) -> bool:
    """Whether it was recorded of a fork, as it will be run again."""
    return bool(record.get("warm"))


def seconds_of(record: Record) -> float:
    """What it took when it was recorded, with the way to a server that was up, and the stop."""
    stop = (record.get("stopped") or {}).get("term_seconds", 0.0)
    return float(record.get("seconds", 0.0) + record.get("ready_seconds", 0.0) + stop)


def chosen(records: list[Record], seconds: float, day: int) -> list[Record]:
    """All fast ones, and as many of the others as fit into the time, in the order of the day."""
    fast = [r for r in records if is_fast(r)]
    left = seconds - IMPORT_SECONDS - HEALTHY_SECONDS * len(HEALTHY) - sum(map(seconds_of, fast))
    slow = [r for r in records if not is_fast(r)]
    random.Random(day).shuffle(slow)
    taken = {r["id"] for r in fast}
    for record in slow:
        if seconds_of(record) <= left:
            left -= seconds_of(record)
            taken.add(record["id"])
    return [r for r in records if r["id"] in taken]


def injected(records: list[Record], options: argparse.Namespace) -> dict[str, Record]:
    """What the fault runner makes of them, by their ids."""
    options.work.mkdir(parents=True, exist_ok=True)
    wanted, made = options.work / "wanted.json", options.work / "made.json"
    wanted.write_text(json.dumps(records))
    made.unlink(missing_ok=True)
    argv = [options.python, options.runner, wanted, "--python", options.python, "--models", options.models]
    argv += ["--work", options.work / "lab", "--out", made, "--warm"]
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "VIRTUAL_ENV"))}
    with (options.work / "runner.log").open("wb") as log:
        subprocess.run(argv, env=kept, stdout=log, stderr=subprocess.STDOUT, check=True)
    return {r["id"]: r for r in json.loads(made.read_text())}


def as_recorded(before: Record, now: Record) -> bool:
    """Whether the launch went as it did when it was recorded: only then does the log hold the fault."""
    if "outcome" not in before:
        return str(now["outcome"]) in ("ready", "exit")
    return bool(now["outcome"] == before["outcome"])


def before_the_stop(log: list[str]) -> list[str]:
    """What the server had written when the client asked: the runner stops it afterwards."""
    stopped = next((n for n, line in enumerate(log) if any(word in line for word in STOPS)), len(log))
    return log[:stopped]


def judged(records: list[Record], made: dict[str, Record]) -> list[tuple[str, str, Record]]:
    """The outcome, the cause that was named first, and the record."""
    found = []
    for record in records:
        if record.get("symptom") == "none":
            continue
        fresh = record | made[record["id"]] | {"recorded": record}
        if record.get("symptom") == "response":
            fresh["log"] = before_the_stop(fresh.get("log") or [])
        if as_recorded(record, fresh):
            found.append((*verdict(fresh), fresh))
        else:
            found.append(("not injected", str(fresh["outcome"]), fresh))
    return found


def is_right(record: Record) -> bool:
    """Whether the cause is named first in the text as it was recorded."""
    return verdict(record)[0] == "right"


def main() -> int:
    """Inject, judge and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("faults", type=Path)
    parser.add_argument("--runner", type=Path, required=True)
    parser.add_argument("--python", type=Path, required=True)
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=240.0)
    parser.add_argument("--day", type=int, default=int(time.time()) // SECONDS_PER_DAY)
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--only", nargs="*", default=())
    parser.add_argument("-v", "--verbose", action="store_true")
    options = parser.parse_args()
    healthy = [{"cause": "none", "title": "nothing", **r} for r in HEALTHY]
    everything = json.loads(options.faults.read_text())
    if options.only:
        records = [r for r in everything + healthy if r["id"] in options.only]
    else:
        sample = everything if options.all else chosen(everything, options.seconds, options.day)
        records = sample + healthy
    started = time.monotonic()
    results = judged(records, injected(records, options))
    counts = Counter(outcome for outcome, _, _ in results)
    for outcome, named, record in results:
        if options.verbose or outcome != "right":
            print(f"{outcome:12} {record['id']:32} wanted {record['cause']}, named {named}")
    fresh = len(results) - counts["not injected"]
    worse = [
        r for outcome, _, r in results if outcome in WORSE and ("log" not in r["recorded"] or is_right(r["recorded"]))
    ]
    print(
        f"{fresh} of {len(everything) + len(healthy)} faults and healthy servers injected in "
        f"{time.monotonic() - started:.0f} s: right {counts['right']}, silent {counts['silent']}, "
        f"wrong {counts['wrong']}, false alarms {counts['false alarm']}; not injected {counts['not injected']}"
    )
    return int(bool(worse) or not fresh)


if __name__ == "__main__":
    sys.exit(main())
