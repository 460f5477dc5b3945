"""A scripted server over real sockets: it answers as vLLM 0.32 does, but for what a test replaces."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple


class Asked(NamedTuple):
    """One request as it arrived."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    def json(self) -> dict[str, Any]:
        value = json.loads(self.body or b"{}")
        assert isinstance(value, dict)
        return value


Answer = bytes | Iterator[bytes]
Handler = Callable[[Asked], Answer]


def response(status: int, body: bytes = b"", kind: str = "application/json", **headers: str) -> bytes:
    """A whole HTTP answer."""
    given = {"content-type": kind, "content-length": str(len(body)), "server": "uvicorn"}
    given |= {name.replace("_", "-"): value for name, value in headers.items()}
    lines = [f"HTTP/1.1 {status} Scripted", *(f"{name}: {value}" for name, value in given.items()), "", ""]
    return "\r\n".join(lines).encode() + body


def as_json(value: Any, status: int = 200, **headers: str) -> bytes:
    return response(status, json.dumps(value).encode(), **headers)


def refused(message: str, status: int = 400, kind: str = "BadRequestError", field: str | None = None) -> bytes:
    return as_json({"error": {"message": message, "type": kind, "param": field, "code": status}}, status)


def chat(content: str | None = "Hello!", prompt_tokens: int = 10, calls: Any = None, reason: str = "stop") -> bytes:
    message = {"role": "assistant", "content": content, "tool_calls": calls or []}
    usage = {"prompt_tokens": prompt_tokens, "completion_tokens": 2, "total_tokens": prompt_tokens + 2}
    return as_json({"choices": [{"index": 0, "message": message, "finish_reason": reason}], "usage": usage})


def stream(*events: bytes, end: bytes = b"data: [DONE]\n\n") -> bytes:
    return response(200, b"".join(events) + end, "text/event-stream")


DELTA = b'data: {"choices": [{"index": 0, "delta": {"content": "Hi"}}]}\n\n'
USAGE = b'data: {"choices": [], "usage": {"prompt_tokens": 3}}\n\n'
CALL = [{"id": "c", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Paris"}'}}]

METRICS = b"""# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0"} 1.0
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0"} 0.0
# TYPE vllm:kv_cache_usage_perc gauge
vllm:kv_cache_usage_perc{engine="0"} 0.2
"""


class Scripted:
    """Answers like a healthy vLLM on a port of its own; `handlers` (path -> handler) replace single answers."""

    def __init__(
        self, handlers: dict[str, Handler] | None = None, *, models: tuple[str, ...] = ("tiny",), port: int = 0
    ) -> None:
        self.handlers = handlers or {}
        self.models = models
        self.asked: list[Asked] = []
        self._ended = threading.Event()
        self._socket = socket.create_server(("127.0.0.1", port))
        self.port = int(self._socket.getsockname()[1])
        self._thread = threading.Thread(target=self._accept, daemon=True)

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def __enter__(self) -> "Scripted":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        # A close alone would leave the thread in `accept`.
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _accept(self) -> None:
        while not self._ended.is_set():
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as file:
            while (asked := _read(file)) is not None:
                self.asked.append(asked)
                answer = self._answer(asked)
                try:
                    if isinstance(answer, bytes):
                        connection.sendall(answer)
                        if b"HTTP/1.1" in answer[:10]:
                            continue
                    else:
                        for part in answer:
                            connection.sendall(part)
                            if self._ended.is_set():
                                break
                except OSError:
                    pass
                return

    def _answer(self, asked: Asked) -> Answer:
        handler = self.handlers.get(asked.path, self.handlers.get("*"))
        return usual(asked, self.models) if handler is None else handler(asked)


def usual(asked: Asked, models: tuple[str, ...] = ("tiny",)) -> bytes:
    """What a healthy vLLM answers."""
    if asked.path == "/v1/models":
        rows = [{"id": name, "owned_by": "vllm", "root": f"/models/{name}", "max_model_len": 2048} for name in models]
        return as_json({"object": "list", "data": rows})
    if asked.path == "/v1/chat/completions":
        return _chat(asked.json(), models)
    fixed = {
        "/health": response(200),
        "/version": as_json({"version": "0.32.0"}),
        "/metrics": response(200, METRICS, "text/plain"),
        "/openapi.json": as_json({"paths": {"/v1/chat/completions": {}, "/v1/completions": {}, "/v1/models": {}}}),
    }
    return fixed.get(asked.path, as_json({"detail": "Not Found"}, 404))


def _chat(body: dict[str, Any], models: tuple[str, ...]) -> bytes:
    if body.get("model", "tiny") not in models:
        return refused(f"The model `{body['model']}` does not exist.", 404, "NotFoundError")
    if body.get("stream"):
        return stream(DELTA, USAGE)
    return chat(calls=CALL, content=None, reason="tool_calls") if body.get("tools") else chat()


def _read(file: Any) -> Asked | None:
    try:
        start = file.readline(70_000).decode("latin-1").split()
        if len(start) < 2:
            return None
        headers: dict[str, str] = {}
        while line := file.readline(70_000).decode("latin-1").strip():
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        return Asked(start[0], start[1].split("?")[0], headers, file.read(int(headers.get("content-length", 0))))
    except OSError:
        return None


def dripping(head: bytes, part: bytes, pause_seconds: float = 0.05, times: int = 100_000) -> Iterator[bytes]:
    """A head, and then parts for ever, with a pause between."""
    yield head
    for _ in range(times):
        time.sleep(pause_seconds)
        yield part
