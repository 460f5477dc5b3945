"""What comes out of a text is safe to show, whatever the text is: no secret, no escape, and an end."""

import io

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vllm_doctor.triage import embedded, explain_stream
from vllm_doctor.triage.explain import Explanation, Reading
from vllm_doctor.triage.matcher import BLOCK_BYTES
from vllm_doctor.triage.signature import book

SECRET = "hf_QwErTyUiOpAsDfGhJkLzXcVbNm12345678"
OOM = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.00 GiB."

LINES = st.sampled_from([line for s in book().values() for line in s.match])
MANY = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])


def shown(explanation: Explanation) -> str:
    """All that a report may print."""
    parts = [str(f.finding) + " ".join(line.text for line in f.lines) for f in explanation.findings]
    return "\n".join([*parts, *(line.text for line in explanation.telling)])


def read(data: bytes, *sizes: int) -> Explanation:
    """The text in blocks of these sizes, and the rest."""
    reading, start = Reading(), 0
    for size in sizes:
        reading.feed(data[start : start + size])
        start += size
    reading.feed(data[start:])
    return reading.explanation()


@MANY
@given(
    st.sampled_from([" {0} ", " token={0} ", " --api-key {0} ", " Authorization: Bearer {0} ", " password: {0} "]),
    st.integers(0, 3000),
    st.integers(0, 3000),
    st.integers(-60, 60),
    st.sampled_from(["x", "word ", "\\n", ""]),
)
def test_a_secret_near_a_cut_is_not_shown(form: str, before: int, between: int, shift: int, filling: str) -> None:
    head = ("a" * 40 + "\n") + (filling or "y ") * before
    text = (head + form.format(SECRET) + (filling or "y ") * between + OOM + " " + form.format(SECRET)).encode()
    size = max(1, text.index(SECRET.encode()) + shift)
    for explanation in (read(text), read(text, size)):
        for start in range(len(SECRET) - 12):
            assert SECRET[start : start + 12] not in shown(explanation)


@pytest.mark.parametrize("shift", range(-60, 40, 7))
@pytest.mark.parametrize("between", [0, 30, 200, 600])
def test_a_secret_at_the_border_of_a_block_is_not_shown(shift: int, between: int) -> None:
    secret = f"token={SECRET} " + "z " * between
    text = b"x" * (BLOCK_BYTES + shift) + f" {secret}{OOM} made.StrangeError: {SECRET}".encode()
    explanation = explain_stream(io.BytesIO(text))
    assert explanation.findings
    assert all(SECRET[start : start + 12] not in shown(explanation) for start in range(len(SECRET) - 12))


@pytest.mark.parametrize("shift", range(-50, 10, 3))
def test_a_secret_at_the_border_of_the_tail_is_not_shown(shift: int) -> None:
    end = f"token={SECRET} made up error".encode()
    text = b"first line\n" + b"x " * 40_000 + end + b" y" * ((65_536 - len(end) + shift) // 2)
    assert SECRET[10:22] not in shown(explain_stream(io.BytesIO(text)))


@MANY
@given(
    st.lists(st.one_of(LINES.map(str.encode), st.binary(max_size=60)), max_size=12),
    st.sampled_from([b"\n", b"\r\n", b"\r", b"\0", b" ", b"\x1b[31m", b"\x1b]0;title\x07", b"\x9b31m", b"\x1bP", b""]),
)
def test_no_escape_is_shown(parts: list[bytes], between: bytes) -> None:
    text = shown(read(between.join(parts) + between + OOM.encode()))
    assert not any(ord(c) < 32 and c not in "\n\t" for c in text)
    assert not any(127 <= ord(c) < 160 for c in text)


@MANY
@given(st.lists(LINES, min_size=1, max_size=8), st.lists(st.integers(1, 400), max_size=6))
def test_blocks_of_any_sizes_say_the_same(lines: list[str], sizes: list[int]) -> None:
    data = "\n".join(lines).encode() + b"\n"
    whole, parts = read(data), read(data, *sizes)
    causes = [[f.finding.cause for f in explanation.findings] for explanation in (whole, parts)]
    assert causes[0][:1] == causes[1][:1]


PIECES = st.sampled_from(
    [
        *(b"vllm serve ", b"docker run ", b"python -m vllm.entrypoints.openai.api_server ", b"--model x ", b"'", b'"'),
        *(
            b"\\\n",
            b"$(rm -rf /) ",
            b"`x` ",
            b"\n",
            b"\0",
            b"$ ",
            b"user@host$ ",
            b"A=b ",
            b"{{",
            b"\xff",
            b"| ",
            b"; ",
        ),
        *(
            b"--tensor-parallel-size 3 ",
            b"PyTorch version: ",
            b"Nvidia driver version: ",
            b"CUDA used to build PyTorch: ",
        ),
        *(b"GPU models and configuration: \n", b"==", b": ", b"9" * 50, b"INFO ", b"x" * 300, b"&& "),
    ]
)


@MANY
@given(st.lists(PIECES | st.binary(max_size=20), max_size=60))
def test_any_launch_and_report_is_judged(parts: list[bytes]) -> None:
    _, findings = embedded.judge(b"".join(parts))
    assert all("\x1b" not in str(finding) for finding in findings)


@pytest.mark.parametrize(
    "piece", ["vllm serve ", "docker run --gpus all ", "$ vllm serve m '", "vllm serve m \\\n", "A=b "]
)
def test_very_many_launches_end(piece: str) -> None:
    embedded.judge((piece * 60_000).encode())
    embedded.judge((f"{piece}\n" * 60_000).encode())
