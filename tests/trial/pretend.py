"""A program that starts as vLLM does and misbehaves as told: `python pretend.py NOTES PORT ACT...`.

Every process that it makes and every file that it leaves is noted in the folder NOTES, as a file: `pid-N` holds the
time that process N started, `segment-...` a path in /dev/shm.
"""

import http.server
import importlib
import mmap
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing import shared_memory
from pathlib import Path

LINES = {
    "start": "(APIServer pid=1) INFO 11-22 20:46:41 [api_server.py:1] vLLM API server version 0.32.0",
    "init": "(EngineCore pid=2) INFO 11-22 20:46:41 [core.py:133] Initializing a V1 LLM engine with config: x",
    "load": "(Worker pid=3) INFO 11-22 20:46:45 [cpu_model_runner.py:68] Starting to load model x...\n"
    "Loading safetensors checkpoint shards:   0% Completed | 0/2 [00:00<?, ?it/s]",
    "shard": "Loading safetensors checkpoint shards:  50% Completed | 1/2 [00:00<00:00, 47.75it/s]",
    "profile": "(Worker pid=3) INFO 11-22 20:46:46 [default_loader.py:501] Loading weights took 0.03 seconds",
    "kv": "(EngineCore pid=2) INFO 11-22 20:46:50 [kv_cache_utils.py:1] GPU KV cache size: 2,097,152 tokens",
    "capture": "Capturing CUDA graphs (PIECEWISE):  42%|####2     | 28/67 [00:05<00:07,  5.00it/s]",
    "flag": "vllm: error: unrecognized arguments: --max-modle-len 3",
    "secret": "non-default args: {'api_key': ['sk-of-the-server-0123456789']}",
}

NOTES = Path(sys.argv[1])
PORT = int(sys.argv[2])


def note(kind: str, text: str = "") -> None:
    """Whole or not at all: the test looks for the name."""
    path = NOTES / kind
    path.with_name(f".{kind}").write_text(text)
    path.with_name(f".{kind}").rename(path)


def note_self() -> None:
    stat = Path(f"/proc/{os.getpid()}/stat").read_text()
    note(f"pid-{os.getpid()}", stat.rpartition(")")[2].split()[19])


def stay() -> None:
    note_self()
    while True:
        time.sleep(60)


class Health(http.server.BaseHTTPRequestHandler):
    """Answers 200 to everything."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Nothing."""


def child(session: bool = False, deaf: bool = False) -> None:
    if not os.fork():
        if session:
            os.setsid()
        if deaf:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        stay()


def orphan() -> None:
    """As far away as a process can get: of another session, its parent gone, its environment empty."""
    middle = os.fork()
    if not middle:
        os.setsid()
        if not os.fork():
            os.execve(sys.executable, [sys.executable, "-I", "-S", __file__, str(NOTES), "0", "deaf", "stay"], {})
        os._exit(0)
    os.waitpid(middle, 0)


def segment(name: str) -> None:
    """A mapped segment that nobody will unlink."""
    path = Path("/dev/shm") / f"pretend-{name}-{os.getpid()}"
    with path.open("wb+") as file:
        file.truncate(4096)
        KEPT.append(mmap.mmap(file.fileno(), 4096))
    note(f"segment-{name}", str(path))


def python_segment() -> None:
    """One of Python's own, with its resource tracker."""
    made = shared_memory.SharedMemory(create=True, size=4096)
    KEPT.append(made)
    note("segment-python", f"/dev/shm/{made.name.lstrip('/')}")


def semaphore(name: str) -> None:
    # As multiprocessing makes one for spawned processes, without the tracker that would remove it.
    KEPT.append(importlib.import_module("_multiprocessing").SemLock(0, 1, 1, f"/{name}", False))


def unix_socket() -> None:
    made = socket.socket(socket.AF_UNIX)
    made.bind(f"{os.environ['TMPDIR']}/0123456789abcdef-0123456789abcdef-1234")
    KEPT.append(made)


def serve() -> None:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", PORT), Health)
    threading.Thread(target=server.serve_forever, daemon=True).start()


def flood(mebibytes: int) -> None:
    line = (b"x" * 99 + b"\n") * 10486
    for _ in range(mebibytes):
        sys.stdout.buffer.write(line)
    sys.stdout.flush()


KEPT: list[object] = []


def act(word: str) -> None:
    name, _, value = word.partition("=")
    acts: dict[str, Callable[[], object]] = {
        "deaf": lambda: [signal.signal(s, signal.SIG_IGN) for s in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)],
        "child": child,
        "session": lambda: child(session=True, deaf=True),
        "orphan": orphan,
        "segment": lambda: segment(value or "a"),
        "python-segment": python_segment,
        "semaphore": lambda: semaphore(value),
        "socket": unix_socket,
        "serve": serve,
        "flood": lambda: flood(int(value)),
        "exit": lambda: os._exit(int(value)),
        "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
        "frozen": lambda: os.kill(os.getpid(), signal.SIGSTOP),
        "wait": lambda: time.sleep(float(value)),
        "until": lambda: wait_for(value),
        "note": lambda: note(value),
        "stay": stay,
    }
    if name in LINES:
        sys.stdout.write(LINES[name] + "\n")
        sys.stdout.flush()
    else:
        acts[name]()


def wait_for(name: str) -> None:
    while not (NOTES / name).exists():
        time.sleep(0.01)


if __name__ == "__main__":
    note_self()
    for each in sys.argv[3:]:
        act(each)
