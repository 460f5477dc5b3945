"""Replays against a scripted server: the field that is refused, and the smallest change that is accepted."""

import contextlib
import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.client.scripted import DELTA, Asked, Handler, Scripted, as_json, chat, refused, response, stream
from vllm_doctor.client import repairs
from vllm_doctor.client.replay import replay
from vllm_doctor.client.request_file import Request, read_body, read_curl
from vllm_doctor.client.visit import Options
from vllm_doctor.client.walk import Connection
from vllm_doctor.errors import InputFileError

HELLO = [{"role": "user", "content": "Hello"}]


def sent(body: Any, handler: Any, **request: Any) -> Connection:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    with Scripted({"/v1/chat/completions": handler}) as server:
        return replay(server.base, Request(body=content, **request), Options(timeout_seconds=5))


def picky(wrong: Any, message: str, field: str | None = None) -> Handler:
    """Refuses while `wrong(body)` holds."""

    def handler(asked: Asked) -> bytes:
        body = asked.json()
        if wrong(body):
            return refused(message, field=field)
        return stream(DELTA) if body.get("stream") else chat()

    return handler


def proof(connection: Connection) -> str:
    return connection.findings[0].evidence[-1]


CASES: list[tuple[dict[str, Any], Any, str, str | None, str, str]] = [
    ({"temperature": -1}, lambda b: b.get("temperature", 0) < 0, "temperature must be non-negative", "temperature",
     "bad-request", "leave out `temperature`"),
    ({"tools": [{}], "tool_choice": "auto"}, lambda b: "tools" in b, '"auto" tool choice requires --enable', None,
     "tools-not-enabled", "leave out `tools` and `tool_choice`"),
    ({"max_tokens": 9000}, lambda b: b["max_tokens"] > 1000, "max_tokens=9000 cannot be greater than max_model_len",
     None, "context-exceeded", "lower `max_tokens` from 9000 to 511"),
    ({"messages": [{"role": "system", "content": "x"}, *HELLO]}, lambda b: b["messages"][0]["role"] == "system",
     "System role not supported", None, "chat-roles", "put the system text into the first user message"),
    ({"messages": [*HELLO, *HELLO]}, lambda b: len(b["messages"]) > 1, "Conversation roles must alternate", None,
     "chat-roles", "merge messages of one role"),
    ({"messages": [{"role": "user", "content": "x" * 4000}]}, lambda b: len(b["messages"][0]["content"]) > 900,
     "maximum context length is 2048 tokens", None, "context-exceeded", "cut the longest text to"),
    ({"messages": [{"role": "user", "content": "a", "_db_id": 3}]}, lambda b: "_db_id" in b["messages"][0],
     "[{'type': 'extra_forbidden', 'loc': ('body', 'messages', 0, 'typed-dict', '_db_id'), 'msg': 'Extra inputs'}]",
     None, "bad-request", "leave out `messages.0._db_id`"),
    ({"logit_bias": {}, "seed": 1, "user": "x"}, lambda b: "seed" in b, "no", None, "bad-request", "leave out `seed`"),
    ({"a": 1, "b": 2, "c": 3}, lambda b: "a" in b or "c" in b, "no", None, "bad-request", "leave out `a`, `c`"),
    ({"model": "Tiny"}, lambda b: b["model"] != "tiny", "The model `Tiny` does not exist.", None,
     "model-name-mismatch", "`model`: 'tiny'"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "wrong", "message", "field", "cause", "words"), CASES)
def test_the_smallest_change_is_found_and_proved(
    change: dict[str, Any], wrong: Any, message: str, field: str | None, cause: str, words: str
) -> None:
    body = {"model": "tiny", "messages": HELLO, "max_tokens": 8} | change
    connection = sent(body, picky(wrong, message, field))
    assert connection.findings[0].cause == cause
    assert words in proof(connection)
    assert proof(connection).endswith(": 200")


def test_two_faults_are_mended_one_after_the_other() -> None:
    def handler(asked: Asked) -> bytes:
        body = asked.json()
        if body["model"] != "tiny":
            return refused(f"The model `{body['model']}` does not exist.", 404)
        return refused("n must be at least 1", field="n") if body.get("n") == 0 else stream(DELTA)

    connection = sent({"model": "TINY", "n": 0, "messages": HELLO}, handler)
    assert connection.findings[0].cause == "model-name-mismatch"
    assert "`model`: 'tiny'; leave out `n`" in proof(connection)


def test_a_request_that_nothing_mends_is_said_to_be_one() -> None:
    connection = sent({"model": "tiny", "messages": HELLO, "seed": 1}, lambda _: refused("never"))
    assert "none was accepted" in proof(connection)


def test_the_attempts_are_bounded() -> None:
    with Scripted({"/v1/chat/completions": lambda _: refused("never")}) as server:
        body = {"model": "tiny", "messages": HELLO} | {f"f{n}": n for n in range(500)}
        replay(server.base, Request(body=json.dumps(body).encode()), Options(timeout_seconds=5))
        assert len([a for a in server.asked if a.method == "POST"]) <= 61


@pytest.mark.parametrize(
    "body",
    [
        b"{'model': 'tiny', 'stop': None, 'messages': [{'role': 'user', 'content': 'x'}]}",
        b'{"model": "tiny", "messages": [{"role": "user", "content": "x"},],}',
        b'{"model": "tiny", "messages": [{"role": "user", "content": "x"}]',
    ],
)
def test_a_body_that_is_nearly_json(body: bytes) -> None:
    def handler(asked: Asked) -> bytes:
        try:
            json.loads(asked.body)
        except ValueError:
            return refused("JSON decode error", kind="Bad Request", field="body.3")
        return stream(DELTA)

    connection = sent(body, handler)
    assert "not JSON" in connection.findings[0].title
    assert proof(connection).endswith(": 200")


def test_a_chat_of_a_model_without_a_template_is_asked_as_a_completion() -> None:
    def handler(asked: Asked) -> bytes:
        if asked.path == "/v1/completions" and asked.json()["prompt"] == "Hello":
            return stream(DELTA)
        return refused("default chat template is no longer allowed") if "chat" in asked.path else response(404)

    with Scripted({"/v1/chat/completions": handler, "/v1/completions": handler}) as server:
        content = json.dumps({"messages": HELLO}).encode()
        for path in (None, "/v1/chat/completions"):
            connection = replay(server.base, Request(body=content, path=path), Options(timeout_seconds=5))
            assert connection.findings[0].cause == "chat-template-missing"
            assert proof(connection).endswith(": 200")


def test_a_good_request_passes() -> None:
    connection = sent({"model": "tiny", "messages": HELLO}, picky(lambda _: False, ""))
    assert connection.findings == ()
    assert connection.steps[-1].detail.startswith("POST /v1/chat/completions: 200")


def test_tools_in_a_stream_that_come_back_as_text_are_judged() -> None:
    text = json.dumps('<tool_call>{"name": "f", "arguments": {}}</tool_call>')
    event = f'data: {{"choices": [{{"index": 0, "delta": {{"content": {text}}}}}]}}\n\n'.encode()
    tools = [{"type": "function", "function": {"name": "f"}}]
    connection = sent({"model": "tiny", "messages": HELLO, "tools": tools, "stream": True}, lambda _: stream(event))
    assert connection.findings[0].cause == "tool-parser-wrong"


def test_a_method_that_is_wrong(tmp_path: Path) -> None:
    def handler(asked: Asked) -> bytes:
        return as_json({"detail": "Method Not Allowed"}, 405) if asked.method == "GET" else stream(DELTA)

    connection = sent(b"", handler, method="GET", path="/v1/chat/completions")
    assert connection.findings[0].cause == "endpoint-wrong"
    assert "POST" in proof(connection)


def test_a_key_without_its_scheme() -> None:
    def handler(asked: Asked) -> bytes:
        return (
            stream(DELTA)
            if asked.headers.get("authorization") == "Bearer abcdef"
            else response(401, b'{"error": "no"}')
        )

    body = {"model": "tiny", "messages": HELLO}
    connection = sent(body, handler, headers={"Authorization": "abcdef"})
    assert connection.findings[0].cause == "auth"
    assert "Bearer" in proof(connection)


CURL = """curl -sS -X POST 'http://h:8000/v1/chat/completions' \\
  -H 'Content-Type: application/json' -H "Authorization: Bearer k" --max-time 5 \\
  --data-raw '{"model": "m"}' --compressed
"""


def test_a_curl_command_is_read(tmp_path: Path) -> None:
    path = tmp_path / "curl.txt"
    path.write_text(CURL)
    found = read_curl(path)
    assert (found.method, found.path, found.body) == ("POST", "/v1/chat/completions", b'{"model": "m"}')
    assert found.headers == {"Content-Type": "application/json", "Authorization": "Bearer k"}


@pytest.mark.parametrize("text", ["wget http://x", "curl", "curl 'http://x", "curl http://x -X 'a b'"])
def test_what_is_no_curl_command_is_an_input_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "curl.txt"
    path.write_text(text)
    with pytest.raises(InputFileError):
        read_curl(path)


def test_a_file_that_is_not_there_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputFileError):
        read_body(tmp_path / "none.json")


@given(st.text(max_size=300))
def test_any_curl_text_is_read_or_refused(text: str) -> None:
    from tempfile import NamedTemporaryFile

    with NamedTemporaryFile("w", encoding="utf-8", errors="replace") as file:
        file.write("curl " + text.replace("@", ""))
        file.flush()
        with contextlib.suppress(InputFileError):
            assert read_curl(Path(file.name)).method.isalpha()


@given(
    st.lists(
        st.fixed_dictionaries(
            {"role": st.sampled_from(["user", "assistant", "system"]), "content": st.text(max_size=5)}
        ),
        max_size=8,
    )
)
def test_merged_turns_alternate_and_lose_no_text(messages: list[dict[str, Any]]) -> None:
    merged = repairs.turns_merged(repairs.system_merged(messages))
    roles = [m["role"] for m in merged]
    assert "system" not in roles
    assert all(a != b for a, b in itertools.pairwise(roles))
    letters = sorted("".join(m["content"] for m in messages).replace("\n", ""))
    assert sorted("".join(m["content"] for m in merged).replace("\n", "")) == letters


@pytest.mark.parametrize(
    ("path", "left"),
    [
        ("a.b", {"a": {}, "m": [{"x": 1}]}),
        ("m.0.x", {"a": {"b": 1}, "m": [{}]}),
        ("q", None),
        ("m.7.x", None),
        ("m", {"a": {"b": 1}}),
    ],
)
def test_one_member_is_dropped(path: str, left: Any) -> None:
    assert repairs.dropped({"a": {"b": 1}, "m": [{"x": 1}]}, path.split(".")) == left
