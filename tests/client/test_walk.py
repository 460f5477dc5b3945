"""Every step of the walk against a scripted server: what passes, and what each failure is called."""

import socket
import threading
from typing import Any

import pytest

from tests.client.scripted import CALL, DELTA, Asked, Handler, Scripted, as_json, chat, refused, response, stream, usual
from vllm_doctor.client.visit import Options, UrlError
from vllm_doctor.client.walk import Connection, walk
from vllm_doctor.finding import Severity

ALL = Options(tools=True, structured=True, image=True, timeout_seconds=5)


def walked(handlers: dict[str, Handler] | None = None, options: Options | None = None, path: str = "/v1") -> Connection:
    with Scripted(handlers) as server:
        return walk(f"http://127.0.0.1:{server.port}{path}", options or Options(timeout_seconds=5))


def failed(connection: Connection) -> list[str]:
    return [step.name for step in connection.steps if step.status == "failed"]


def status(connection: Connection, name: str) -> str:
    return next(step.status for step in connection.steps if step.name == name)


def settings(connection: Connection) -> dict[str, str]:
    return dict(next(fix.settings for fix in connection.findings[0].fixes if fix.settings))


def launch(connection: Connection) -> dict[str, str | None]:
    return dict(next(fix.launch.set for fix in connection.findings[0].fixes if fix.launch and fix.launch.set))


def test_a_healthy_server_passes_every_step() -> None:
    connection = walked(options=Options(tools=True, image=True, timeout_seconds=5))
    assert connection.findings == ()
    assert [s.name for s in connection.steps if s.status != "passed"] == ["tls", "structured"]
    assert (connection.server, connection.version) == ("vLLM", "0.32.0")


def test_the_default_walk_asks_for_few_tokens() -> None:
    with Scripted() as server:
        walk(server.base, Options(timeout_seconds=5))
        asked = [a.json()["max_tokens"] for a in server.asked if a.path == "/v1/chat/completions"]
    assert 0 < sum(asked) <= 64


@pytest.mark.parametrize(
    ("path", "what"),
    [
        ("", "/v1 is missing at the end of the address"),
        ("/", "/v1 is missing at the end of the address"),
        ("/v1/v1", "The address has /v1 twice"),
        ("/v1/chat/completions", "The address goes on behind /v1: the client appends /chat/completions itself"),
        ("/v1/models", "The address goes on behind /v1: the client appends /chat/completions itself"),
        ("/foo/v1", "The path before /v1 is not the server's"),
    ],
)
def test_a_wrong_path_brings_the_right_one(path: str, what: str) -> None:
    connection = walked(path=path)
    assert (connection.findings[0].cause, failed(connection)) == ("endpoint-wrong", ["path"])
    assert connection.findings[0].title.startswith(what)
    assert settings(connection)["Base URL"].endswith("/v1")
    assert any(seen.endswith("/v1/models: 200") for seen in connection.findings[0].evidence)


def test_a_slash_at_the_end_passes_and_is_told() -> None:
    connection = walked(path="/v1/")
    assert connection.findings == ()
    assert "ends in a slash" in next(s.detail for s in connection.steps if s.name == "path")


OTHERS: list[tuple[str, dict[str, Handler]]] = [
    ("Ollama", {"*": lambda a: response(200, b"Ollama is running", "text/plain") if a.path == "/" else response(404)}),
    ("Ollama", {"/v1/models": lambda _: as_json({"data": [{"id": "llama3", "owned_by": "library"}]})}),
    ("SGLang", {"/v1/models": lambda _: as_json({"data": [{"id": "x", "owned_by": "sglang"}]})}),
    (
        "Text Generation",
        {"*": lambda a: as_json({"model_id": "x", "version": "3"}) if a.path == "/info" else response(404)},
    ),
    ("llama.cpp", {"*": lambda _: response(404, b"{}", server="llama.cpp")}),
    ("nginx", {"*": lambda _: response(404, b"<html>404</html>", "text/html", server="nginx/1.25")}),
    ("no OpenAI-compatible", {"*": lambda _: response(200, b"<html>hello</html>", "text/html", server="x")}),
]


@pytest.mark.parametrize(("name", "handlers"), OTHERS)
def test_what_is_no_vllm_is_named(name: str, handlers: dict[str, Handler]) -> None:
    connection = walked(handlers)
    assert (connection.findings[0].cause, failed(connection)) == ("endpoint-wrong", ["path"])
    assert name in connection.findings[0].title


def test_a_gateway_in_front_of_a_server_is_walked_through() -> None:
    rows = {"data": [{"id": "tiny", "owned_by": "openai"}]}
    connection = walked({"/v1/models": lambda _: as_json(rows, x_litellm_version="1.0")})
    assert (connection.server, connection.findings) == ("vLLM", ())


@pytest.mark.parametrize(
    ("code", "headers", "body", "cause"),
    [
        (502, {"server": "nginx"}, b"", "connection-timeout"),
        (504, {"server": "nginx"}, b"", "connection-timeout"),
        (503, {"server": "nginx"}, b"", "connection-refused"),
        (503, {}, b'{"error": "model is loading"}', "connection-refused"),
        (503, {}, b"", "engine-dead"),
        (500, {}, b"", "engine-dead"),
    ],
)
def test_an_unhealthy_answer_stops_at_http(code: int, headers: dict[str, str], body: bytes, cause: str) -> None:
    connection = walked({"/health": lambda _: response(code, body, **headers)})
    assert (connection.findings[0].cause, failed(connection)) == (cause, ["http"])


def keyed(key: str) -> Handler:
    def handler(asked: Asked) -> bytes:
        if asked.headers.get("authorization") == f"Bearer {key}":
            return usual(asked)
        return as_json({"error": "Unauthorized"}, 401)

    return handler


@pytest.mark.parametrize(
    ("sent", "words"),
    [(None, "none was sent"), ("sk-wrong-key", "refuses"), ("Bearer sk-the-key", "Bearer"), ("'sk-the-key'", "quotes")],
)
def test_the_key(sent: str | None, words: str) -> None:
    handlers = {"/v1/models": keyed("sk-the-key"), "/v1/chat/completions": keyed("sk-the-key")}
    connection = walked(handlers, Options(key=sent, timeout_seconds=5))
    assert (connection.findings[0].cause, failed(connection)) == ("auth", ["key"])
    assert words in connection.findings[0].title
    assert walked(handlers, Options(key="sk-the-key", timeout_seconds=5)).findings == ()


def test_v1_twice_is_told_although_the_key_is_asked_for_first() -> None:
    connection = walked({"/v1/v1/models": lambda _: as_json({"error": "Unauthorized"}, 401)}, path="/v1/v1")
    assert (connection.findings[0].cause, failed(connection)) == ("endpoint-wrong", ["path"])


def test_no_model_is_served() -> None:
    connection = walked({"/v1/models": lambda _: as_json({"data": []})})
    assert (connection.findings[0].cause, failed(connection)) == ("model-name-mismatch", ["models"])


def test_a_wrong_name_is_refused_and_the_nearest_is_tried() -> None:
    connection = walked(options=Options(model="Tiny", timeout_seconds=5))
    assert (connection.findings[0].cause, failed(connection)) == ("model-name-mismatch", ["model"])
    assert settings(connection) == {"Model": "tiny"}
    assert "the same request for 'tiny': 200" in connection.findings[0].evidence


def chatting(answer: Any) -> dict[str, Handler]:
    return {"/v1/chat/completions": lambda _: answer}


@pytest.mark.parametrize(
    ("answer", "cause"),
    [
        (refused("As of transformers v4.44, default chat template is no longer allowed"), "chat-template-missing"),
        (refused("Encountered unknown tag 'endfr'."), "chat-template-missing"),
        (refused("This model's maximum context length is 16 tokens."), "context-exceeded"),
        (as_json({"detail": "Not Found"}, 404), "endpoint-wrong"),
        (refused("EngineCore encountered an issue.", 500, "InternalServerError"), "engine-dead"),
        (
            as_json({"object": "error", "message": "The model does not support Chat Completions API"}, 400),
            "endpoint-wrong",
        ),
        (response(200, b"<html>", "text/html"), "endpoint-wrong"),
        (response(429, b""), "connection-timeout"),
        (response(504, b""), "connection-timeout"),
        (refused("something else"), "bad-request"),
    ],
)
def test_a_refused_chat(answer: bytes, cause: str) -> None:
    connection = walked(chatting(answer))
    assert (connection.findings[0].cause, failed(connection)) == (cause, ["chat"])


def test_a_refused_system_message_is_a_warning_and_the_walk_goes_on() -> None:
    def handler(asked: Asked) -> bytes:
        body = asked.json()
        if body["messages"][0]["role"] == "system":
            return refused("System role not supported")
        return stream(DELTA) if body.get("stream") else chat()

    connection = walked({"/v1/chat/completions": handler})
    assert (connection.findings[0].cause, failed(connection)) == ("chat-roles", ["system"])
    assert connection.findings[0].severity is Severity.WARNING
    assert connection.findings[0].evidence[-1].endswith(": 200")
    assert status(connection, "stream") == "passed"


@pytest.mark.parametrize(
    ("answer", "cause"),
    [
        (stream(DELTA, end=b""), "endpoint-wrong"),
        (stream(b"data: {broken\n\n"), "endpoint-wrong"),
        (stream(b"data: \xff\xfe\n\n"), "endpoint-wrong"),
        (stream(b"data: [1]\n\n"), "endpoint-wrong"),
        (stream(b'data: {"error": {"message": "boom"}}\n\n'), "engine-dead"),
        (response(200, DELTA, "text/event-stream", content_length="9999")[:-10], "endpoint-wrong"),
    ],
)
def test_a_broken_stream(answer: bytes, cause: str) -> None:
    def handler(asked: Asked) -> Any:
        if not asked.json().get("stream"):
            return chat()
        return iter([answer])

    connection = walked({"/v1/chat/completions": handler})
    assert (connection.findings[0].cause, failed(connection)) == (cause, ["stream"])


def tooled(answer: bytes, plain_tokens: int = 10) -> dict[str, Handler]:
    def handler(asked: Asked) -> bytes:
        body = asked.json()
        if body.get("stream"):
            return stream(DELTA)
        return answer if body.get("tools") else chat(prompt_tokens=plain_tokens)

    return {"/v1/chat/completions": handler}


AUTO = '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set'
HERMES = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>'


@pytest.mark.parametrize(
    ("content", "parser"),
    [
        (HERMES, "hermes"),
        ('[TOOL_CALLS][{"name": "get_weather", "arguments": {}}]', "mistral"),
        ('{"name": "get_weather", "parameters": {"city": "Paris"}}', "llama3_json"),
        ("[get_weather(city='Paris')]", "pythonic"),
        (
            "<tool_call>\n<function=get_weather>\n<parameter=city>\nParis\n</parameter></function></tool_call>",
            "qwen3_xml",
        ),
        ("<tool_call>get_weather\n<arg_key>city</arg_key><arg_value>Paris</arg_value></tool_call>", "glm45"),
    ],
)
def test_a_call_left_in_the_text_names_the_parser(content: str, parser: str) -> None:
    connection = walked(tooled(chat(content, prompt_tokens=90)), ALL)
    assert (connection.findings[0].cause, failed(connection)) == ("tool-parser-wrong", ["tools"])
    assert launch(connection)["--tool-call-parser"] == parser


def test_tools_that_the_server_was_not_started_for() -> None:
    connection = walked(tooled(refused(AUTO)), ALL)
    assert (connection.findings[0].cause, failed(connection)) == ("tools-not-enabled", ["tools"])


def test_tools_that_never_reach_the_prompt() -> None:
    connection = walked(tooled(chat("Sorry.", prompt_tokens=10), plain_tokens=10), ALL)
    assert (connection.findings[0].cause, failed(connection)) == ("tool-parser-wrong", ["tools"])
    assert "template" in connection.findings[0].title


def test_a_model_that_answers_in_words_is_no_finding() -> None:
    connection = walked(tooled(chat("It is sunny.", prompt_tokens=90), plain_tokens=10), ALL)
    assert status(connection, "tools") == "skipped"
    assert [f for f in connection.findings if f.severity is Severity.ERROR] == []


def test_broken_arguments() -> None:
    calls = [{"function": {"name": "get_weather", "arguments": '{"city": '}}]
    connection = walked(tooled(chat(None, calls=calls)), ALL)
    assert (connection.findings[0].cause, failed(connection)) == ("tool-parser-wrong", ["tools"])


def test_an_image_to_a_text_model() -> None:
    def handler(asked: Asked) -> bytes:
        body = asked.json()
        if isinstance(body["messages"][0]["content"], list):
            return refused("tiny is not a multimodal model")
        return stream(DELTA) if body.get("stream") else chat('{"ok": true}', calls=CALL if body.get("tools") else None)

    connection = walked({"/v1/chat/completions": handler}, ALL)
    assert (connection.findings[0].cause, failed(connection)) == ("multimodal-unsupported", ["image"])


@pytest.mark.parametrize("given", [{"context_tokens": 4096}, {"max_tokens": 2048}])
def test_a_client_that_asks_for_more_than_the_context(given: dict[str, int]) -> None:
    connection = walked(options=Options(timeout_seconds=5, **given))  # type: ignore[arg-type]
    assert (connection.findings[0].cause, failed(connection)) == ("context-exceeded", ["context"])


def test_nothing_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    connection = walk(f"http://127.0.0.1:{port}/v1", Options(timeout_seconds=5))
    assert (connection.findings[0].cause, failed(connection)) == ("connection-refused", ["port"])
    assert all(step.status == "skipped" for step in connection.steps[2:])


def test_a_name_that_does_not_exist() -> None:
    connection = walk("http://no-such-host.invalid:8000/v1", Options(timeout_seconds=5))
    assert (connection.findings[0].cause, failed(connection)) == ("connection-refused", ["name"])


def test_a_server_that_takes_the_connection_and_says_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        connection = walk(f"http://127.0.0.1:{silent.getsockname()[1]}/v1", Options(timeout_seconds=0.5))
    assert (connection.findings[0].cause, failed(connection)) == ("connection-timeout", ["http"])


def test_what_speaks_no_http() -> None:
    connection = walked({"/health": lambda _: iter([b"SSH-2.0-OpenSSH_9.6\r\n"])})
    assert (connection.findings[0].cause, failed(connection)) == ("endpoint-wrong", ["http"])


def test_https_asked_of_a_plain_server() -> None:
    with Scripted() as server:
        connection = walk(f"https://127.0.0.1:{server.port}/v1", Options(timeout_seconds=5))
        assert (connection.findings[0].cause, failed(connection)) == ("endpoint-wrong", ["tls"])
        assert settings(connection) == {"Base URL": server.base}
        assert walk(settings(connection)["Base URL"], Options(timeout_seconds=5)).findings == ()


def test_a_server_that_goes_away_in_the_walk() -> None:
    connection = walked({"/v1/chat/completions": lambda _: iter([b""])})
    assert (connection.findings[0].cause, failed(connection)) == ("engine-dead", ["chat"])


@pytest.mark.parametrize(
    "url", ["", "ftp://x/v1", "http://", "http://a b/v1", "http://x:99999", "http://user:pass@x/v1"]
)
def test_what_is_no_url_is_an_input_error(url: str) -> None:
    with pytest.raises(UrlError):
        walk(url, Options())


def test_the_walk_leaves_no_thread_behind() -> None:
    walked()
    assert not [t for t in threading.enumerate() if t.name.startswith("Thread-resolve")]
