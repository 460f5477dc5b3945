"""The secrets of a command: masked in everything that is printed, and given to the server as they were typed."""

from pathlib import Path

import pytest

from vllm_doctor.finding import LaunchEdit
from vllm_doctor.launch import edit, render
from vllm_doctor.launch.parse import parse_launch
from vllm_doctor.trial import secrets, target

HUB = "hf_" + "a1" * 12


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(["vllm", "serve", "m", "--api-key", "topsecret"], id="a flag"),
        pytest.param(["vllm", "serve", "m", "--api-key", "one", "two", "--port", "1"], id="two keys"),
        pytest.param(["vllm", "serve", "m", "--api-key=topsecret", "--api_key", "other"], id="spellings"),
        pytest.param(["VLLM_API_KEY=topsecret", f"HF_TOKEN={HUB}", "vllm", "serve", "m"], id="variables"),
        pytest.param(["env", "VLLM_API_KEY=topsecret", "vllm", "serve", "m"], id="env"),
        pytest.param(["vllm", "serve", "m", "--hf-token", HUB, "--revision", HUB], id="a token among harmless words"),
        pytest.param(["vllm", "serve", "m", "--hf-overrides", '{"token": "' + HUB + '"}'], id="inside a value"),
        pytest.param(["URL=http://u:pass@h/", "vllm", "serve", "https://u:pass@h/m"], id="a password in an address"),
        pytest.param(["vllm", "serve", "m", "--port", "1"], id="none"),
    ],
)
def test_what_is_started_is_what_was_typed(words: list[str], tmp_path: Path) -> None:
    launch = parse_launch(words)
    kept = secrets.of_words(tuple(words), tmp_path)
    assert sorted(_flat(render.argv(kept.unmasked(launch)))) == sorted(_flat(words))
    shown = render.command_line(launch)
    assert not any(secret in shown for secret in ("topsecret", "one", "two", "other", HUB, "pass@"))


def test_a_command_in_quotes_keeps_its_secrets(tmp_path: Path) -> None:
    typed = ["VLLM_API_KEY=othersecret vllm serve m --api-key topsecret"]
    launch = parse_launch(typed)
    kept = secrets.of_words(typed, tmp_path)
    assert render.argv(kept.unmasked(launch)) == ("VLLM_API_KEY=othersecret", *typed[0].split()[1:])
    assert "secret" not in f"{launch}{render.command_line(launch)}"


def _flat(words: "list[str] | tuple[str, ...]") -> list[str]:
    return [part for word in words for part in (word.split("=", 1) if word.startswith("--api") else [word])]


def test_an_edit_keeps_them(tmp_path: Path) -> None:
    words = ["VLLM_API_KEY=topsecret", "vllm", "serve", "m", "--api-key", "other", "--port", "1"]
    kept = secrets.of_words(words, tmp_path)
    changed = edit.apply(parse_launch(words), LaunchEdit(set={"--port": "2", "--max-model-len": "5"}))
    ready = target.target(changed, kept, {"PATH": "/bin", "VLLM_API_KEY": "inherited"})
    assert ready.argv == ("vllm", "serve", "m", "--api-key", "other", "--port", "2", "--max-model-len", "5")
    assert ready.environment == {"PATH": "/bin", "VLLM_API_KEY": "topsecret"}
    assert (ready.url, ready.key) == ("http://127.0.0.1:2/v1", "other")


def test_an_edited_variable_is_not_put_back(tmp_path: Path) -> None:
    words = ["HF_TOKEN=topsecret", "vllm", "serve", "m"]
    kept = secrets.of_words(words, tmp_path)
    dropped = edit.apply(parse_launch(words), LaunchEdit(env={"HF_TOKEN": None}))
    assert target.target(dropped, kept, {}).environment == {}


def test_the_key_of_a_config_file_is_found(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("model: m\napi-key: topsecret\nport: 99\n")
    words = ["vllm", "serve", "--config", "c.yaml"]
    kept = secrets.of_words(words, tmp_path)
    ready = target.target(parse_launch(words, folder=tmp_path), kept, {"PATH": "/bin"})
    assert (ready.key, ready.url) == ("topsecret", "http://127.0.0.1:99/v1")
    assert ready.argv == ("vllm", "serve", "--config", "c.yaml")
