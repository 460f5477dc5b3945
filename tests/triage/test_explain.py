"""Texts to explanations: ranking, stages, streams and what must stay silent."""

import io
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vllm_doctor.finding import Severity
from vllm_doctor.triage import explain_stream, explain_text
from vllm_doctor.triage.patterns import Patterns
from vllm_doctor.triage.signature import book
from vllm_doctor.triage.telling import Telling

NOISY_LINES = 20_000

OOM = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.00 GiB."


def named(text: str | bytes) -> list[str]:
    """The causes, the root cause first."""
    return [f.finding.cause for f in explain_text(text).findings]


def test_the_end_of_a_backend_of_triton_is_read_at_its_lowest_level() -> None:
    failed = "Failed to initialize Python stub: TypeError: build() got an unexpected keyword argument 'stat_loggers'"
    assert named(f'I1216 02:12:49.624943 179 pb_stub.cc:388] "{failed}"') == ["caller-version-mismatch"]
    assert named(f'I1216 02:12:49.624943 179 model.cc:388] "{failed}"') == []


def test_a_line_with_the_words_of_many_messages_still_tells_its_own() -> None:
    patterns = Patterns(book().values())
    words = b" ".join(sorted(patterns.prefilter.literals, key=len)[:60]).decode()
    text = f"RuntimeError: Found Tesla P40 which is too old to be supported by the triton GPU compiler {words}"
    assert len(patterns.of(patterns.prefilter.all_in(text.lower().encode()))) > 64
    assert named(text)[0] == "arch-unsupported"


@pytest.mark.parametrize(
    ("before", "cause"),
    [
        ('  File "vllm/worker/worker.py", line 139, in load_model', "oom-weights"),
        ('  File "vllm/v1/worker/gpu_model_runner.py", line 9, in profile_run', "oom-activation"),
        ('  File "vllm/v1/worker/gpu_model_runner.py", line 9, in capture_model', "oom-cudagraph"),
        ('  File "vllm/v1/engine/core.py", line 9, in run_busy_loop', "oom-serving"),
        ("INFO:     Application startup complete.", "oom-serving"),
        ("Loading safetensors checkpoint shards:   0% Completed | 0/4 [00:00<?, ?it/s]", "oom-weights"),
        ("INFO 01-01 00:00:00 [x.py:1] Loading weights took 9.1 seconds", "oom-activation"),
        ("Capturing CUDA graphs:  10%|#         | 7/67", "oom-cudagraph"),
    ],
)
def test_the_stage_tells_the_memory_causes_apart(before: str, cause: str) -> None:
    root = explain_text(f"{before}\n{OOM}\n").findings[0].finding
    assert (root.cause, root.severity) == (cause, Severity.ERROR)


def test_an_unknown_stage_is_likely_at_most() -> None:
    assert explain_text(OOM).findings[0].finding.severity is Severity.WARNING


def test_the_worker_comes_before_the_engine_and_the_server() -> None:
    text = (
        "(APIServer pid=1) RuntimeError: Engine core initialization failed. See root cause above.\n"
        "(EngineCore pid=2) ERROR 02-06 16:34:06 [core.py:9] RuntimeError: NCCL error: unhandled system error\n"
        "(Worker_TP0 pid=3) ERROR 02-06 16:34:06 [w.py:9] ValueError: Unknown quantization method: nope.\n"
    )
    assert named(text)[0] == "quantization-unsupported"
    assert "engine-dead" not in named(text)


def test_a_normal_stop_is_silent_and_a_new_start_is_not() -> None:
    stop = (
        "(APIServer pid=1) INFO 11-22 17:55:32 [launcher.py:254] [shutdown] API server: shutdown triggered\n"
        "(APIServer pid=1) ERROR 11-22 17:55:32 [a.py:9] vllm.v1.engine.exceptions.EngineDeadError: EngineCore\n"
    )
    again = "INFO 11-22 18:00:00 [api_server.py:1] vLLM API server version 0.32.0\nRuntimeError: NCCL error: x\n"
    assert named(stop) == []
    assert named(stop + again) == ["nccl-failure"]


def test_information_lines_are_no_faults() -> None:
    assert named("INFO 11-22 17:55:32 [logger.py:39] Received request c-1: prompt: 'why CUDA out of memory?'\n") == []


def test_a_wrapped_message_is_joined() -> None:
    message = book()["oom-kv-max-len"].match[0]
    wrapped = "\n".join(message[start : start + 78] for start in range(0, len(message), 78))
    assert named(wrapped)[0] == "oom-kv"


def test_a_message_in_nested_json_is_read() -> None:
    body = '{"error":"{\\"error\\":{\\"message\\":\\"The model `x` does not exist.\\",\\"code\\":404}}"}'
    assert named(body) == ["model-name-mismatch"]


@pytest.mark.parametrize("times", [1, 2])
def test_a_log_that_is_one_string_in_json_has_its_lines_back(times: int) -> None:
    text = f"INFO 01-01 00:00:00 [a.py:1] a\nb\nc\nd\nLoading safetensors checkpoint shards:   0%\n{OOM}\n"
    for _ in range(times):
        text = json.dumps({"log": text}, separators=(",", ":"))
    assert named(text) == ["oom-weights"]
    assert named(text.replace(":", ": ", 1)) == ["oom-weights"]


def test_line_numbers_and_secrets() -> None:
    text = f"one\ntwo\nERROR: token=hf_abcdefghijklmnop {OOM}\n"
    line = explain_text(text).findings[0].lines[0]
    assert line.number == 3
    assert "hf_abcdefghijklmnop" not in line.text


def test_nothing_recognised_shows_the_telling_lines() -> None:
    explanation = explain_text("first\nmade.up.StrangeError: odd thing\nlast\n")
    assert explanation.findings == ()
    assert [(line.number, line.text) for line in explanation.telling] == [(2, "made.up.StrangeError: odd thing")]


def test_an_environment_report_is_judged_with_the_text() -> None:
    report = (
        "Collecting environment information...\nPyTorch version: 2.6.0+cu124\nIs CUDA available: True\n"
        "CUDA used to build PyTorch: 12.4\nNvidia driver version: 550.54\n"
    )
    explanation = explain_text(report + OOM)
    assert explanation.snapshot is not None
    assert explanation.findings[0].finding.cause == "oom-weights"


def test_the_cause_is_found_behind_megabytes_of_other_lines() -> None:
    near_misses = "ERROR 02-06 16:34:06 [x.py:1] request failed with error number {0}\n"
    noise = "".join(near_misses.format(number) for number in range(NOISY_LINES))
    text = noise + "ValueError: Total number of attention heads (12) must be divisible by tensor parallel size (8).\n"
    explanation = explain_stream(io.BytesIO(text.encode()))
    assert explanation.findings[0].finding.cause == "tp-divisibility"
    assert explanation.findings[0].lines[0].number == NOISY_LINES + 1


@given(st.integers(1, 200), st.integers(0, 3000))
@settings(max_examples=40, deadline=None)
def test_blocks_of_any_size_give_the_same(size: int, padding: int) -> None:
    from vllm_doctor.triage.explain import Reading

    text = (b"x" * padding + b"\n" + OOM.encode() + b"\n") * 2
    reading = Reading()
    for start in range(0, len(text), size):
        reading.feed(text[start : start + size])
    got = reading.explanation()
    assert [f.lines for f in got.findings] == [f.lines for f in explain_text(text).findings]


def test_a_last_line_that_nothing_ends_goes_on_from_the_lines_before() -> None:
    text = 'File "vllm/config.py", line 62\n    rope_scaling["type"]\nKeyError: \'type\''
    with_end, without = (explain_text(t).findings for t in (text + "\n", text))
    assert with_end[0].finding.cause == "transformers-mismatch"
    assert with_end == without


@given(st.binary(max_size=3000))
@settings(deadline=None)
def test_any_bytes_are_explained(data: bytes) -> None:
    explain_text(data)


@given(st.lists(st.binary(max_size=200_000).map(lambda b: b.replace(b"x", b"\n")), max_size=5))
@settings(max_examples=20, deadline=None)
def test_telling_lines_carry_their_numbers(blocks: list[bytes]) -> None:
    telling = Telling()
    text = b"".join([*blocks, b"\nmade.StrangeError: q"])
    for block in [*blocks, b"\nmade.StrangeError: q"]:
        telling.feed(block)
    assert telling.lines()[-1][0] == text.count(b"\n") + 1


def test_a_variable_that_is_not_known_explains_no_dead_engine() -> None:
    warned = "WARNING 11-22 17:38:37 [envs.py:100] Unknown vLLM environment variable detected: VLLM_FOO\n"
    died = "(APIServer pid=1) vllm.v1.engine.exceptions.EngineDeadError: EngineCore encountered an issue.\n"
    assert [each.finding.cause for each in explain_text(warned).findings] == ["bad-env-var"]
    assert [each.finding.cause for each in explain_text(warned + died).findings] == ["engine-dead"]


def test_one_line_tells_of_one_fault() -> None:
    parser = "KeyError: 'invalid tool call parser: hermes2 (chose from { apertus,hermes })'"
    length = (
        "  Value error, User-specified max_model_len (8192) is greater than the derived max_model_len "
        "(max_position_embeddings=4096.0 or model_max_length=None in model's config.json). To allow overriding this "
        "maximum, set the env var VLLM_ALLOW_LONG_MAX_MODEL_LEN=1. [type=value_error, input_value=ArgsKwargs((), {})]"
    )
    assert named(parser) == ["bad-flag"]
    assert named(length) == ["max-len-over-model"]
    both = named(f"{length}\nOSError: [Errno 98] Address already in use")
    assert sorted(both) == ["max-len-over-model", "port-in-use"]


@pytest.mark.parametrize(
    ("line", "fixes"),
    [
        (
            "vllm: error: unrecognized arguments: --max-num-batches 8",
            [
                "Write --max-num-batched-tokens (tokens per step), or --max-num-seqs (sequences per step)",
                "Or leave --max-num-batches out",
            ],
        ),
        (
            "vllm: error: unrecognized arguments: --omni",
            ["Drop --omni, or spell it as `vllm serve --help=all` does"],
        ),
        (
            "vllm serve: error: argument --max-model-len: invalid human_readable_int_or_auto value: 'lots'",
            ["Give --max-model-len a value that `vllm serve --help=all` describes"],
        ),
        (
            "KeyError: 'invalid tool call parser: hermes2 (chose from { apertus,hermes })'",
            ["Give the flag a value that `vllm serve --help=all` lists"],
        ),
    ],
)
def test_a_fix_says_what_it_is_about_and_says_it_once(line: str, fixes: list[str]) -> None:
    assert [f.title for f in explain_text(line).findings[0].finding.fixes] == fixes


def test_memory_that_runs_out_has_another_remedy_at_every_stage() -> None:
    out = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 594.00 MiB."
    remedies = {}
    frame = '  File "vllm/v1/worker/gpu_model_runner.py", line 2, in '
    for before in (
        f"{frame}profile_run",
        f"{frame}capture_model",
        f"{frame}load_weights",
        "Application startup complete.",
    ):
        text = f"{before}\n{out}"
        finding = explain_text(text).findings[0].finding
        remedies[finding.cause] = finding.fixes[0].title
    assert remedies == {
        "oom-activation": "Let a step hold fewer sequences and tokens",
        "oom-cudagraph": "Leave more memory to the graphs, which are captured behind the KV cache",
        "oom-weights": "A quantized checkpoint, more GPUs (--tensor-parallel-size), or a smaller model; "
        "`vllm-doctor plan MODEL` computes what fits",
        "oom-serving": "Leave more memory free",
    }


def test_what_the_release_of_the_text_has_is_not_said_to_come_later() -> None:
    refused = "vllm: error: unrecognized arguments: --attention-backend FLASH_ATTN"
    older, newer = (f"INFO [api_server.py:1] vLLM API server version {v}\n{refused}" for v in ("0.9.1", "0.32.0"))
    assert "older than" in explain_text(refused).findings[0].finding.title
    assert "older than" in explain_text(older).findings[0].finding.title
    assert "older than" not in explain_text(newer).findings[0].finding.title


def test_the_parser_of_tools_is_the_one_of_the_model_in_the_text() -> None:
    refused = '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set'
    parsers = {}
    for model in ("meta-llama/Llama-3.1-8B-Instruct", "mistralai/Mistral-7B-Instruct-v0.3", "acme/own-model"):
        fix = explain_text(f"$ vllm serve {model}\n{refused}").findings[0].finding.fixes[0]
        parsers[model.partition("/")[0]] = fix.launch and fix.launch.set["--tool-call-parser"]
    assert parsers == {"meta-llama": "llama3_json", "mistralai": "mistral", "acme": "PARSER"}


def test_a_field_of_the_request_is_named_by_its_path() -> None:
    text = (
        "[{'type': 'extra_forbidden', 'loc': ('body', 'messages', 2, 'typed-dict', 'refusal'), 'msg': 'Extra inputs'}]"
    )
    assert "messages[2].refusal" in explain_text(text).findings[0].finding.title


def test_what_a_prompt_leaves_is_computed() -> None:
    text = (
        "This model's maximum context length is 6048 tokens. However, you requested 6616 tokens "
        "(568 in the messages, 6048 in the completion). Please reduce the length of the messages or completion."
    )
    fixes = explain_text(text).findings[0].finding.fixes
    assert fixes[0].settings == {"max_tokens": "5480"}
    full = text.replace("568 in", "6600 in")
    assert all(fix.settings is None for fix in explain_text(full).findings[0].finding.fixes)
