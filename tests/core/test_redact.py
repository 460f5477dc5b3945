"""Secrets never pass the door, and what is none stays readable."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllm_doctor import redact
from vllm_doctor.facts import Server, Servers, Unknown
from vllm_doctor.snapshot import Snapshot

CANARY = "c4n4ry-Zq81xTTe"


@pytest.mark.parametrize(
    "text",
    [
        f"vllm serve m --api-key {CANARY} --port 1",
        f"vllm serve m --api-key={CANARY}",
        f"HF_TOKEN={CANARY} vllm serve m",
        f"docker run -e HUGGING_FACE_HUB_TOKEN={CANARY} image",
        f"docker run -e 'AWS_SECRET_ACCESS_KEY={CANARY}' image",
        f"http://user:{CANARY}@proxy:3128/",
        f"https://{CANARY}@github.com/x",
        f"https://hub/x?token={CANARY}&y=1",
        f"Authorization: Bearer {CANARY}",
        f'{{"api_key": "{CANARY}"}}',
        f"password: {CANARY}",
        f"client_secret={CANARY}",
        f"apiKey={CANARY}",
        f"openai.api_key = '{CANARY}'",
        f"docker run --env=HF_TOKEN={CANARY} image",
        f"docker run --env=HTTPS_PROXY=user:{CANARY}@proxy:3128 image",
        f"HTTPS_PROXY=user:{CANARY}@proxy:3128 vllm serve m",
        f"http://user:p@ss{CANARY}@proxy/",
        f"http://user:{'x' * 600}{CANARY}@proxy/",
        f"git+https://oauth2:{CANARY}@host/x.git",
        f"https://s3/x?X-Amz-Signature={CANARY}&y=1",
        f"https://blob/x?sv=1&sig={CANARY}",
        f'--hf-overrides {{\\"api_key\\": \\"{CANARY}\\"}}',
        f'{{"api_key": "a\\"{CANARY}"}}',
        f"token='{CANARY} and more",
        f"token={'x' * 5000}{CANARY}",
        f"{'a-' * 300}token={CANARY}",
        f"Authorization: Basic {CANARY}",
    ],
)
def test_a_secret_is_masked(text: str) -> None:
    masked = redact.text(text)
    assert CANARY not in masked
    assert redact.MASK in masked


@pytest.mark.parametrize(
    ("argv", "masked"),
    [
        (("vllm", "serve", "m", "--api-key", f"a b {CANARY}"), "vllm serve m --api-key ***"),
        (("vllm", "serve", "m", "--api-key", "a1", CANARY, "--port", "1"), "vllm serve m --api-key *** *** --port 1"),
        (("x", "--hf-token", CANARY, "m"), "x --hf-token *** m"),
        (("env", f"HF_TOKEN=a,b;c {CANARY}", "vllm"), "env HF_TOKEN=*** vllm"),
        (("docker", "run", f"--env=HF_TOKEN=a&b {CANARY}", "i"), "docker run --env=HF_TOKEN=*** i"),
        (("docker", "run", f"-eHF_TOKEN=a&b {CANARY}", "i"), "docker run -eHF_TOKEN=*** i"),
        (("x", f"--api_key={CANARY}", "--tokenizer", "t"), "x --api_key=*** --tokenizer t"),
        (("curl", "-H", f"Authorization: Bearer {CANARY}"), "curl -H Authorization: *** ***"),
    ],
)
def test_a_secret_word_is_masked_to_its_end(argv: tuple[str, ...], masked: str) -> None:
    shown = " ".join(redact.words(argv))
    assert CANARY not in shown
    assert shown == masked


def test_a_private_key_is_masked() -> None:
    assert "MIIEow" not in redact.text(
        "-----BEGIN RSA PRIVATE KEY-----\nMIIEow+/=\nMIIEow\n-----END RSA PRIVATE KEY-----"
    )


@pytest.mark.parametrize("shape", ["hf_" + "A" * 34, "sk-" + "a1" * 20, "ghp_" + "b" * 36, "AKIA" + "A" * 16])
def test_a_known_shape_is_masked_without_a_name(shape: str) -> None:
    assert shape not in redact.text(f"error near {shape}: denied")


@pytest.mark.parametrize(
    "text",
    [
        "--max-num-batched-tokens 8192 --max-model-len 4096",
        "max_tokens=4096 eos_token=</s> pad_token_id=0",
        "--tokenizer Qwen/Qwen2.5-7B --tokenizer-mode auto",
        "the token is not valid: key error",
        "the server's key (its --api-key or VLLM_API_KEY)",
        "--api-key needs at least one value, and none follows",
        "single keys as --hf-overrides.KEY VALUE",
        "PWD=/srv/models PATH=/usr/bin",
        "numpy>=1.26; python_version < '3.12'",
        "/home/x/.cache/huggingface/hub",
        "google-auth==2.29.0; extra == 'auth'",
        "hf_transfer hf_tokenizers hf_processor_kwargs",
        "/etc/passwd: not an executable file",
        "vllm/vllm-openai:v0.10.0@sha256:0123456789abcdef",
        "pip install vllm @ file:///srv/vllm-0.20.2.whl",
        '{"image_token": "<image>", "video_token": "<video>"}',
        "key==value --port 8000 --host ::1",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert redact.text(text) == text


def test_the_values_of_our_own_secret_variables_are_masked_wherever_they_turn_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SOME_VENDOR_TOKEN", CANARY)
    redact.own_secrets.cache_clear()
    try:
        assert CANARY not in redact.text(f"plain words {CANARY} and more")
    finally:
        monkeypatch.undo()
        redact.own_secrets.cache_clear()


@given(st.text(max_size=400))
def test_no_control_character_passes(text: str) -> None:
    passed = redact.text("\x1b[31m" + text)
    assert not [c for c in passed if (ord(c) < 32 and c not in "\n\t") or 0x7F <= ord(c) <= 0x9F]


@given(st.text(max_size=200))
def test_masking_is_idempotent(text: str) -> None:
    once = redact.text(text)
    assert redact.text(once) == once


def test_identities_are_masked_by_the_same_alias_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/alice")
    server = Server(
        pid=7,
        user="bob",
        command="/home/bob/venv/bin/vllm serve /home/alice/models/x --x /home/bob",
        model="/home/alice/models/x",
        port=8000,
        age_seconds=1.0,
        listening=True,
    )
    facts = Snapshot(
        host=Unknown("alice said no"),
        gpus=Unknown("-"),
        environment=Unknown("-"),
        servers=Servers(running=(server,), listeners=()),
    )
    masked = msgspec.json.encode(redact.identity(facts)).decode()
    assert "alice" not in masked
    assert "bob" not in masked
    assert "/home/user/models/x" in masked
    assert masked.count("user-") == 4
