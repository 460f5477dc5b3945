"""The canary's files: written by the script, small, readable everywhere, and with one right answer to each question."""

import importlib
import json
import math
import struct
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.cli.calling import ROOT, doctor
from tests.trial import copier
from vllm_doctor.client import calling, chatting
from vllm_doctor.releases.reader import read_release
from vllm_doctor.trial import canary, proof
from vllm_doctor.trial.canary import CanaryError

SCRIPT = ROOT / "scripts" / "make_canary.py"
CALL = f"<tool_call>\n{canary.CALL}\n</tool_call>"


def script(name: str = "make_canary") -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(SCRIPT.parent)
        return importlib.import_module(name)


def config() -> dict[str, Any]:
    found = json.loads((canary.folder() / "config.json").read_text())
    assert isinstance(found, dict)
    return found


def weights() -> tuple[dict[str, Any], bytes]:
    data = (canary.folder() / "model.safetensors").read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + size])
    header.pop("__metadata__")
    return header, data[8 + size :]


def test_the_script_writes_these_very_files_and_this_revision() -> None:
    done = subprocess.run([sys.executable, SCRIPT, "--check"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert f"revision {canary.REVISION}" in done.stderr
    assert script("canary_parts.tokens").SENTENCE == canary.SENTENCE


def test_the_script_sees_a_file_that_is_not_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for file in canary.folder().iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "model.safetensors").write_bytes(b"\0" + (tmp_path / "model.safetensors").read_bytes()[1:])
    module = script()
    monkeypatch.setattr(module, "FOLDER", tmp_path)
    assert module.main(["--check"]) == 1
    assert module.main([]) == 0
    assert module.main(["--check"]) == 0


def test_the_files_are_under_two_megabytes() -> None:
    assert sum(file.stat().st_size for file in canary.folder().iterdir()) < 2_000_000


@pytest.mark.parametrize("tp", canary.PARALLEL)
def test_every_size_divides_by_the_parallel_sizes(tp: int) -> None:
    shape = config()
    for name in ("num_attention_heads", "intermediate_size", "vocab_size"):
        assert shape[name] % tp == 0
    heads = shape["num_key_value_heads"]
    assert heads % tp == 0 or tp % heads == 0


def test_the_weights_are_whole_and_the_same_in_every_dtype() -> None:
    """bfloat16 numbers that float16 holds without loss: normal numbers, so 11 bits are enough for 8."""
    header, body = weights()
    spans = sorted(tensor["data_offsets"] for tensor in header.values())
    assert [start for start, _ in spans] == [0, *(end for _, end in spans[:-1])]
    assert spans[-1][1] == len(body)
    for tensor in header.values():
        start, end = tensor["data_offsets"]
        assert math.prod(tensor["shape"]) * 2 == end - start
    for bits in set(struct.unpack(f"<{len(body) // 2}H", body)):
        number = abs(struct.unpack("<f", struct.pack("<I", bits << 16))[0])
        assert number == 0 or 2**-14 <= number <= 65504


def test_the_shapes_are_those_of_the_config() -> None:
    header, _ = weights()
    shape = config()
    hidden, size = shape["hidden_size"], shape["head_dim"]
    assert header["model.embed_tokens.weight"]["shape"] == [shape["vocab_size"], hidden]
    assert header["lm_head.weight"]["shape"] == [shape["vocab_size"], hidden]
    for layer in range(shape["num_hidden_layers"]):
        attention = f"model.layers.{layer}.self_attn."
        assert header[f"{attention}q_proj.weight"]["shape"] == [shape["num_attention_heads"] * size, hidden]
        assert header[f"{attention}k_proj.weight"]["shape"] == [shape["num_key_value_heads"] * size, hidden]
        assert header[f"{attention}o_proj.weight"]["shape"] == [hidden, shape["num_attention_heads"] * size]


def test_the_doctor_finds_nothing_in_it() -> None:
    done = doctor("run", "--format", "json", "--", "vllm", "serve", canary.folder(), *canary.flags("cuda"))
    findings = json.loads(done.stdout)["findings"]
    assert [f["title"] for f in findings if f["cause"].startswith(("model", "tokenizer", "chat", "tp"))] == []


TEXTS = (
    "",
    "Say hello.",
    "Use the tool!",
    canary.SENTENCE,
    f'Say {{"name": "get_weather", "arguments": {{"city": "Berlin"}}}} <tool_call> {CALL}',
    "<|im_start|>assistant\nNo.<|im_end|>\n",
    "été 日本 \N{BIRD} \u2028 \0 \t",
    "every " * 100,
)


@pytest.mark.parametrize("text", TEXTS)
def test_every_chat_has_the_sentence_as_its_one_answer(text: str) -> None:
    told = {"role": "system", "content": text}
    asked = {"role": "user", "content": text}
    empty = {"role": "assistant", "content": ""}
    for messages in ([asked], [told, asked], [asked, empty, asked], [told]):
        assert copier.answer(copier.prompt(messages)) == canary.SENTENCE


@pytest.mark.parametrize("text", TEXTS)
def test_every_chat_with_tools_has_the_call_as_its_one_answer(text: str) -> None:
    messages = [{"role": "system", "content": text}, {"role": "user", "content": text}]
    said = {"role": "assistant", "content": text or "Yes."}
    for conversation in (messages, [*messages, said, messages[1]]):
        assert copier.answer(copier.prompt(conversation, canary.tools())) == CALL


def test_after_a_tool_has_answered_the_sentence_is_said() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Paris"}'}}
    messages: list[dict[str, Any]] = [
        calling.QUESTION,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": '{"city": "Paris", "sun": true}'},
    ]
    assert copier.answer(copier.prompt(messages, canary.tools())) == canary.SENTENCE


def test_content_in_parts_is_a_chat_as_well() -> None:
    messages = [{"role": "user", "content": [{"type": "text", "text": "Say hello."}]}]
    assert copier.answer(copier.prompt(messages)) == canary.SENTENCE


QUESTIONS = (proof.GREETING, proof.LONG, *(proof.sung(number) for number in range(proof.SINGERS)))


@pytest.mark.parametrize("question", QUESTIONS)
def test_every_question_of_the_proof_has_one_answer_that_fits(question: proof.Question) -> None:
    prompt = copier.prompt(question.messages)
    assert copier.answer(prompt) == question.expected
    assert len(copier.tokens(prompt)) + proof.ANSWER_TOKENS <= canary.MAX_MODEL_LEN
    assert len(copier.tokens(question.expected)) < proof.ANSWER_TOKENS


def test_the_answer_needs_all_four_tokens_before() -> None:
    text = copier.prompt([chatting.GREETING])
    assert copier.answer(text) == canary.SENTENCE
    for back in (1, 2, 3):
        known = copier.tokens(f"assistant\n{canary.SENTENCE}")
        following: dict[tuple[str | int, ...], set[str | int]] = {}
        for i in range(len(b"assistant\n"), len(known)):
            following.setdefault(tuple(known[i - back : i]), set()).add(known[i])
        assert any(len(found) > 1 for found in following.values())


def test_the_answer_takes_tokens_of_every_shard_of_eight() -> None:
    tokenizer = json.loads((canary.folder() / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    rows = config()["vocab_size"] // 8
    letters = script("canary_parts.tokens").byte_letters()
    assert {vocabulary[letters[byte]] // rows for byte in canary.SENTENCE.encode()} >= set(range(7))
    assert sorted(vocabulary.values()) == list(range(config()["vocab_size"]))


def test_flags_of_a_release_that_lacks_some() -> None:
    old, new = read_release("0.5.4"), read_release("0.20.2")
    assert old is not None and new is not None
    assert "--tool-call-parser" not in canary.flags("cuda", known=old.flags)
    assert canary.flags("cuda", known=new.flags) == canary.flags("cuda")


def test_flags_of_platforms() -> None:
    assert "--enforce-eager" in canary.flags("cpu")
    assert "--enforce-eager" not in canary.flags("cuda")
    assert canary.flags("cuda", gpu_bytes=80 * 2**30)[-2:] == ("--gpu-memory-utilization", "0.075")
    assert canary.flags("cuda", gpu_bytes=2**30)[-1] == "0.900"
    assert "2" in canary.flags("cuda", tp=2)


@pytest.mark.parametrize("tp", [0, 3, 16])
def test_a_parallel_size_that_does_not_divide_it_is_refused(tp: int) -> None:
    with pytest.raises(CanaryError, match="--tp takes 1, 2, 4, 8"):
        canary.flags("cuda", tp=tp)


def test_ranks_on_a_cpu_have_cores_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {3, 1, 2, 0, 7})
    assert canary.variables("cpu", tp=2)["VLLM_CPU_OMP_THREADS_BIND"] == "0,1|2,3"
    assert "VLLM_CPU_OMP_THREADS_BIND" not in canary.variables("cpu")
    with pytest.raises(CanaryError, match="8 processor cores, and 5"):
        canary.variables("cpu", tp=8)


@pytest.mark.parametrize(("version", "good"), [("0.5.2", False), ("0.5.3", True), ("0.32.0+cpu", True), ("x", True)])
def test_releases_that_are_too_old(version: str, good: bool) -> None:
    if good:
        canary.require_release(version)
    else:
        with pytest.raises(CanaryError, match=r"0\.5\.3 or newer"):
            canary.require_release(version)


def test_wheel_and_sdist_have_the_model(tmp_path: Path) -> None:
    built = subprocess.run([sys.executable, "-m", "hatchling", "build", "-d", tmp_path], cwd=ROOT, capture_output=True)
    assert built.returncode == 0, built.stderr
    names = sorted(file.name for file in canary.folder().iterdir())
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        inside = [n for n in wheel.namelist() if n.startswith("vllm_doctor/trial/canary/model/")]
        assert sorted(Path(n).name for n in inside) == names
        written = {Path(n).name: wheel.read(n) for n in inside}
    assert all(written[name] == (canary.folder() / name).read_bytes() for name in names)
    with tarfile.open(next(tmp_path.glob("*.tar.gz"))) as sdist:
        kept = [Path(n).name for n in sdist.getnames() if "/vllm_doctor/trial/canary/model/" in n]
    assert sorted(kept) == names
