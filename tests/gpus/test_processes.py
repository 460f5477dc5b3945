"""Who holds the memory: real process trees, and /proc folders as other machines show them."""

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.gpus.probing import gpus
from vllm_doctor.facts import GpuProcess, ProcessRole, Unknown
from vllm_doctor.probes import gpu_processes

BASH = shutil.which("bash")
GIB = 2**30


class Tree:
    """A process tree as `vllm serve -tp 2` makes it: the server, VLLM::EngineCore, VLLM::Worker_TP0, in one session."""

    def __init__(self, folder: Path) -> None:
        script = folder / "vllm"
        script.write_text(
            "(exec -a 'VLLM::EngineCore' bash -c \"(exec -a 'VLLM::Worker_TP0' sleep 300) & wait\") &\nwait\n",
            encoding="utf-8",
        )
        self.leader = subprocess.Popen(["bash", str(script), "serve", "model"], start_new_session=True)
        self.core = self._find("VLLM::EngineCore")
        self.worker = self._find("VLLM::Worker_TP0")

    def _find(self, title: str) -> int:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            for entry in Path("/proc").iterdir():
                process = gpu_processes.read(int(entry.name)) if entry.name.isdecimal() else None
                if process and process.session == self.leader.pid and process.title.startswith(title):
                    return process.pid
            time.sleep(0.05)
        raise AssertionError(f"{title} did not start")

    def orphan(self) -> None:
        self.leader.kill()
        self.leader.wait()

    def end(self) -> None:
        for pid in (self.worker, self.core, self.leader.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.leader.wait()


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Tree]:
    if BASH is None or not Path("/proc/self/stat").exists():
        pytest.skip("needs bash and /proc")
    made = Tree(tmp_path)
    yield made
    made.end()


def described(pid: int) -> GpuProcess:
    return gpu_processes.describe(pid, GIB)


def test_a_server_at_work(tree: Tree) -> None:
    assert described(tree.leader.pid).role is ProcessRole.VLLM_SERVER
    assert described(tree.core).role is ProcessRole.VLLM_WORKER
    worker = described(tree.worker)
    assert worker.role is ProcessRole.VLLM_WORKER
    assert (worker.parent_pid, worker.visible, worker.used_bytes) == (tree.core, True, GIB)
    assert isinstance(worker.command, str)
    assert worker.command.startswith("VLLM::Worker_TP0")
    assert isinstance(worker.age_seconds, float)
    assert 0 <= worker.age_seconds < 60


def test_the_server_is_killed_and_its_children_are_orphans(tree: Tree) -> None:
    tree.orphan()
    core, worker = described(tree.core), described(tree.worker)
    assert core.role is ProcessRole.VLLM_ORPHAN
    # Its parent, the engine core, lives; the one above is gone.
    assert (worker.role, worker.parent_pid) == (ProcessRole.VLLM_ORPHAN, tree.core)


def test_the_whole_probe_finds_the_orphan(tree: Tree) -> None:
    tree.orphan()
    [gpu] = gpus("stray", orphan=tree.worker, other=os.getppid(), foreign=2**30).devices
    assert not isinstance(gpu.processes, Unknown)
    roles = {p.pid: p.role for p in gpu.processes}
    assert roles[tree.worker] is ProcessRole.VLLM_ORPHAN
    foreign = next(p for p in gpu.processes if p.pid == 2**30)
    assert (foreign.visible, foreign.used_bytes) == (False, 2000 * 2**20)
    assert isinstance(foreign.user, Unknown)


def test_the_doctor_knows_itself() -> None:
    assert described(os.getpid()).role is ProcessRole.DOCTOR


def test_a_process_that_ended_is_not_visible() -> None:
    child = subprocess.Popen(["true"])
    child.wait()
    assert described(child.pid).visible is False


class FakeProc:
    """A /proc as another machine shows it."""

    def __init__(self, folder: Path, namespace: str = "pid:[4026531836]") -> None:
        self.folder = folder
        (folder / "self" / "ns").mkdir(parents=True)
        (folder / "self" / "ns" / "pid").symlink_to(namespace)

    def add(
        self, pid: int, command: str, *, parent: int, session: int = 50, program: str = "/usr/bin/python3.12"
    ) -> None:
        home = self.folder / str(pid)
        home.mkdir()
        name = command.split()[0].rsplit("/", 1)[-1][:15]
        rest = " ".join(["S", str(parent), "1", str(session), *["0"] * 15, "12345", *["0"] * 30])
        (home / "stat").write_text(f"{pid} ({name}) {rest}\n", encoding="utf-8")
        (home / "cmdline").write_text("\0".join(command.split()) + "\0", encoding="utf-8")
        (home / "cgroup").write_text("0::/\n", encoding="utf-8")
        (home / "exe").symlink_to(program)

    def role(self, pid: int) -> ProcessRole:
        return gpu_processes.describe(pid, GIB, self.folder).role


@pytest.fixture
def proc(tmp_path: Path) -> FakeProc:
    return FakeProc(tmp_path / "proc")


def test_a_program_that_embeds_vllm_is_a_living_parent(proc: FakeProc) -> None:
    proc.add(900, "python train.py", parent=800)
    proc.add(901, "VLLM::EngineCore", parent=900)
    assert proc.role(901) is ProcessRole.VLLM_WORKER
    assert proc.role(900) is ProcessRole.OTHER


def test_in_a_container_the_server_itself_is_pid_1(proc: FakeProc) -> None:
    proc.add(1, "/usr/bin/python3 /usr/local/bin/vllm serve model", parent=0)
    proc.add(70, "VLLM::EngineCore", parent=1)
    assert proc.role(70) is ProcessRole.VLLM_WORKER


def test_in_a_container_an_embedding_program_may_be_pid_1(proc: FakeProc) -> None:
    proc.add(1, "python app.py", parent=0)
    proc.add(70, "VLLM::EngineCore", parent=1)
    assert proc.role(70) is ProcessRole.VLLM_WORKER


@pytest.mark.parametrize("reaper", ["tini -- bash", "/usr/lib/systemd/systemd --user", "sleep infinity"])
def test_adopted_by_a_reaper(proc: FakeProc, reaper: str) -> None:
    proc.add(60, reaper, parent=0, program=f"/usr/bin/{reaper.split()[0].rsplit('/', 1)[-1]}")
    proc.add(70, "VLLM::EngineCore", parent=60)
    assert proc.role(70) is ProcessRole.VLLM_ORPHAN


def test_adopted_by_a_python_of_another_session(proc: FakeProc) -> None:
    proc.add(60, "python supervisor.py", parent=0, session=60)
    proc.add(70, "VLLM::EngineCore", parent=60, session=65)
    assert proc.role(70) is ProcessRole.VLLM_ORPHAN


def test_a_ray_worker_below_raylet_is_no_orphan(proc: FakeProc) -> None:
    proc.add(60, "/opt/ray/raylet --store", parent=1, program="/opt/ray/raylet")
    proc.add(70, "ray::RayWorkerWrapper.execute_method", parent=60)
    assert proc.role(70) is ProcessRole.VLLM_WORKER


def test_a_parent_outside_of_the_namespace_is_alive(proc: FakeProc) -> None:
    proc.add(70, "VLLM::EngineCore", parent=0)
    assert proc.role(70) is ProcessRole.VLLM_WORKER


def test_a_spawned_child_of_an_old_vllm(proc: FakeProc) -> None:
    spawned = "/opt/venv/bin/python -c from_multiprocessing.spawn_import_spawn_main --multiprocessing-fork"
    proc.add(1, "/sbin/init", parent=0, program="/usr/lib/systemd/systemd")
    proc.add(70, spawned, parent=1)
    proc.add(71, spawned, parent=1)
    (proc.folder / "70" / "maps").write_text("7f00-7f01 r-xp 0 0:0 1 /opt/venv/site-packages/vllm/_C.abi3.so\n")
    assert proc.role(70) is ProcessRole.VLLM_ORPHAN
    assert proc.role(71) is ProcessRole.OTHER


@pytest.mark.parametrize(
    "command",
    [
        "/opt/venv/bin/python /opt/venv/bin/vllm serve model",
        "python3 -m vllm.entrypoints.openai.api_server --model m",
        "VLLM::APIServer_0",
    ],
)
def test_forms_of_the_server(proc: FakeProc, command: str) -> None:
    proc.add(90, command, parent=1)
    assert proc.role(90) is ProcessRole.VLLM_SERVER


def test_an_equal_number_in_a_container_is_not_believed(tmp_path: Path) -> None:
    proc = FakeProc(tmp_path / "proc", namespace="pid:[4026532999]")
    proc.add(70, "python train.py", parent=1)
    proc.add(71, "python train.py", parent=1)
    (proc.folder / "71" / "fd").mkdir()
    (proc.folder / "71" / "fd" / "9").symlink_to("/dev/nvidia0")
    assert gpu_processes.describe(70, GIB, proc.folder).visible is False
    assert gpu_processes.describe(71, GIB, proc.folder).visible is True


def test_the_container_of_a_process(proc: FakeProc) -> None:
    proc.add(70, "python train.py", parent=1)
    cgroup = proc.folder / "70" / "cgroup"
    identity = "c0ffee" * 10 + "abcd"
    for line in (
        f"0::/system.slice/docker-{identity}.scope",
        f"12:pids:/docker/{identity}",
        f"0::/kubepods/pod1/{identity}",
    ):
        cgroup.write_text(line + "\n", encoding="utf-8")
        assert gpu_processes.describe(70, GIB, proc.folder).container == identity[:12]
    cgroup.write_text("0::/user.slice/session-1.scope\n", encoding="utf-8")
    assert gpu_processes.describe(70, GIB, proc.folder).container is None


def test_a_secret_of_the_command_line_is_masked(proc: FakeProc) -> None:
    proc.add(70, "/opt/venv/bin/vllm serve model --api-key canary-4711-secret", parent=1)
    command = gpu_processes.describe(70, GIB, proc.folder).command
    assert isinstance(command, str)
    assert "canary" not in command


@settings(max_examples=200, deadline=None)
@given(stat=st.binary(max_size=400), line=st.binary(max_size=400), cgroup=st.binary(max_size=400))
def test_any_bytes_in_proc_are_survived(
    tmp_path_factory: pytest.TempPathFactory, stat: bytes, line: bytes, cgroup: bytes
) -> None:
    folder = tmp_path_factory.mktemp("proc")
    home = folder / "70"
    home.mkdir()
    (home / "stat").write_bytes(b"70 (x) " + stat)
    (home / "cmdline").write_bytes(line)
    (home / "cgroup").write_bytes(cgroup)
    found = gpu_processes.describe(70, None, folder)
    assert found.pid == 70
    assert isinstance(found.used_bytes, Unknown)
