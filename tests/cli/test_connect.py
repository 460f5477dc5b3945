"""`vllm-doctor connect` as a process: options, documents, exit codes, and no secret in any of them."""

import json
import time
from pathlib import Path

import pytest

from tests.cli.calling import doctor
from tests.client.scripted import Scripted, as_json, refused

KEYS = {"cause", "check", "severity", "confidence", "title", "evidence", "fixes"}


def test_a_healthy_server_is_0_and_takes_a_second() -> None:
    with Scripted() as server:
        started = time.monotonic()
        done = doctor("connect", server.base, "--format", "json")
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - started < 10
    report = json.loads(done.stdout)
    assert report["schema"] == "vllm-doctor/connection/1"
    assert {tuple(step) for step in report["steps"]} == {("step", "status", "seconds", "detail")}
    assert (report["findings"], report["servers"][0]["server"]) == ([], "vLLM")


def test_a_broken_step_is_1_and_the_finding_is_whole() -> None:
    with Scripted({"/v1/chat/completions": lambda _: refused("no")}) as server:
        done = doctor("connect", server.base, "--format", "json")
    assert done.returncode == 1
    (finding,) = json.loads(done.stdout)["findings"]
    assert set(finding) == KEYS
    assert finding["check"] == "chat"


@pytest.mark.parametrize(("fail_on", "code"), [("error", 0), ("warning", 1), ("never", 0)])
def test_a_warning_fails_where_it_is_asked_to(fail_on: str, code: int) -> None:
    def handler(asked: object) -> bytes:
        from tests.client.scripted import Asked, usual

        assert isinstance(asked, Asked)
        system = asked.json()["messages"][0]["role"] == "system"
        return refused("System role not supported") if system else usual(asked)

    with Scripted({"/v1/chat/completions": handler}) as server:
        assert doctor("connect", server.base, "--fail-on", fail_on).returncode == code


@pytest.mark.parametrize("name", ["text", "json", "junit", "github", "html", "markdown"])
def test_every_format(name: str, tmp_path: Path) -> None:
    with Scripted({"/v1/models": lambda _: as_json({"error": "Unauthorized"}, 401)}) as server:
        done = doctor("connect", server.base, "--format", name, "-o", tmp_path / "report")
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "")
    assert "auth" in (tmp_path / "report").read_text()


def test_the_key_is_taken_from_the_variable_and_printed_nowhere() -> None:
    def handler(asked: object) -> bytes:
        return as_json({"error": f"no: {getattr(asked, 'headers')['authorization']}"}, 401)  # noqa: B009

    with Scripted({"/v1/models": handler}) as server:
        done = doctor("connect", server.base, "--api-key-env", "MINE", variables={"MINE": "quite-a-secret"})
        assert server.asked[1].headers["authorization"] == "Bearer quite-a-secret"
    assert "quite-a-secret" not in done.stdout + done.stderr
    assert "auth" in done.stdout


def test_the_key_of_another_service_is_not_sent_unasked() -> None:
    with Scripted() as server:
        doctor("connect", server.base, variables={"OPENAI_API_KEY": "sk-of-openai"})
        assert all("authorization" not in asked.headers for asked in server.asked)


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("ftp://x",),
        ("http://x/v1", "--api-key-env", "NOT_THERE"),
        ("http://x/v1", "--request", "/nowhere.json"),
        ("http://x/v1", "--select", "nonsense"),
        ("http://x/v1", "http://y/v1", "--curl", __file__),
    ],
)
def test_a_wrong_call_is_2_and_one_line(arguments: tuple[str, ...]) -> None:
    done = doctor("connect", *arguments, "--timeout", "0.5")
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.strip().splitlines()) == 1


def test_several_servers_and_what_each_serves() -> None:
    with Scripted(models=("a",)) as one, Scripted(models=("b",)) as two:
        done = doctor("connect", one.base, two.base, "--format", "json")
    report = json.loads(done.stdout)
    assert [[m["id"] for m in server["models"]] for server in report["servers"]] == [["a"], ["b"]]
    assert {step["url"] for step in report["steps"]} == {one.base, two.base}


def test_a_cause_can_be_ignored() -> None:
    with Scripted({"/v1/models": lambda _: as_json({"error": "no"}, 401)}) as server:
        done = doctor("connect", server.base, "--ignore", "auth", "--format", "json")
    assert (done.returncode, json.loads(done.stdout)["findings"]) == (0, [])


def test_a_replay_brings_the_proved_change(tmp_path: Path) -> None:
    path = tmp_path / "body.json"
    path.write_text('{"model": "Tiny", "messages": [{"role": "user", "content": "x"}]}')
    with Scripted() as server:
        done = doctor("connect", server.base, "--request", path, "--format", "json")
    (finding,) = json.loads(done.stdout)["findings"]
    assert finding["evidence"][-1] == "sent again with this change (`model`: 'tiny'): 200"
    assert finding["fixes"][0]["settings"] == {"Model": "tiny"}


def test_a_watch_brings_the_figures() -> None:
    with Scripted() as server:
        done = doctor("connect", server.base, "--watch", "1", "--format", "json")
    health = json.loads(done.stdout)["health"]
    assert health["samples"] == 2
    assert health["figures"]["kv_cache_usage"] == 0.2
    assert "preemptions" in health["not_evaluated"]


def test_a_model_that_another_of_the_servers_serves() -> None:
    with Scripted(models=("a",)) as one, Scripted(models=("b",)) as two:
        done = doctor("connect", one.base, two.base, "--model", "b", "--format", "json")
    (finding,) = json.loads(done.stdout)["findings"]
    assert finding["cause"] == "model-name-mismatch"
    assert finding["fixes"][0]["settings"] == {"Base URL": two.base, "Model": "b"}
