"""`vllm-doctor plan` from outside: exit codes, documents, and clear lines for what cannot be planned."""

import json
from pathlib import Path

import pytest

from tests.cli.calling import doctor

MODEL = "Qwen/Qwen2.5-7B-Instruct"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ((MODEL, "--gpu", "H100"), 0),
        ((MODEL, "--gpu", "RTX 3060 12GB"), 1),
        ((MODEL, "--gpu", "RTX 3060 12GB", "--fail-on", "never"), 0),
        ((MODEL, "--gpu", "L4", "--", "--max-model-len", "4096"), 0),
        ((MODEL, "--gpu", "H100:2", "--", "-tp", "4"), 1),
        ((MODEL, "--gpu", "H100", "--", "--max-model-len", "200k"), 1),
        ((MODEL, "--gpu", "H100", "--fail-on", "never", "--", "--max-model-len", "200k"), 0),
        ((MODEL, "--gpu", "H100", "--", "--foo", "3"), 1),
        ((MODEL, "--gpu", "V100-SXM2-32GB"), 1),
        (("google/gemma-3-27b-it", "--gpu", "H200", "--vllm", "0.6.0"), 1),
        ((MODEL, "--all-gpus", "--", "--max-model-len", "200k"), 1),
        ((MODEL, "--gpu", "no such card"), 2),
        ((MODEL, "--gpu", "H100", "--vllm", "newest"), 2),
        ((MODEL, "--gpu", "H100", "--", "--tensor-parallel-size", "two"), 2),
        (("Qwen/Qwen2.5-7B-Instrct", "--gpu", "H100"), 2),
        (("/no/such/folder", "--gpu", "H100"), 2),
        ((), 2),
    ],
)
def test_exit_codes(arguments: tuple[str, ...], code: int) -> None:
    done = doctor("plan", *arguments)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    if code == 2:
        assert done.stdout == ""
        assert len(done.stderr.strip().splitlines()) == 1


def test_the_document() -> None:
    done = doctor("plan", MODEL, "--gpu", "L4", "--format", "json", "--", "--max-model-len", "8k")
    found = json.loads(done.stdout)
    assert found["schema"] == "vllm-doctor/plan/1"
    assert (found["model"], found["verdict"], found["max_model_len"]) == (MODEL, "fits", 8000)
    assert found["launch"] == {"given": f"vllm serve {MODEL} --max-model-len 8k", "corrected": None}
    assert found["parameters"] == 7615616512


@pytest.mark.parametrize(
    ("arguments", "caution"),
    [
        (
            ("--gpu", "L4:2"),
            "Only 1 of the 2 GPUs is used: --tensor-parallel-size spreads the model over more of them.",
        ),
        (("--gpu", "L4", "--vllm", "9.9"), "vLLM 9.9.0 is not known here"),
        (("--gpu", "L4", "--", "--foo", "3"), "has no flag --foo: it ends there, and the plan does not count with it."),
        (("--gpu", "L4", "--vllm", "0.6.0", "--", "--async-scheduling"), "vLLM 0.6.0 has no flag --async-scheduling"),
        (("--gpu", "L4", "--", "--dtype", "fp8"), "takes no 'fp8' for --dtype: it ends there."),
        (("--gpu", "L4", "--", "--quantization", "foo"), "takes no 'foo' for --quantization: it ends there."),
        (
            ("--gpu", "RTX 3060 12GB", "--vllm", "0.12.0", "--", "--quantization", "fp8", "--max-model-len", "4096"),
            "Before 0.16, vLLM packs the weights to FP8 when all of them are on the GPU in 16 bits: 14.2 GiB.",
        ),
        (("--gpu", "V100-SXM2-32GB"), "has no kernels for the V100-SXM2-32GB (compute capability 7.0; from 7.5 on)."),
    ],
)
def test_what_the_figures_do_not_say_stands_under_the_verdict(arguments: tuple[str, ...], caution: str) -> None:
    text = doctor("plan", MODEL, *arguments).stdout
    head = " ".join(text.partition("█")[0].split())
    assert "Note: " in head
    assert caution in head


def test_no_caution_where_there_is_nothing_to_say() -> None:
    flags = (
        "-tp",
        "2",
        "--no-enable-prefix-caching",
        "--max_num_seqs",
        "8",
        "-O3",
        "--disable-log-stats",
        "--quantization",
        "fp8",
    )
    done = doctor("plan", MODEL, "--gpu", "L4:2", "--format", "json", "--", *flags)
    assert json.loads(done.stdout)["cautions"] == []


def test_the_corrected_launch_fits() -> None:
    done = doctor("plan", "Qwen/Qwen3-8B", "--gpu", "L4", "--format", "json")
    corrected = json.loads(done.stdout)["launch"]["corrected"]
    assert corrected.startswith("vllm serve Qwen/Qwen3-8B ")
    again = doctor("plan", "Qwen/Qwen3-8B", "--gpu", "L4", "--", *corrected.split(" ")[3:])
    assert again.returncode == 0
    assert "\nFits, " in again.stdout


def test_near_names_are_suggested() -> None:
    assert "did you mean Qwen/Qwen2.5-7B-Instruct" in doctor("plan", "Qwen/Qwen2.5-7B-Instrct", "--gpu", "L4").stderr


def test_the_text_has_the_picture_and_the_table() -> None:
    text = doctor("plan", MODEL, "--gpu", "L4").stdout
    assert "KV cache" in text
    assert "at once" in text
    assert max(len(line) for line in text.splitlines() if "https" not in line) <= 100


def test_ascii_where_the_output_is_ascii() -> None:
    done = doctor("plan", MODEL, "--gpu", "L4", variables={"PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0
    assert done.stdout.isascii()


def test_every_gpu(tmp_path: Path) -> None:
    target = tmp_path / "gpus.json"
    done = doctor("plan", "openai/gpt-oss-20b", "--all-gpus", "--format", "json", "-o", target)
    assert (done.returncode, done.stdout) == (0, "")
    found = {g["name"]: g["count"] for g in json.loads(target.read_text())["gpus"]}
    assert found["H100 80GB HBM3"] == 1
    assert found["RTX 3060"] != 1


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"architectures": ["LlamaForCausalLM"]}',
        '{"architectures": ["LlamaForCausalLM"], "hidden_size": -1, "num_hidden_layers": 2}',
        '{"architectures": ["LlamaForCausalLM"], "hidden_size": 1e400}',
        '{"architectures": ["LlamaForCausalLM"], "hidden_size": "many", "num_hidden_layers": [], "vocab_size": null}',
        "[" * 100_000,
        '{"text_config": ' * 3_000 + "1" + "}" * 3_000,
    ],
)
def test_a_hostile_config_is_one_clear_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    done = doctor("plan", tmp_path, "--gpu", "H100")
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.strip().splitlines()) == 1


def test_flags_before_the_dashes_are_told_where_they_belong() -> None:
    done = doctor("plan", MODEL, "--gpu", "L4", "--tensor-parallel-size", "2")
    assert done.returncode == 2
    assert "flags of `vllm serve` come last, after --" in done.stderr


def test_a_release_without_the_architecture_is_told() -> None:
    text = doctor("plan", "google/gemma-3-27b-it", "--gpu", "H200", "--vllm", "0.6.0").stdout
    assert "vLLM 0.6.0 has no code for Gemma3ForConditionalGeneration (0.8.0 to 0.33.0 have)." in text


def test_every_gpu_tells_of_a_flag_that_is_not_read() -> None:
    text = doctor("plan", MODEL, "--all-gpus", "--", "--foo", "3").stdout
    assert text.startswith("Will not start on any GPU: vLLM ")
    assert text.splitlines()[0].endswith("has no flag --foo: it ends there, and the plan does not count with it.")


@pytest.mark.parametrize(
    ("arguments", "verdict", "corrected"),
    [
        (("--max-model-len", "200k"), "max-len-over-model", f"vllm serve {MODEL} --max-model-len 32768"),
        (("--foo", "3", "--max-num-seqs", "8"), "bad-flag", f"vllm serve {MODEL} --max-num-seqs 8"),
        (
            ("--dtype", "fp8", "--max-model-len", "200k"),
            "bad-flag",
            f"vllm serve {MODEL} --max-model-len 32768",
        ),
        (("-tp", "3"), "tp-divisibility", f"vllm serve {MODEL} -tp 2"),
    ],
)
def test_what_is_refused_is_no_fit(arguments: tuple[str, ...], verdict: str, corrected: str) -> None:
    """A reader of the verdict alone is told that it will not start, and with what it does."""
    gpu = "H100:4" if "-tp" in arguments else "H100"
    done = doctor("plan", MODEL, "--gpu", gpu, "--format", "json", "--", *arguments)
    found = json.loads(done.stdout)
    assert (done.returncode, found["verdict"], found["certainty"]) == (1, verdict, "certain")
    assert found["kv"]["tokens"] == found["kv"]["blocks"] == found["kv"]["max_concurrency"] == 0
    assert found["error"]
    assert found["launch"]["corrected"] == corrected
    text = doctor("plan", MODEL, "--gpu", gpu, "--", *arguments).stdout
    assert "Will not start: " in text and "Fits" not in text


def test_a_longer_context_that_the_user_insists_on_is_planned() -> None:
    arguments = ("plan", MODEL, "--gpu", "H100", "--", "--max-model-len", "200k")
    assert doctor(*arguments).returncode == 1
    stretched = doctor("plan", MODEL, "--gpu", "H100", "--vllm", "0.8.0", "--", *arguments[-2:], "--rope-scaling", "{}")
    assert stretched.returncode == 0, stretched.stdout
