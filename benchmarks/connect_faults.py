#!/usr/bin/env python3
"""How many recorded request faults `connect` names by their cause when the same request is replayed to a real server.

    connect_faults.py FAULTS.json --python VENV/bin/python --models DIR --work DIR [--only ID ...]

FAULTS.json holds records with `id`, `cause` and `inject` of kind `request`. Every server is started as a whole process,
one at a time and once for all faults with the same launch; each request is written as a curl command and replayed by
`vllm-doctor connect --curl`. `proved`: of those mended by a change, the change was sent and accepted.
"""

import argparse
import contextlib
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

Record = dict[str, Any]

READY_SECONDS = 400
BASE = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}


@contextlib.contextmanager
def served(record: Record, given: argparse.Namespace) -> Iterator[int]:
    """The port of a server launched as the record says."""
    inject = record["inject"]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    names = {"PY": str(given.python), "MODELS": str(given.models), "WORK": str(given.work), "PORT": str(port)}
    model = given.models / inject.get("model", "tiny-llama")
    argv = [str(given.python.parent / "vllm"), "serve", str(model), *_filled(inject.get("args", []), names)]
    argv += ["--enforce-eager", "--max-model-len", "2048", "--host", "127.0.0.1", "--port", str(port)]
    started = []
    if inject.get("prepare"):
        started.append(
            subprocess.Popen(["bash", "-ec", inject["prepare"]], env=os.environ | names, start_new_session=True)
        )
    with (given.work / "server.log").open("wb") as log:
        started.append(subprocess.Popen(argv, env=os.environ | BASE, stdout=log, stderr=log, start_new_session=True))
    try:
        _wait(started[-1], port)
        yield port
    finally:
        for process in reversed(started):
            _stop(process)


def _filled(words: list[str], names: dict[str, str]) -> list[str]:
    found = []
    for word in words:
        for name, value in names.items():
            word = word.replace(f"${name}", value)  # noqa: PLW2901
        found.append(word)
    return found


def _wait(process: "subprocess.Popen[bytes]", port: int) -> None:
    end = time.monotonic() + READY_SECONDS
    while time.monotonic() < end and process.poll() is None:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
            return
        time.sleep(0.5)
    raise SystemExit("the server did not come up")


def _stop(process: "subprocess.Popen[bytes]") -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(20)


def curl(request: Record, port: int) -> str:
    """The request as a curl command."""
    base = request.get("base") or f"127.0.0.1:{port}"
    words = ["curl", f"http://{base}{request['path']}"]
    for name, value in (request.get("headers") or {}).items():
        words += ["-H", f"{name}: {value}"]
    if "json" in request:
        words += ["-H", "Content-Type: application/json", "--data-raw", json.dumps(request["json"])]
    if request.get("method"):
        words += ["-X", request["method"]]
    return shlex.join(words)


def asked(record: Record, port: int, work: Path) -> Record:
    """What `connect --curl` reports of the record's first request."""
    request = record["inject"]["request"]
    path = work / "curl.txt"
    path.write_text(curl(request[0] if isinstance(request, list) else request, port))
    argv = [sys.executable, "-m", "vllm_doctor", "connect", "--curl", str(path), "--format", "json", "--timeout", "10"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)
    report: Record = json.loads(done.stdout)
    return report


def main() -> None:
    """Replay every fault and print one line of figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("faults", type=Path)
    parser.add_argument("--python", type=Path, required=True)
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--only", nargs="*")
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    records = [r for r in json.loads(given.faults.read_text()) if r["inject"].get("kind") == "request"]
    records = [r for r in records if not given.only or r["id"] in given.only]
    right = proved = mended = 0

    def launch(record: Record) -> str:
        return json.dumps([record["inject"].get(name) for name in ("model", "args", "prepare")])

    for _, group in groupby(sorted(records, key=launch), key=launch):
        same = list(group)
        with served(same[0], given) as port:
            for record in same:
                findings = asked(record, port, given.work)["findings"]
                cause = findings[0]["cause"] if findings else None
                hit = cause in {record["cause"], *(record.get("also") or ())}
                last = findings[0]["evidence"][-1] if findings else ""
                right += hit
                mended += "change" in last
                proved += last.startswith("sent again") and last.endswith(": 200")
                print(f"{'right' if hit else 'WRONG':6} {record['id']}: {record['cause']} found {cause}; {last[:90]}")
    print(f"connect-faults: {right} of {len(records)} right; {proved} of {mended} changes proved by sending them")


if __name__ == "__main__":
    main()
