"""The host probe on this machine, and in processes whose limits and memory were really changed."""

import json
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from vllm_doctor.facts import FileSystem, Host
from vllm_doctor.launch.parse import parse_line
from vllm_doctor.probes.host import container, disks, memory, probe_host, variables

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads Linux' kernel files")

ROOT = Path(__file__).parent.parent.parent
PROBE = (
    "import msgspec, sys; from vllm_doctor.probes.host import probe_host;"
    "sys.stdout.buffer.write(msgspec.json.encode(probe_host()))"
)


def probed_in_child(*prefix: str, **variables: str) -> Host:
    command = [*prefix, sys.executable, "-c", PROBE]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, **variables}, capture_output=True, check=True)
    return msgspec.json.decode(done.stdout, type=Host)


def test_this_machine() -> None:
    host = probe_host()
    uname = os.uname()
    assert (host.system, host.kernel, host.machine) == (uname.sysname, uname.release, uname.machine)
    assert host.cpu_count == len(os.sched_getaffinity(0))
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert host.memory_total_bytes == pages
    assert isinstance(host.memory_available_bytes, int) and host.memory_available_bytes <= pages
    shm = os.statvfs("/dev/shm")
    assert isinstance(host.shm, FileSystem)
    assert host.shm.total_bytes == shm.f_blocks * shm.f_frsize
    assert host.open_files == resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    assert {disk.purpose for disk in host.disks} == {"hub-cache", "compile-cache", "temporary"}


def test_nothing_but_msgspec_is_loaded() -> None:
    heavy = ("psutil", "httpx", "packaging", "yaml", "rich", "jinja2")
    code = f"{PROBE}; sys.stderr.write(' '.join(m for m in {heavy} if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True, text=True)
    assert done.stderr == ""


def test_limits_are_those_of_the_shell() -> None:
    host = probed_in_child("sh", "-c", 'ulimit -S -n 512; ulimit -S -v 3000000; exec "$@"', "sh")
    assert (host.open_files, host.address_space_bytes) == (512, 3_000_000 * 1024)
    assert probe_host().address_space_bytes is None


def test_a_small_shared_memory() -> None:
    mount = ["unshare", "-m", "sh", "-c", 'mount -t tmpfs -o size=64k none /dev/shm && exec "$@"', "sh"]
    if shutil.which("unshare") is None or subprocess.run([*mount, "true"], capture_output=True).returncode != 0:
        pytest.skip("this user may not mount")
    shm = probed_in_child(*mount).shm
    assert isinstance(shm, FileSystem) and shm.free_bytes == 65536


def test_secrets_of_the_environment_are_names_only() -> None:
    found = variables.relevant(
        {
            "HF_TOKEN": "hf_canarycanarycanary",
            "VLLM_API_KEY": "sk-canary-canary",
            "VLLM_USE_V1": "1",
            "HTTPS_PROXY": "ann:canary@proxy.example:3128",
            "http_proxy": "http://ann:canary@proxy.example:3128",
            "HF_ENDPOINT": "https://ann:canary@mirror.example/",
            "EDITOR": "vi",
        }
    )
    assert found == {
        "HF_ENDPOINT": "https://***@mirror.example/",
        "HF_TOKEN": None,
        "HTTPS_PROXY": "***@proxy.example:3128",
        "VLLM_API_KEY": None,
        "VLLM_USE_V1": "1",
        "http_proxy": "http://***@proxy.example:3128",
    }


def test_ten_thousand_variables_are_bounded() -> None:
    many = {f"VLLM_{n}": "x" * 10_000 for n in range(10_000)}
    found = variables.relevant(many)
    assert len(found) == variables.MAXIMUM_VARIABLES
    assert all(value is not None and len(value) <= variables.MAXIMUM_CHARACTERS for value in found.values())


@pytest.mark.parametrize(
    ("given", "line", "expected"),
    [
        ({"HOME": "/h"}, "vllm serve m", ["/h/.cache/huggingface/hub", "/h/.cache/vllm", "/tmp"]),
        ({"HOME": "/h", "HF_HOME": "/d/hf"}, "vllm serve m", ["/d/hf/hub", "/h/.cache/vllm", "/tmp"]),
        ({"HOME": "/h", "HF_HUB_CACHE": "~/x", "TMPDIR": "/t"}, "vllm serve m", ["/h/x", "/h/.cache/vllm", "/t"]),
        ({"HOME": "/h", "XDG_CACHE_HOME": "/c"}, "vllm serve m", ["/c/huggingface/hub", "/c/vllm", "/tmp"]),
        (
            {"HOME": "/h", "HF_HOME": "/d"},
            "VLLM_CACHE_ROOT=/v HF_HOME=/e vllm serve m --download-dir /f",
            ["/f", "/v", "/tmp"],
        ),
    ],
)
def test_places(given: dict[str, str], line: str, expected: list[str]) -> None:
    assert [path for _, path in disks.places(given, parse_line(line))] == expected


def test_a_container_writes_where_it_is_mounted() -> None:
    line = "docker run -v /data/hf:/root/.cache/huggingface vllm/vllm-openai:v0.32.0 --model m"
    assert list(disks.places({"HOME": "/h"}, parse_line(line))) == [("hub-cache", "/data/hf")]


def test_the_disk_of_a_folder_that_is_not_there_yet(tmp_path: Path) -> None:
    found = disks.at("hub-cache", str(tmp_path / "a" / "b"))
    status = os.statvfs(tmp_path)
    assert isinstance(found, FileSystem)
    assert found.total_bytes == status.f_blocks * status.f_frsize
    (tmp_path / "file").write_text("x")
    assert isinstance(disks.at("hub-cache", str(tmp_path / "file" / "below")), FileSystem)


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("0::/", None),
        ("0::/../../kubepods.slice/kubepods-burstable.slice/cri-containerd-1.scope", "kubernetes"),
        ("4:memory:/docker/0123", "docker"),
        ("0::/machine.slice/libpod-0123.scope", "podman"),
        ("0::/lxc/box", "lxc"),
        ("0::/user.slice/user-1000.slice/dockerless", None),
    ],
)
def test_the_kind_of_container_by_its_group(line: str, kind: str | None) -> None:
    assert container.of_group(line) == kind


def test_a_pod_is_known_by_its_variable() -> None:
    assert container.kind({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}) == "kubernetes"


def test_wsl() -> None:
    assert container.is_wsl("5.15.167.4-microsoft-standard-WSL2")
    assert not container.is_wsl("6.8.0-60-generic")


def test_the_tightest_limit_counts(tmp_path: Path) -> None:
    """A pod's slice limits less than its container: cgroup v2, nested, with reclaimable file pages."""
    inner = tmp_path / "pod" / "box"
    inner.mkdir(parents=True)
    (tmp_path / "pod" / "memory.max").write_text("2000000000\n")
    (tmp_path / "pod" / "memory.current").write_text("900000000\n")
    (tmp_path / "pod" / "memory.stat").write_text("anon 5\ninactive_file 400000000\n")
    (inner / "memory.max").write_text("max\n")
    mounts = f"30 20 0:26 / {tmp_path} rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
    assert memory.tightest("0::/pod/box\n", mounts) == (2_000_000_000, 500_000_000)
    assert memory.tightest("0::/\n", mounts) == (None, None)


def test_the_limit_of_version_1_through_a_mount_of_a_part(tmp_path: Path) -> None:
    (tmp_path / "memory.limit_in_bytes").write_text("1600000000\n")
    (tmp_path / "memory.usage_in_bytes").write_text("100000000\n")
    mounts = f"35 31 0:32 /docker/ab {tmp_path} rw - cgroup cgroup rw,memory\n"
    assert memory.tightest("4:memory:/docker/ab\n", mounts) == (1_600_000_000, 100_000_000)
    (tmp_path / "memory.limit_in_bytes").write_text("9223372036854771712\n")
    assert memory.tightest("4:memory:/docker/ab\n", mounts) == (None, None)


def test_a_real_group_limits_this_process(tmp_path: Path) -> None:
    group = Path("/sys/fs/cgroup/memory/vllm-doctor-test")
    try:
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text("300M")
    except OSError:
        pytest.skip("this user may not make control groups of version 1")
    try:
        host = probed_in_child("sh", "-c", f'echo $$ >{group}/cgroup.procs; exec "$@"', "sh")
        assert host.cgroup_limit_bytes == 300 * 2**20
        assert isinstance(host.cgroup_used_bytes, int) and 0 < host.cgroup_used_bytes < 300 * 2**20
    finally:
        group.rmdir()


def test_the_facts_are_json() -> None:
    host = probe_host({"LD_LIBRARY_PATH": "/a:/b::", "HOME": "/h"})
    assert host.library_path == ("/a", "/b", ".", ".")
    assert json.loads(msgspec.json.encode(host))["fact"] == "host"
