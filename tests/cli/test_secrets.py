"""A canary secret, planted wherever the doctor looks, appears in no output."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.calling import doctor

CANARY = "c4n4ry9Zq81xTTe"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model folder whose files hold the canary under names that tell."""
    folder = tmp_path / "model"
    folder.mkdir()
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "api_key": CANARY, "hidden_size": 64}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps({"auth_token": CANARY}), encoding="utf-8")
    (folder / "chat_template.jinja").write_text("{# token=" + CANARY + " #}{{ messages", encoding="utf-8")
    return folder


@pytest.fixture
def server() -> Iterator[None]:
    """A process that looks like a vLLM server and carries the canary on its command line."""
    argv = ["vllm", "serve", "m", "--api-key", CANARY, "--port", "18123"]
    code = "import time; time.sleep(60)"
    process = subprocess.Popen([*argv[:1], "-c", code, *argv[1:]], executable=sys.executable)
    yield
    process.kill()
    process.wait()


VARIABLES = {
    "HF_TOKEN": CANARY,
    "AWS_SECRET_ACCESS_KEY": CANARY,
    "VLLM_API_KEY": CANARY,
    "HTTPS_PROXY": f"http://user:{CANARY}@127.0.0.1:9",
    "HF_ENDPOINT": f"http://user:{CANARY}@127.0.0.1:9",
    "VLLM_NO_SUCH_VARIABLE": f"password={CANARY}",
    "NCCL_DEBUG_FILE": f"/tmp/x?token={CANARY}",
}


@pytest.mark.usefixtures("server")
@pytest.mark.parametrize("name", ["text", "json", "junit", "github", "html", "markdown", "snapshot"])
def test_the_canary_is_in_no_output(tmp_path: Path, model: Path, name: str) -> None:
    (tmp_path / "args.yaml").write_text(f"api-key: {CANARY}\nhf-token: {CANARY}\n", encoding="utf-8")
    launch = [
        f"OPENAI_API_KEY={CANARY}", "vllm", "serve", str(model), "--api-key", CANARY, "--served-models", "a=b",
        f"--hf-token={CANARY}", "--config", "args.yaml", "--hf-overrides", json.dumps({"token": CANARY}),
    ]  # fmt: skip
    out = tmp_path / "out"
    url = f"http://user:{CANARY}@127.0.0.1:9/v1?api_key={CANARY}"
    if name == "snapshot":
        done = doctor("snapshot", "-o", out, "--url", url, "--", *launch, folder=tmp_path, variables=VARIABLES)
        assert done.returncode == 0, done.stderr
    else:
        arguments = ("run", "--verbose", "--format", name, "-o", str(out), "--url", url, "--", *launch)
        done = doctor(*arguments, folder=tmp_path, variables=VARIABLES)
        assert done.returncode == 1, done.stderr
    written = out.read_text(encoding="utf-8")
    assert len(written) > 500
    assert CANARY not in written + done.stdout + done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "--python", f"/x/token={CANARY}/python"),
        ("run", "--snapshot", f"https://user:{CANARY}@host/x"),
        ("run", "--", "curl", f"https://user:{CANARY}@host/x"),
    ],
)
def test_the_canary_is_in_no_complaint(arguments: tuple[str, ...]) -> None:
    done = doctor(*arguments)
    assert done.returncode == 2
    assert CANARY not in done.stdout + done.stderr


def test_user_names_and_home_folders_are_in_no_snapshot(tmp_path: Path) -> None:
    home = tmp_path / "home" / "janedoe"
    home.mkdir(parents=True)
    out = tmp_path / "out.json"
    launch = ("vllm", "serve", "/home/janedoe/models/x", "--download-dir", f"{home}/cache")
    done = doctor("snapshot", "-o", out, "--", *launch, variables={"HOME": str(home), "USER": "janedoe"})
    assert done.returncode == 0, done.stderr
    assert "janedoe" not in out.read_text(encoding="utf-8")
    assert os.environ.get("HOME", "/nowhere") != str(home)
