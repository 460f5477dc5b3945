"""The probe against a scripted hub: every refusal told apart, nothing but small files asked for, bounded waiting."""

import http.server
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.model import folders
from vllm_doctor.facts import ChatTemplate, Model, ModelConfig, ModelSource
from vllm_doctor.launch.parse import parse_line
from vllm_doctor.probes.model import probe_model

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REFUSALS = {
    "no-repository": (404, {"X-Error-Code": "RepoNotFound"}, "not-found"),
    "no-revision": (404, {"X-Error-Code": "RevisionNotFound"}, "not-found"),
    "plain-404": (404, {}, "not-found"),
    "gated": (401, {"X-Error-Code": "GatedRepo"}, "gated"),
    "gated-403": (403, {"X-Error-Code": "GatedRepo"}, "gated"),
    "private": (401, {"X-Error-Code": "RepoNotFound"}, "unauthorized"),
    "forbidden": (403, {}, "unauthorized"),
    "rate-limit": (429, {"Retry-After": "1"}, "unreachable"),
    "broken": (503, {}, "unreachable"),
}


class Hub(http.server.ThreadingHTTPServer):
    """A hub over a folder of repositories; `refusal` makes it answer everything the same way."""

    def __init__(self, root: Path, refusal: str | None = None, has_api: bool = True) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.root, self.refusal, self.has_api = root, refusal, has_api
        self.asked: list[str] = []
        self.tokens: list[str | None] = []


class Handler(http.server.BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class names it
        pass

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        self.server.tokens.append(self.headers.get("authorization"))
        if self.server.refusal is not None:
            status, headers, _ = REFUSALS[self.server.refusal]
            return self.say(status, b"{}", headers)
        parts = self.path.partition("?")[0].strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            return self.listing("/".join(parts[2:4]))
        file = self.server.root / "/".join(parts[:2]) / "/".join(parts[4:])
        if parts[2] != "resolve" or not file.is_file():
            return self.say(404, b"", {"X-Error-Code": "EntryNotFound"})
        return self.say(200, file.read_bytes(), {})

    def listing(self, repo_id: str) -> None:
        if not self.server.has_api:
            return self.say(404, b"", {})
        files = sorted((self.server.root / repo_id).iterdir())
        siblings = [{"rfilename": f.name, "size": f.stat().st_size} for f in files]
        return self.say(200, json.dumps({"id": repo_id, "sha": COMMIT, "siblings": siblings}).encode(), {})

    def say(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    thread = threading.Thread(target=hub.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
        thread.join()


def ask(endpoint: str, cache: Path, name: str = "acme/llama", line: str = "", **variables: str) -> Model:
    launch = parse_line(line or f"vllm serve {name}")
    settings = {"HF_ENDPOINT": endpoint, "HF_HOME": str(cache), **variables}
    return probe_model(name, launch=launch, offline=False, variables=settings)


def url(hub: Hub) -> str:
    return f"http://127.0.0.1:{hub.server_address[1]}"


def test_a_model_on_the_hub(tmp_path: Path) -> None:
    folders.llama(tmp_path / "hub" / "acme" / "llama")
    with serving(Hub(tmp_path / "hub")) as hub:
        model = ask(url(hub), tmp_path / "home", HF_TOKEN="hf_aaaaaaaaaaaa")
    assert (model.source, model.revision, model.problems) == (ModelSource.HUB, COMMIT, ())
    assert isinstance(model.config, ModelConfig)
    assert model.config.architectures == ("LlamaForCausalLM",)
    assert isinstance(model.chat_template, ChatTemplate)
    assert model.chat_template.uses_tools
    assert [w.name for w in model.weight_files] == ["model.safetensors"]
    assert set(hub.tokens) == {"Bearer hf_aaaaaaaaaaaa"}
    assert not any("safetensors" in path for path in hub.asked)
    assert "aaaaaaaaaaaa" not in repr(model)


def test_a_mirror_without_an_api(tmp_path: Path) -> None:
    folders.llama(tmp_path / "hub" / "acme" / "llama")
    with serving(Hub(tmp_path / "hub", has_api=False)) as hub:
        model = ask(url(hub), tmp_path / "home")
    assert (model.source, model.problems) == (ModelSource.HUB, ())
    assert isinstance(model.config, ModelConfig)


def test_what_a_repository_lacks(tmp_path: Path) -> None:
    folder = folders.llama(tmp_path / "hub" / "acme" / "llama")
    (folder / "model.safetensors").unlink()
    with serving(Hub(tmp_path / "hub")) as hub:
        assert [(p.kind, p.file) for p in ask(url(hub), tmp_path / "home").problems] == [("missing", "*.safetensors")]
        (folder / "config.json").unlink()
        assert [(p.kind, p.file) for p in ask(url(hub), tmp_path / "home").problems] == [("missing", "config.json")]


def test_an_adapter_repository(tmp_path: Path) -> None:
    folders.adapter(tmp_path / "hub" / "acme" / "llama")
    with serving(Hub(tmp_path / "hub")) as hub:
        model = ask(url(hub), tmp_path / "home")
    assert model.is_lora_adapter
    assert model.adapter is not None
    assert model.adapter.base_model == "acme/llama"


@pytest.mark.parametrize("refusal", REFUSALS)
def test_refusals(refusal: str, tmp_path: Path) -> None:
    with serving(Hub(tmp_path, refusal)) as hub:
        model = ask(url(hub), tmp_path / "home")
    assert [p.kind for p in model.problems] == [REFUSALS[refusal][2]]
    assert (model.source, model.hub_endpoint) == (ModelSource.NOWHERE, url(hub))


def test_nothing_listens() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    model = ask(f"http://127.0.0.1:{port}", Path("/nonexistent"))
    assert [p.kind for p in model.problems] == ["unreachable"]


def test_a_port_that_does_not_speak_tls(tmp_path: Path) -> None:
    with serving(Hub(tmp_path)) as hub:
        model = ask(url(hub).replace("http:", "https:"), tmp_path / "home")
    assert [p.kind for p in model.problems] == ["unreachable"]
    assert "TLS" in model.problems[0].detail


@pytest.mark.parametrize("endpoint", ["nonsense", "ftp://x", "http://", "http://[::1", "http://a b"])
def test_endpoints_that_are_none(endpoint: str, tmp_path: Path) -> None:
    assert [p.kind for p in ask(endpoint, tmp_path).problems] == ["unreachable"]


def test_a_hub_that_never_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vllm_doctor.probes.model.hub.MAXIMUM_BYTES", 1000)
    folder = folders.llama(tmp_path / "hub" / "acme" / "llama")
    (folder / "tokenizer_config.json").write_text('{"x": "' + "y" * 5000 + '"}')
    with serving(Hub(tmp_path / "hub")) as hub:
        started = time.monotonic()
        model = ask(url(hub), tmp_path / "home")
    assert time.monotonic() - started < 5
    assert isinstance(model.config, ModelConfig)


def test_the_cache_is_asked_first(tmp_path: Path) -> None:
    folders.llama(folders.cached(tmp_path / "home" / "hub", "acme/llama"))
    with serving(Hub(tmp_path)) as hub:
        model = ask(url(hub), tmp_path / "home")
    assert (model.source, hub.asked) == (ModelSource.CACHE, [])


def test_the_token_of_the_home_folder(tmp_path: Path) -> None:
    folders.llama(tmp_path / "hub" / "acme" / "llama")
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "token").write_text("hf_bbbbbbbbbbbb\n")
    with serving(Hub(tmp_path / "hub")) as hub:
        ask(url(hub), tmp_path / "home")
    assert set(hub.tokens) == {"Bearer hf_bbbbbbbbbbbb"}


def test_offline_asks_nobody(tmp_path: Path) -> None:
    with serving(Hub(tmp_path)) as hub:
        model = ask(url(hub), tmp_path / "home", HF_HUB_OFFLINE="1")
        assert [p.kind for p in model.problems] == ["not-cached"]
        silent = probe_model("acme/llama", offline=True, variables={"HF_ENDPOINT": url(hub), "HF_HOME": str(tmp_path)})
    assert (silent.problems, hub.asked) == ((), [])


def test_the_proxy_of_the_launch(tmp_path: Path) -> None:
    folders.llama(tmp_path / "hub" / "acme" / "llama")
    with serving(Hub(tmp_path / "hub")) as hub:
        dead = ask(url(hub), tmp_path / "home", HTTP_PROXY="http://127.0.0.1:9")
        assert [p.kind for p in dead.problems] == ["unreachable"]
        excepted = ask(url(hub), tmp_path / "home", HTTP_PROXY="http://127.0.0.1:9", NO_PROXY="localhost,127.0.0.1")
        assert excepted.source is ModelSource.HUB
        assert [p.kind for p in ask(url(hub), tmp_path / "home", http_proxy="no proxy").problems] == ["unreachable"]


def test_certificates_that_are_not_there(tmp_path: Path) -> None:
    model = ask("https://127.0.0.1:9", tmp_path, SSL_CERT_FILE=str(tmp_path / "nope.pem"))
    assert [p.kind for p in model.problems] == ["unreachable"]


def test_modelscope_is_not_the_hub(tmp_path: Path) -> None:
    with serving(Hub(tmp_path)) as hub:
        model = ask(url(hub), tmp_path / "home", VLLM_USE_MODELSCOPE="True")
        assert (model.problems, hub.asked) == ((), [])
