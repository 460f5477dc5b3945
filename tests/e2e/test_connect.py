"""`connect` against real servers: each fault brings its cause, its step, and a fix that is proved to work."""

import contextlib
import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.calling import doctor
from tests.e2e.serving import Running, serving, starting

pytestmark = pytest.mark.real_vllm

Report = dict[str, Any]

KEY = "sk-test-key-of-the-server"


def connect(*arguments: str | Path, key: str | None = None) -> Report:
    variables = {} if key is None else {"TEST_KEY": key}
    named = () if key is None else ("--api-key-env", "TEST_KEY")
    done = doctor("connect", *arguments, *named, "--format", "json", variables=variables, timeout_seconds=180)
    assert done.returncode in (0, 1), done.stderr
    assert key is None or key not in done.stdout
    report: Report = json.loads(done.stdout)
    return report


def first(report: Report) -> Report:
    finding: Report = report["findings"][0]
    return finding


def failed(report: Report) -> list[str]:
    return [step["step"] for step in report["steps"] if step["status"] == "failed"]


def settings(report: Report) -> dict[str, str]:
    return next(fix["settings"] for fix in first(report)["fixes"] if fix["settings"])


def flags(report: Report) -> dict[str, str | None]:
    return next(fix["launch"]["set"] for fix in first(report)["fixes"] if fix["launch"] and fix["launch"]["set"])


def replayed(server: Running, folder: Path, body: Report | str, *arguments: str) -> Report:
    path = folder / "request.json"
    path.write_text(body if isinstance(body, str) else json.dumps(body))
    return connect(server.base, "--request", path, *arguments)


HELLO = [{"role": "user", "content": "Hello there"}]
TOOL = {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object", "properties": {}}}}


@pytest.fixture(scope="class")
def plain(
    vllm_python: Path, models: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Running, Report]]:
    """A server with two names and an adapter, and what `connect` said of it while it loaded."""
    folder = tmp_path_factory.mktemp("plain")
    lora = ("--enable-lora", "--lora-modules", f"adapter={models}/lora-r8")
    names = ("--served-model-name", "tiny", "org/Tiny-Chat")
    with starting(vllm_python, models / "tiny-llama", folder, *names, *lora) as running:
        time.sleep(5)
        loading = connect(running.base)
        running.wait()
        yield running, loading


@pytest.fixture(scope="class")
def tools(vllm_python: Path, models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server that calls tools and asks for a key."""
    given = ("--enable-auto-tool-choice", "--tool-call-parser", "hermes", "--api-key", KEY)
    with serving(vllm_python, models / "tiny-toolcall", tmp_path_factory.mktemp("tools"), *given) as running:
        yield running


class TestPlain:
    """tiny-llama with two names and an adapter, no tools, no key."""

    def test_a_server_that_loads_is_told_from_none(self, plain: tuple[Running, Report]) -> None:
        report = plain[1]
        assert first(report)["cause"] == "connection-refused"
        assert "still loading" in first(report)["title"]
        assert failed(report) == ["port"]

    def test_a_healthy_server_has_no_finding_and_costs_few_tokens(self, plain: tuple[Running, Report]) -> None:
        before = generated(plain[0])
        report = connect(plain[0].base)
        assert report["findings"] == []
        assert {s["step"] for s in report["steps"] if s["status"] == "passed"} >= {
            "name",
            "port",
            "chat",
            "stream",
            "health",
        }
        assert report["servers"][0]["version"] == "0.32.0"
        assert 0 < generated(plain[0]) - before <= 64

    @pytest.mark.parametrize("name", ["tiny", "org/Tiny-Chat", "adapter"])
    def test_every_served_name_works(self, plain: tuple[Running, Report], name: str) -> None:
        assert connect(plain[0].base, "--model", name)["findings"] == []

    @pytest.mark.parametrize(
        ("asked", "meant"),
        [("Tiny", "tiny"), ("Tiny-Chat", "org/Tiny-Chat"), ("other/tiny-chat", "org/Tiny-Chat"), ("adaptr", "adapter")],
    )
    def test_a_wrong_name_brings_the_nearest_and_its_proof(
        self, plain: tuple[Running, Report], asked: str, meant: str
    ) -> None:
        report = connect(plain[0].base, "--model", asked)
        assert (first(report)["cause"], failed(report)) == ("model-name-mismatch", ["model"])
        assert settings(report) == {"Model": meant}
        assert f"the same request for {meant!r}: 200" in first(report)["evidence"]
        assert connect(plain[0].base, "--model", settings(report)["Model"])["findings"] == []

    @pytest.mark.parametrize("path", ["", "/", "/v1/v1", "/v1/chat/completions", "/v1/models"])
    def test_a_wrong_path_brings_the_right_one(self, plain: tuple[Running, Report], path: str) -> None:
        report = connect(f"http://127.0.0.1:{plain[0].port}{path}")
        assert (first(report)["cause"], failed(report)) == ("endpoint-wrong", ["path"])
        assert settings(report) == {"Base URL": plain[0].base}
        assert connect(settings(report)["Base URL"])["findings"] == []

    def test_tools_without_the_flags(self, plain: tuple[Running, Report]) -> None:
        report = connect(plain[0].base, "--tools")
        assert (first(report)["cause"], failed(report)) == ("tools-not-enabled", ["tools"])
        assert flags(report) == {"--enable-auto-tool-choice": None, "--tool-call-parser": "hermes"}

    def test_an_image_to_a_text_model(self, plain: tuple[Running, Report]) -> None:
        report = connect(plain[0].base, "--image")
        assert (first(report)["cause"], failed(report)) == ("multimodal-unsupported", ["image"])

    def test_structured_output(self, plain: tuple[Running, Report]) -> None:
        report = connect(plain[0].base, "--structured")
        assert "structured" in {s["step"] for s in report["steps"] if s["status"] != "skipped"}

    @pytest.mark.parametrize("asked", [("--context", "8192"), ("--max-tokens", "4096")])
    def test_a_client_set_to_more_than_the_context(self, plain: tuple[Running, Report], asked: tuple[str, str]) -> None:
        report = connect(plain[0].base, *asked)
        assert (first(report)["cause"], failed(report)) == ("context-exceeded", ["context"])

    @pytest.mark.parametrize(
        ("change", "cause", "words"),
        [
            ({"max_tokens": 4096}, "context-exceeded", "lower `max_tokens` from 4096 to"),
            ({"messages": [{"role": "user", "content": "zq " * 3000}]}, "context-exceeded", "cut the longest text"),
            ({"temperature": -1}, "bad-request", "leave out `temperature`"),
            ({"n": 0}, "bad-request", "leave out `n`"),
            ({"top_k": "many"}, "bad-request", "leave out `top_k`"),
            ({"messages": []}, "bad-request", "add `messages`"),
            ({"tools": [TOOL]}, "tools-not-enabled", "leave out `tools`"),
            ({"model": "Tiny"}, "model-name-mismatch", "`model`: 'tiny'"),
            ({"structured_outputs": {"regex": "(unclosed"}}, "bad-request", "leave out `structured_outputs`"),
            ({"model": "Tiny", "temperature": -1}, "model-name-mismatch", "leave out `temperature`"),
        ],
    )
    def test_a_refused_request_is_mended_by_the_smallest_change(
        self, plain: tuple[Running, Report], tmp_path: Path, change: Report, cause: str, words: str
    ) -> None:
        report = replayed(plain[0], tmp_path, {"model": "tiny", "messages": HELLO, "max_tokens": 8} | change)
        assert (first(report)["cause"], failed(report)) == (cause, ["request"])
        proof = first(report)["evidence"][-1]
        assert words in proof
        assert proof.endswith(": 200")

    @pytest.mark.parametrize(
        "body", ["{'model': 'tiny', 'messages': [{'role': 'user', 'content': 'x'}], 'max_tokens': 2}",
                 '{"model": "tiny", "max_tokens": 2, "messages": [{"role": "user", "content": "x"},]}',
                 '{"model": "tiny", "max_tokens": 2, "messages": [{"role": "user", "content": "x"}'],
    )  # fmt: skip
    def test_a_malformed_body(self, plain: tuple[Running, Report], tmp_path: Path, body: str) -> None:
        report = replayed(plain[0], tmp_path, body)
        assert first(report)["cause"] == "bad-request"
        assert "not JSON" in first(report)["title"]
        assert first(report)["evidence"][-1].endswith(": 200")

    def test_embeddings_asked_of_a_chat_server(self, plain: tuple[Running, Report], tmp_path: Path) -> None:
        report = replayed(plain[0], tmp_path, {"model": "tiny", "input": "a"})
        assert first(report)["cause"] == "endpoint-wrong"
        assert "chat" in first(report)["title"]

    def test_a_pasted_curl_command_without_v1(self, plain: tuple[Running, Report], tmp_path: Path) -> None:
        path = tmp_path / "curl.txt"
        path.write_text(
            f"curl http://127.0.0.1:{plain[0].port}/chat/completions \\\n -H 'Content-Type: application/json' \\\n"
            f" -d '{json.dumps({'model': 'tiny', 'messages': HELLO, 'max_tokens': 2})}'\n"
        )
        report = connect("--curl", path)
        assert first(report)["cause"] == "endpoint-wrong"
        assert settings(report) == {"Base URL": plain[0].base}
        assert first(report)["evidence"][-1].endswith(": 200")

    def test_a_server_of_the_loopback_asked_from_outside(self, plain: tuple[Running, Report]) -> None:
        address = outside_address()
        report = connect(f"http://{address}:{plain[0].port}/v1")
        assert (first(report)["cause"], failed(report)) == ("connection-refused", ["port"])
        assert "bound to 127.0.0.1 only" in first(report)["title"]
        assert flags(report) == {"--host": "0.0.0.0"}

    def test_the_wrong_port_brings_that_of_the_server(self, plain: tuple[Running, Report]) -> None:
        report = connect("http://127.0.0.1:9/v1")
        assert first(report)["cause"] == "connection-refused"
        assert settings(report) == {"Base URL": plain[0].base}

    def test_the_watch_reads_the_figures(self, plain: tuple[Running, Report]) -> None:
        report = connect(plain[0].base, "--watch", "2")
        assert report["health"]["samples"] >= 2
        assert report["health"]["figures"]["kv_cache_usage"] is not None
        assert report["findings"] == []

    def test_a_server_killed_in_the_middle_of_an_answer(self, plain: tuple[Running, Report], tmp_path: Path) -> None:
        # Sixteen answers take long enough for the killer to see one begin, on a busy machine too.
        body = {"model": "tiny", "messages": HELLO, "max_tokens": 2000, "ignore_eos": True, "stream": True, "n": 16}
        killer = threading.Thread(target=kill_while_it_generates, args=(plain[0], generated(plain[0]) + 20))
        killer.start()
        report = replayed(plain[0], tmp_path, body)
        killer.join()
        assert (first(report)["cause"], failed(report)) == ("engine-dead", ["request"])
        after = connect(plain[0].base)
        assert (first(after)["cause"], failed(after)) == ("connection-refused", ["port"])


def kill_while_it_generates(server: Running, tokens: float) -> None:
    """SIGKILL as soon as the server has generated so many tokens in all."""
    end = time.monotonic() + 60
    made = 0.0
    while time.monotonic() < end and made < tokens:
        # A busy server may answer this late.
        with contextlib.suppress(OSError):
            made = generated(server)
        time.sleep(0.01)
    server.kill()


def generated(server: Running) -> float:
    import urllib.request

    with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/metrics", timeout=5) as answer:
        lines = answer.read().decode().splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith("vllm:generation_tokens_total"))


def test_what_a_server_under_load_tells(vllm_python: Path, models: Path, tmp_path: Path) -> None:
    """A KV cache of 40 blocks, and 24 clients that each fill 13 of them."""
    with serving(
        vllm_python, models / "tiny-llama", tmp_path, "--num-gpu-blocks-override", "40", "--served-model-name", "tiny"
    ) as server:
        stop = threading.Event()
        clients = [threading.Thread(target=keep_asking, args=(server, stop)) for _ in range(24)]
        for client in clients:
            client.start()
        report = connect(server.base, "--watch", "5", "--timeout", "60")
        stop.set()
        server.kill()
        for client in clients:
            client.join()
    found = {finding["title"]: finding for finding in report["findings"] if finding["check"] == "health"}
    preempted = next(f for title, f in found.items() if "preempted" in title)
    assert preempted["cause"] == "oom-kv"
    assert ["--num-gpu-blocks-override"] in [fix["launch"]["unset"] for fix in preempted["fixes"] if fix["launch"]]


def keep_asking(server: Running, stop: threading.Event) -> None:
    """One long request after the other, until told to stop or the server goes away."""
    body = {"model": "tiny", "messages": HELLO, "max_tokens": 1600, "ignore_eos": True}
    with contextlib.suppress(OSError, http.client.HTTPException):
        while not stop.is_set():
            connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=120)
            connection.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
            connection.getresponse().read()
            connection.close()


def outside_address() -> str:
    """An address of this machine that is not the loopback; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            pytest.skip("this machine has no address but the loopback")
        return str(probe.getsockname()[0])


class TestTools:
    """tiny-toolcall, which always calls, with the right parser and a key."""

    def test_the_call_comes_back(self, tools: Running) -> None:
        report = connect(tools.base, "--tools", key=KEY)
        assert report["findings"] == []
        called = next(step for step in report["steps"] if step["step"] == "tools")
        assert called["status"] == "passed"
        assert "get_weather" in called["detail"]

    @pytest.mark.parametrize("key", [None, "sk-another-key"])
    def test_a_missing_and_a_wrong_key(self, tools: Running, key: str | None) -> None:
        report = connect(tools.base, key=key)
        assert (first(report)["cause"], failed(report)) == ("auth", ["key"])
        assert set(settings(report)) == {"API Key"}

    @pytest.mark.parametrize(("form", "words"), [("Bearer {}", "Bearer"), ("'{}'", "quotes"), (" {}", "blanks")])
    def test_what_sticks_to_a_key_is_told(self, tools: Running, form: str, words: str) -> None:
        report = connect(tools.base, key=form.format(KEY))
        assert first(report)["cause"] == "auth"
        assert words in first(report)["title"]
        assert KEY not in json.dumps(report)

    def test_a_key_without_its_scheme(self, tools: Running, tmp_path: Path) -> None:
        path = tmp_path / "curl.txt"
        path.write_text(
            f"curl {tools.base}/chat/completions -H 'Authorization: {KEY}' -H 'Content-Type: application/json'"
            f" -d '{json.dumps({'messages': HELLO, 'max_tokens': 2})}'"
        )
        report = connect("--curl", path)
        assert first(report)["cause"] == "auth"
        assert "write `Bearer ` before the key" in first(report)["evidence"][-1]
        assert KEY not in json.dumps(report)


class TestFaultyServers:
    """One server per fault."""

    @pytest.fixture
    def start(self, vllm_python: Path, models: Path, tmp_path: Path) -> Any:
        return lambda model, *flags: serving(vllm_python, models / model, tmp_path, *flags)

    def test_a_wrong_parser(self, start: Any) -> None:
        with start("tiny-toolcall", "--enable-auto-tool-choice", "--tool-call-parser", "pythonic") as server:
            report = connect(server.base, "--tools")
        assert (first(report)["cause"], failed(report)) == ("tool-parser-wrong", ["tools"])
        assert flags(report)["--tool-call-parser"] == "hermes"

    def test_a_template_without_tools(self, start: Any, tmp_path: Path) -> None:
        with start("tiny-llama-plain", "--enable-auto-tool-choice", "--tool-call-parser", "hermes") as server:
            report = connect(server.base, "--tools")
            other = replayed(server, tmp_path, {"messages": HELLO, "max_tokens": 8, "tools": [TOOL]})
        assert (first(report)["cause"], failed(report)) == ("tool-parser-wrong", ["tools"])
        assert "--chat-template" in flags(report)
        assert first(other)["cause"] == "tool-parser-wrong"

    def test_a_template_that_refuses_the_system_role(self, start: Any, tmp_path: Path) -> None:
        messages = [{"role": "system", "content": "be nice"}, *HELLO]
        with start("tiny-llama-strict") as server:
            report = connect(server.base)
            other = replayed(server, tmp_path, {"messages": messages, "max_tokens": 8})
        assert (first(report)["cause"], failed(report)) == ("chat-roles", ["system"])
        assert settings(report) == {"System prompt": "(empty)"}
        assert first(report)["evidence"][-1].endswith(": 200")
        assert first(other)["cause"] == "chat-roles"
        assert first(other)["evidence"][-1].endswith(": 200")

    def test_a_model_without_a_template(self, start: Any, tmp_path: Path) -> None:
        with start("tiny-llama-notemplate") as server:
            report = connect(server.base)
            other = replayed(server, tmp_path, {"messages": HELLO, "max_tokens": 4})
        assert (first(report)["cause"], failed(report)) == ("chat-template-missing", ["chat"])
        assert "ask /completions" in first(other)["evidence"][-1]
        assert first(other)["evidence"][-1].endswith(": 200")

    def test_a_template_with_a_syntax_error(self, start: Any, models: Path) -> None:
        with start("tiny-llama", "--chat-template", str(models / "templates/syntax-error.jinja")) as server:
            report = connect(server.base)
        assert (first(report)["cause"], failed(report)) == ("chat-template-missing", ["chat"])
        assert first(report)["fixes"][0]["launch"]["unset"] == ["--chat-template"]

    def test_an_embedding_server(self, start: Any, tmp_path: Path) -> None:
        with start("tiny-llama", "--runner", "pooling", "--convert", "embed") as server:
            report = connect(server.base)
            other = replayed(server, tmp_path, {"prompt": "a", "max_tokens": 4})
            third = replayed(server, tmp_path, {"input": "a", "dimensions": 32})
        assert (first(report)["cause"], failed(report)) == ("endpoint-wrong", ["chat"])
        assert "embedding" in first(report)["title"]
        assert first(other)["cause"] == "endpoint-wrong"
        assert "/v1/embeddings" in first(other)["evidence"][-1]
        assert first(third)["cause"] == "bad-request"
        assert "leave out `dimensions`" in first(third)["evidence"][-1]


def test_nothing_listens() -> None:
    report = connect(f"http://127.0.0.1:{free_port()}/v1")
    assert (first(report)["cause"], failed(report)) == ("connection-refused", ["port"])


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
