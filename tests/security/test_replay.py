"""A snapshot of a launch, diagnosed elsewhere, says what the launch itself was told: user names and homes masked."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.cli.calling import MOVING_CHECKS, doctor

CONFIG = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64, "num_attention_heads": 4}

# Servers, sockets and free memory come and go between the two looks.
CHANGING = MOVING_CHECKS | {"port-taken", "stray-process", "host-memory"}

LAUNCHES = {
    "a model under the home": ("vllm", "serve", "{home}/models/good"),
    "a broken model under the home": ("vllm", "serve", "{home}/models/broken", "--tensor-parallel-size", "3"),
    "a model that is not there": ("vllm", "serve", "{home}/models/nowhere"),
    "a user in a path": ("vllm", "serve", "/home/janedoe/m", "--served-model-name", "janedoe/m", "--port", "99999"),
    "a wrong value and a secret": ("HF_TOKEN=x", "vllm", "serve", "org/name", "--api-key", "a b", "--dtype", "x"),
    "docker": ("docker", "run", "--gpus", "all", "-v", "{home}/.cache:/root/.cache", "vllm/vllm-openai:v0.10.0",
               "--model", "org/name"),
}  # fmt: skip


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with a whole model and one whose config is cut off."""
    home = tmp_path_factory.mktemp("home") / "janedoe"
    for name in ("good", "broken"):
        folder = home / "models" / name
        folder.mkdir(parents=True)
        text = json.dumps({**CONFIG, "num_hidden_layers": 1, "vocab_size": 8, "max_position_embeddings": 64})
        (folder / "config.json").write_text(text if name == "good" else text[:-20], encoding="utf-8")
        (folder / "model.safetensors").write_bytes(b"\x02\0\0\0\0\0\0\0{}" if name == "good" else b"")
        (folder / "tokenizer.json").write_text("{}", encoding="utf-8")
    return home


def judged(document: str) -> tuple[list[tuple[str, str, str]], dict[str, str]]:
    report: dict[str, Any] = json.loads(document)
    findings = sorted((f["check"], f["cause"], f["severity"]) for f in report["findings"] if f["check"] not in CHANGING)
    return findings, {c["id"]: c["status"] for c in report["checks"] if c["id"] not in CHANGING}


@pytest.mark.parametrize("name", LAUNCHES)
def test_a_snapshot_says_what_the_launch_was_told(tmp_path: Path, home: Path, name: str) -> None:
    launch = [word.replace("{home}", str(home)) for word in LAUNCHES[name]]
    variables = {"HOME": str(home), "USER": "janedoe"}
    there = doctor("run", "--format", "json", "--", *launch, variables=variables)
    taken = doctor("snapshot", "-o", tmp_path / "s.json", "--", *launch, variables=variables)
    assert taken.returncode == 0, taken.stderr
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.move(tmp_path / "s.json", elsewhere / "s.json")
    here = doctor("run", "--format", "json", "--snapshot", elsewhere / "s.json", folder=elsewhere)
    assert judged(here.stdout) == judged(there.stdout)
    assert here.returncode == there.returncode
    assert "janedoe" not in here.stdout + (elsewhere / "s.json").read_text(encoding="utf-8")
