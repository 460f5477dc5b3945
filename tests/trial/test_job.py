"""A job is started as it was told, and nothing of it is left, however its processes behave."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.trial.jobs import free_port, living, noted, segments, started, until
from vllm_doctor.errors import LaunchError
from vllm_doctor.trial.guardian import ours
from vllm_doctor.trial.guardian.main import SERVING_GRACE_SECONDS
from vllm_doctor.trial.job import MARKER, Job, start
from vllm_doctor.trial.leftovers import LeftBehind

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the process table is read from /proc")

NOTHING = LeftBehind()


def clean(job: Job, left: LeftBehind) -> None:
    """Nothing is left, the doctor says so, and its own helpers are gone, too."""
    assert left.nothing, left
    assert not Path(job.folder).exists()
    assert ours.read(job.guardian_pid) is None


def test_a_server_that_ends_when_it_is_asked_to(tmp_path: Path) -> None:
    job = started(tmp_path, "child", "serve", "stay")
    processes = noted(tmp_path, 2)
    left = job.stop()
    clean(job, left)
    assert left.what == ("1 process did not end by itself and was killed",)
    assert job.exit_code() == -signal.SIGTERM
    assert living(processes) == []
    assert job.stop() is left


def test_words_variables_and_folder_arrive_as_they_were_given(tmp_path: Path) -> None:
    code = "import os, sys; print(sys.argv[1:], os.getcwd(), sorted(os.environ), os.environ['A'], flush=True)"
    words = [sys.executable, "-I", "-S", "-c", code, "", "a b", "ü\n", "$HOME"]
    with start(words, environment={"A": "x=ü y", "LC_CTYPE": "C.UTF-8"}, folder=tmp_path, port=free_port()) as job:
        until(lambda: job.exit_code() is not None)
        assert job.exit_code() == 0
    (said,) = job.output.tail()
    assert said.startswith("['', 'a b', 'ü\\n', '$HOME'] ")
    assert said.endswith(f"{tmp_path} ['A', '{MARKER}', 'LC_CTYPE', 'TMPDIR'] x=ü y")


@pytest.mark.parametrize("acts", [("deaf",), ("frozen",), ("deaf", "child", "session")], ids=str)
def test_one_that_does_not_listen_is_killed(tmp_path: Path, acts: tuple[str, ...]) -> None:
    job = started(tmp_path, *acts, "stay")
    processes = noted(tmp_path, 3 if "child" in acts else 1)
    began = time.monotonic()
    clean(job, job.stop())
    assert time.monotonic() - began < 10
    assert job.exit_code() == -signal.SIGKILL
    assert living(processes) == []


def test_children_of_other_sessions_and_orphans_without_a_marker_go_as_well(tmp_path: Path) -> None:
    job = started(tmp_path, "orphan", "session", "child", "stay")
    processes = noted(tmp_path, 4)
    assert {process.identity for process in job.processes()} == set(processes)
    assert job.processes()[0].pid == job.pid
    clean(job, job.stop())
    assert living(processes) == []


def test_what_outlives_the_server_is_still_the_jobs(tmp_path: Path) -> None:
    job = started(tmp_path, "orphan", "session", "until=go", "kill")
    processes = noted(tmp_path, 3)
    (tmp_path / "go").touch()
    until(lambda: job.exit_code() is not None)
    assert job.exit_code() == -signal.SIGKILL
    assert len(job.processes()) == 2
    clean(job, job.stop())
    assert living(processes) == []


def test_orphans_that_end_leave_no_zombie(tmp_path: Path) -> None:
    code = "import os, time\nif not os.fork():\n    os.setsid()\n    if not os.fork(): os._exit(0)\n    os._exit(0)\n" \
           "os.wait(); print('done', flush=True); time.sleep(60)"  # fmt: skip
    with start([sys.executable, "-I", "-S", "-c", code], environment={}, folder=None, port=free_port()) as job:
        said_so(job, "done")
        until(lambda: [p.pid for p in ours.everyone().values() if p.parent == job.guardian_pid] == [job.pid])


def test_the_segments_of_a_killed_server_are_removed_and_named(tmp_path: Path) -> None:
    other = Path("/dev/shm") / f"of-another-program-{os.getpid()}"
    before = Path("/dev/shm") / f"before-{os.getpid()}"
    before.write_bytes(b"x")
    try:
        job = started(tmp_path, "deaf", "segment=one", "segment=two", "socket", "note=made", "stay")
        until((tmp_path / "made").exists)
        other.write_bytes(b"x")
        made = segments(tmp_path)
        left = job.stop()
        clean(job, left)
        assert segments(tmp_path) == []
        assert {line for line in left.what if "removed" in line} == {
            f"{path}: shared memory of the server, removed" for path in made
        }
        assert other.exists()
        assert before.exists()
    finally:
        before.unlink()
        other.unlink(missing_ok=True)


def test_a_semaphore_goes_though_it_was_mapped_under_another_name(tmp_path: Path) -> None:
    name = f"pretend-{os.getpid()}"
    path = Path(f"/dev/shm/sem.{name}")
    job = started(tmp_path, "deaf", f"semaphore={name}", "note=made", "stay")
    until((tmp_path / "made").exists)
    assert path.exists()
    left = job.stop()
    clean(job, left)
    assert not path.exists()
    assert f"{path}: shared memory of the server, removed" in left.what


def test_a_segment_that_another_program_holds_is_left_to_it_and_named(tmp_path: Path) -> None:
    with started(tmp_path, "deaf", "segment=shared", "note=made", "stay") as job:
        until((tmp_path / "made").exists)
        (path,) = segments(tmp_path)
        with path.open("rb"):
            left = job.stop()
            assert left.shared_memory == (str(path),)
            assert not left.nothing
            assert path.exists()
    path.unlink()


def test_pythons_resource_tracker_is_given_time_to_clean_up(tmp_path: Path) -> None:
    with started(tmp_path, "deaf", "python-segment", "stay") as job:
        until((tmp_path / "segment-python").exists)
        left = job.stop()
    assert segments(tmp_path) == []
    assert not [line for line in left.what if "shared memory" in line]


def test_a_port_that_was_taken_before_is_no_leftover(tmp_path: Path) -> None:
    with started(tmp_path, "serve", "stay") as first:
        until(lambda: not first._before.listening and _is_open(first.port))
        with started(tmp_path, "stay", port=first.port) as second:
            assert second.stop().port_open is False
        left = first.stop()
    assert left.port_open is False


def _is_open(port: int) -> bool:
    import socket

    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.parametrize(
    ("words", "says"),
    [(["no-such-program"], "no-such-program: No such file"), (["/etc/passwd"], "/etc/passwd: Permission denied")],
)
def test_a_program_that_cannot_be_started(tmp_path: Path, words: list[str], says: str) -> None:
    with pytest.raises(LaunchError, match=says):
        start(words, environment=os.environ, folder=None, port=free_port())


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(LaunchError, match="no such folder"):
        start(["true"], environment=os.environ, folder=tmp_path / "none", port=free_port())


def test_a_temporary_folder_that_is_deep_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = tmp_path / ("d" * 80)
    deep.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(deep))
    with started(tmp_path, "socket", "note=made", "stay") as job:
        until((tmp_path / "made").exists)
        assert len(str(job.temporary)) < 60


def test_a_guardian_that_is_killed_is_replaced_by_the_doctor_itself(tmp_path: Path) -> None:
    job = started(tmp_path, "deaf", "orphan", "session", "child", "segment", "note=made", "stay")
    processes = noted(tmp_path, 4)
    until((tmp_path / "made").exists)
    os.kill(job.guardian_pid, signal.SIGKILL)
    left = job.stop()
    # The orphan had left group, session, parent and environment behind: nobody but the guardian knew it.
    orphans = living(processes)
    for pid in orphans:
        os.kill(pid, signal.SIGKILL)
    assert len(orphans) == 1
    assert left.processes == 0
    assert segments(tmp_path) == []
    assert not Path(job.folder).exists()
    assert job.exit_code() == -signal.SIGKILL


def test_a_guardian_that_hangs_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vllm_doctor.trial.job.STOP_SECONDS", 2.0)
    job = started(tmp_path, "session", "segment", "note=made", "stay")
    processes = noted(tmp_path, 2)
    until((tmp_path / "made").exists)
    os.kill(job.guardian_pid, signal.SIGSTOP)
    assert job.stop().nothing
    assert living(processes) == []
    assert segments(tmp_path) == []


def test_the_guardian_outlives_pkill_by_the_name_of_vllm(tmp_path: Path) -> None:
    with started(tmp_path, "stay") as job:
        words = Path(f"/proc/{job.guardian_pid}/cmdline").read_bytes().split(b"\0")[1:]
        assert not [word for word in words if b"vllm" in word.lower() or b"doctor" in word.lower()]
        os.kill(job.guardian_pid, signal.SIGTERM)
        os.kill(job.guardian_pid, signal.SIGINT)
        os.kill(job.guardian_pid, signal.SIGHUP)
        assert job.exit_code() is None
    assert ours.read(job.guardian_pid) is None


def test_the_guardian_knows_nothing_of_the_doctors_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_of_the_doctor_0123456789")
    with started(tmp_path, "stay") as job:
        assert b"HF_TOKEN" not in Path(f"/proc/{job.guardian_pid}/environ").read_bytes()


def test_elsewhere_than_on_linux_it_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vllm_doctor.trial.guardian.ours.read", lambda _pid: None)
    with pytest.raises(LaunchError, match="only started where /proc"):
        started(tmp_path, "stay")


def test_kill_now_asks_nobody(tmp_path: Path) -> None:
    job = started(tmp_path, "deaf", "stay")
    noted(tmp_path, 1)
    job.is_ready()
    began = time.monotonic()
    clean(job, job.kill_now())
    assert time.monotonic() - began < SERVING_GRACE_SECONDS - 5


def test_a_second_signal_hastens_the_end_and_is_told_afterwards(tmp_path: Path) -> None:
    job = started(tmp_path, "deaf", "stay")
    processes = noted(tmp_path, 1)
    job.is_ready()
    timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        job.stop()
    assert time.monotonic() - began < 5
    assert living(processes) == []
    assert job.stop().nothing


def test_a_hurry_that_comes_in_one_read_with_the_order_to_stop_is_heard(tmp_path: Path) -> None:
    code = "import os, signal, time\nsignal.signal(signal.SIGTERM, lambda *_: os._exit(0))\n" \
           "print('on', flush=True)\ntime.sleep(60)"  # fmt: skip
    job = start([sys.executable, "-I", "-S", "-c", code], environment={}, folder=None, port=free_port())
    said_so(job, "on")
    os.kill(job.guardian_pid, signal.SIGSTOP)
    for seconds, pid, number in ((0.3, os.getpid(), signal.SIGINT), (1.0, job.guardian_pid, signal.SIGCONT)):
        threading.Timer(seconds, os.kill, (pid, number)).start()
    with pytest.raises(KeyboardInterrupt):
        job.stop()
    assert job.exit_code() == -signal.SIGKILL


def test_a_server_that_serves_is_given_time_to_end_in_order(tmp_path: Path) -> None:
    code = "import os, signal, time\nsignal.signal(signal.SIGTERM, lambda *_: (time.sleep(4), os._exit(0)))\n" \
           "print('on', flush=True)\ntime.sleep(60)"  # fmt: skip
    for ready, code_of_exit in ((True, 0), (False, -signal.SIGKILL)):
        with start([sys.executable, "-I", "-S", "-c", code], environment={}, folder=None, port=free_port()) as job:
            said_so(job, "on")
            if ready:
                job.is_ready()
            job.stop()
        assert job.exit_code() == code_of_exit


def said_so(job: Job, line: str) -> None:
    """Wait until the server has said it."""
    until(lambda: job.output.look() and line in job.output.tail())


def test_a_job_of_another_job_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    with started(tmp_path / "a", "orphan", "stay") as first, started(tmp_path / "b", "orphan", "stay") as second:
        others = noted(tmp_path / "b", 2)
        noted(tmp_path / "a", 2)
        assert first.stop().nothing
        assert len(living(others)) == 2
        assert second.exit_code() is None


def test_the_session_of_a_leader_that_was_reaped_is_known_by_when_it_was_seen() -> None:
    code = "import os, time\nif not os.fork(): print(os.getpid(), flush=True); time.sleep(60)"
    argv = [sys.executable, "-I", "-S", "-c", code]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, start_new_session=True) as leader:
        assert leader.stdout is not None
        child = int(leader.stdout.readline())
        leader.wait()
        seen = ours.now_ticks()
        long_ago = seen - 60 * os.sysconf("SC_CLK_TCK")
        assert [p.pid for p in ours.of_job(leader.pid, leader.pid, b"no=marker", seen)] == [child]
        assert ours.of_job(leader.pid, leader.pid, b"no=marker", long_ago) == []
        os.kill(child, signal.SIGKILL)


def test_no_number_is_signalled_that_another_process_has_by_now() -> None:
    me = ours.read(os.getpid())
    assert me is not None
    older = ours.Process(me.pid, me.name, me.state, me.parent, me.group, me.session, me.started - 1)
    assert not ours.send(older, signal.SIGKILL)
    assert not ours.send(ours.Process(1, "init", "S", 0, 1, 1, 0), signal.SIGKILL)
    assert not ours.send(ours.Process(0, "", "S", 0, 0, 0, 0), signal.SIGKILL)
