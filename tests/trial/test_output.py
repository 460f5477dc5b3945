"""A log is read in bounded pieces whatever it holds, and processes are read whatever they call themselves."""

import ctypes
import os
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllm_doctor.trial.guardian import folder, ours
from vllm_doctor.trial.output import HEAD_BYTES, LOOK_BYTES, TAIL_BYTES, Output

SHARD = b"Loading safetensors checkpoint shards:  %d%% Completed | %d/17 [00:01<00:01,  1.00it/s]\n"
GRAPH = b"\rCapturing CUDA graphs (mixed prefill-decode, PIECEWISE): %3d%%|%s| %d/67 [00:05<00:07,  6.5it/s]"


def output(path: Path) -> Output:
    return Output(path, lambda: None)


@given(st.lists(st.binary(max_size=300), max_size=6))
def test_any_bytes_in_any_pieces(pieces: list[bytes]) -> None:
    with tempfile.TemporaryDirectory() as where:
        path = Path(where) / "log"
        read = output(path)
        for piece in pieces:
            with path.open("ab") as file:
                file.write(piece)
            read.look()
        read.stages()
        assert all(line and "\x1b" not in line and "\n" not in line for line in read.tail())
        assert read.explanation().lines >= 0


def test_a_log_that_is_not_there_yet(tmp_path: Path) -> None:
    read = output(tmp_path / "none")
    assert (read.look(), read.tail(), read.stages(), read.counter) == (0, (), [], "")
    assert read.explanation().findings == ()


def test_the_counter_is_that_of_the_last_line(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(SHARD % (0, 0) + SHARD % (11, 2))
    read = output(path)
    read.look()
    assert read.counter == "2/17"
    with path.open("ab") as file:
        file.write(GRAPH % (3, b"3   ", 2) + GRAPH % (42, b"####", 28))
    read.look()
    assert read.counter == "28/67"


def test_one_look_is_bounded_and_what_is_kept_is_too(tmp_path: Path) -> None:
    path = tmp_path / "log"
    line = b"y" * 127 + b"\n"
    path.write_bytes(line * (4 * HEAD_BYTES // len(line)) + b"the last line")
    read = output(path)
    assert read.look() <= LOOK_BYTES + 65_536
    assert read.tail(1) == ("the last line",)
    assert len(read.beginning()) == HEAD_BYTES
    assert len(read._tail) <= TAIL_BYTES


def test_a_log_that_was_cut_is_read_to_its_new_end(tmp_path: Path) -> None:
    cuts = [0]
    folder.make(str(tmp_path / "job"))
    log = folder.open_log(str(tmp_path / "job"))
    read = Output(Path(folder.log(str(tmp_path / "job"))), lambda: cuts[0])
    for _ in range(folder.LOG_BYTES // 2**20 + 1):
        os.write(log, (b"z" * 1023 + b"\n") * 1024)
    read.finish()
    os.write(log, b"vllm: error: unrecognized arguments: --x 3\n")
    assert folder.cut(log)
    cuts[0] += 1
    os.write(log, b"after the cut\n")
    assert read.tail(2) == ("vllm: error: unrecognized arguments: --x 3", "after the cut")
    assert [found.finding.cause for found in read.explanation().findings] == ["bad-flag"]
    assert not folder.cut(log)
    os.close(log)
    assert read.path.stat().st_size < folder.LOG_HEAD_BYTES + 2 * folder.LOG_TAIL_BYTES


def test_half_a_secret_at_the_edge_of_what_is_kept_is_not_shown(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"--api-key " + b"s" * TAIL_BYTES + b"\nend\n")
    assert output(path).tail() == ("end",)


def test_a_folder_goes_with_everything_in_it_and_nothing_else(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").write_text("x")
    job = tmp_path / "job"
    folder.make(str(job))
    (job / "t" / "deep" / "er").mkdir(parents=True)
    (job / "t" / "link").symlink_to(kept)
    (job / "t" / "deep" / "file-link").symlink_to(kept / "file")
    (job / "t" / "deep" / "dangling").symlink_to("nowhere")
    folder.remove(str(job))
    assert not job.exists()
    assert (kept / "file").read_text() == "x"


def test_a_folder_that_is_anothers_is_not_taken(tmp_path: Path) -> None:
    (tmp_path / "job").mkdir()
    with pytest.raises(FileExistsError):
        folder.make(str(tmp_path / "job"))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the process table is read from /proc")
@pytest.mark.parametrize("name", [b") R 1 1 1 (", b"a b\nc", b"\xff\xfe", b"((("])
def test_a_process_may_call_itself_anything(name: bytes) -> None:
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        ctypes.CDLL(None).prctl(15, name, 0, 0, 0)
        os.write(writing, b"x")
        os.read(reading, 0)
        ctypes.CDLL(None).pause()
    os.read(reading, 1)
    found = ours.read(pid)
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    os.close(reading)
    os.close(writing)
    assert found is not None
    assert (found.parent, found.name) == (os.getpid(), name.decode("utf-8", "replace"))
