"""Streams that are closed or full, folders that are gone, names that are no text: one line, never a traceback."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.calling import HEALTHY, ROOT

FORMATS = ("text", "json", "junit", "github", "html", "markdown")


def shell(line: str, **variables: str) -> subprocess.CompletedProcess[bytes]:
    """The finished shell that ran the line, in which $DOCTOR is the command and $FILE a healthy snapshot."""
    given = {"DOCTOR": f"{sys.executable} -m vllm_doctor", "FILE": str(HEALTHY), **variables}
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'checks'}", "HF_HUB_OFFLINE": "1", **given}
    return subprocess.run(["sh", "-c", line], env=environment, capture_output=True, timeout=60, check=False)


def told(done: subprocess.CompletedProcess[bytes]) -> str:
    """What the caller saw on both streams; fails where it is a traceback or an internal error."""
    shown = (done.stdout + done.stderr).decode("utf-8", "replace")
    assert "Traceback" not in shown
    assert "internal error" not in shown
    assert "Exception ignored" not in shown
    return shown


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
@pytest.mark.parametrize(
    "line",
    [
        "$DOCTOR run --snapshot $FILE >/dev/full",
        "$DOCTOR run --snapshot $FILE --format json >/dev/full",
        "$DOCTOR run --snapshot $FILE --format json -o /dev/full",
        "$DOCTOR checks >/dev/full",
        "$DOCTOR --help >/dev/full",
        "$DOCTOR --version >/dev/full",
        "GITHUB_STEP_SUMMARY=/dev/full $DOCTOR run --snapshot $FILE --format github",
    ],
)
def test_a_full_device_is_one_line(line: str) -> None:
    done = shell(line)
    assert done.returncode == 2
    assert told(done).splitlines()[-1].startswith("vllm-doctor: error: ")


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("$DOCTOR run --snapshot $FILE >&-", 0),
        ("$DOCTOR run --snapshot $FILE --format json >&- 2>&-", 0),
        ("$DOCTOR run --snapshot $FILE <&- >&- 2>&-", 0),
        ("$DOCTOR run --nonsense 2>&-", 2),
        ("$DOCTOR run --snapshot $FILE | head -c 1; exit $?", 0),
    ],
)
def test_a_closed_stream_changes_no_exit_code(line: str, code: int) -> None:
    done = shell(line)
    told(done)
    assert done.returncode == code


def test_a_report_goes_to_its_file_and_nothing_else_does_where_the_streams_are_closed(tmp_path: Path) -> None:
    done = shell("$DOCTOR run --snapshot $FILE --format json -o $OUT <&- >&- 2>&-", OUT=str(tmp_path / "out.json"))
    assert done.returncode == 0
    assert (tmp_path / "out.json").read_bytes().startswith(b'{\n  "schema"')


@pytest.mark.parametrize("name", FORMATS)
def test_an_encoding_that_cannot_hold_the_report_is_no_obstacle(name: str) -> None:
    line = f"$DOCTOR run --snapshot $FILE --format {name} -- vllm serve 'm\xe9\U0001f600' --n\xf4-such-flag"
    done = shell(line, PYTHONIOENCODING="latin-1", LC_ALL="C.UTF-8")
    told(done)
    assert done.returncode == 1
    if name != "text":
        done.stdout.decode("utf-8")


def test_a_working_folder_that_is_gone_is_one_line(tmp_path: Path) -> None:
    done = shell('mkdir "$D" && cd "$D" && rmdir "$D" && $DOCTOR run --snapshot $FILE', D=str(tmp_path / "gone"))
    assert done.returncode == 2
    assert "the working folder is not there any more" in told(done)


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ((b"run", b"--snapshot", b"a\xffb"), 2),
        ((b"run", b"--python", b"a\xffb"), 2),
        ((b"run", b"--python", b"~nobody-such/bin"), 2),
        ((b"run", b"--select", b"a\xff\x1b[31mb"), 2),
        ((b"run", b"--timeout", b"nan"), 2),
        ((b"run", b"--url", b"http://a\xffb/"), 2),
        ((b"explain", b"\xff"), 2),
        ((b"checks", b"\x1b]0;x\x07"), 2),
        ((b"run", b"--", b"vllm", b"serve", b"a\xffb", b"--served-model-name", b"\xe9\n::error::x"), 1),
        ((b"run", b"--", b"vllm", b"serve", b"a" * 100_000), 1),
        ((b"run", b"--", b"vllm", b"serve", b"m", b"--max-model-len", b"9" * 5000), 1),
        ((b"run", b"--", b"vllm", b"serve", b"~nobody-such/x", b"--config", b"~nobody-such/x.yaml"), 1),
    ],
)
def test_arguments_of_any_bytes_are_taken_or_refused(words: tuple[bytes, ...], code: int) -> None:
    environment = {**os.environb, b"PYTHONPATH": f"{ROOT}:{ROOT / 'checks'}".encode(), b"HF_HOME": b"~nobody-such/\xff"}
    argv = [sys.executable.encode(), b"-m", b"vllm_doctor", *words]
    done = subprocess.run(argv, env={**environment, b"HF_HUB_OFFLINE": b"1"}, capture_output=True, timeout=60)
    assert "\x1b" not in told(done)
    assert done.returncode == code, done.stderr


@pytest.mark.parametrize("variables", [{}, {"HOME": ""}, {"HOME": "relative", "PATH": ""}, {"PATH": "/x" * 3000}])
def test_a_poor_environment_is_enough(variables: dict[str, str]) -> None:
    environment = {"PYTHONPATH": f"{ROOT}:{ROOT / 'checks'}", "HF_HUB_OFFLINE": "1", **variables}
    argv = [sys.executable, "-m", "vllm_doctor", "run", "--", "vllm", "serve", "org/name"]
    done = subprocess.run(argv, env=environment, capture_output=True, timeout=60, check=False)
    told(done)
    assert done.returncode == 1
