"""The readers of kernel and system files: what real ones say, and that no bytes at all can upset them."""

import struct
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllm_doctor.facts import Unknown
from vllm_doctor.probes.host import loader, memory, pci, processor, system
from vllm_doctor.probes.servers import listeners

XEON = b"processor\t: 0\nmodel name\t: Intel(R) Xeon(R) Platinum 8480+\nflags\t\t: fpu sse4_2 avx2 avx512f amx_tile\n\n"
GRAVITON = b"processor\t: 0\nBogoMIPS\t: 2100.00\nFeatures\t: fp asimd sve bf16 i8mm\nCPU implementer\t: 0x41\n"


def test_processors() -> None:
    assert processor.model_and_extensions(XEON) == (
        "Intel(R) Xeon(R) Platinum 8480+",
        ("sse4_2", "avx2", "avx512f", "amx_tile"),
    )
    name, extensions = processor.model_and_extensions(GRAVITON)
    assert isinstance(name, Unknown)
    assert extensions == ("asimd", "bf16", "i8mm", "sve")


@given(st.binary(max_size=4000))
def test_any_cpuinfo(data: bytes) -> None:
    name, extensions = processor.model_and_extensions(data)
    assert isinstance(name, Unknown) or 0 < len(name) <= 200
    assert isinstance(extensions, Unknown) or set(extensions) <= set(processor.VECTOR_FLAGS)


def test_meminfo_of_a_node() -> None:
    text = "Node 0 MemTotal:       12413132 kB\nNode 0 Active(file):  100 kB\nNode 0 HugePages_Total:     0\n"
    assert memory.fields(text) == {"MemTotal": 12413132 * 1024, "Active(file)": 102400, "HugePages_Total": 0}


@given(st.text(max_size=2000))
def test_any_meminfo(text: str) -> None:
    assert all(value >= 0 for value in memory.fields(text).values())


@given(st.text(max_size=2000), st.text(max_size=2000))
def test_any_groups_and_mounts(membership: str, mounts: str) -> None:
    folders = list(memory.memory_folders(membership, mounts))
    assert all(version in (1, 2) for _, version in folders)


def test_a_path_of_a_million_folders_is_bounded() -> None:
    mounts = "30 20 0:26 / /m rw - cgroup2 cgroup2 rw\n"
    assert len(list(memory.memory_folders("0::/" + "a/" * 1_000_000, mounts))) == memory.MAXIMUM_DEPTH + 1


def test_a_group_cannot_climb_out_of_its_mount() -> None:
    mounts = "30 20 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"
    folders = [folder for folder, _ in memory.memory_folders("0::/../../etc", mounts)]
    assert folders == ["/sys/fs/cgroup/etc", "/sys/fs/cgroup"]


def cache_of(entries: list[tuple[int, str, str]], old: bytes = b"") -> bytes:
    """An ld.so.cache as ldconfig writes it: (flags, library, path)."""
    strings, table = b"", []
    start = 48 + 24 * len(entries)
    for flags, library, path in entries:
        key = start + len(strings)
        strings += library.encode() + b"\0"
        table.append(struct.pack("=iIIIQ", flags, key, start + len(strings), 0, 0))
        strings += path.encode() + b"\0"
    header = b"glibc-ld.so.cache1.1" + struct.pack("=II", len(entries), len(strings)) + bytes(20)
    return old + header + b"".join(table) + strings


def test_the_loaders_cache() -> None:
    entries = [
        (0x0003, "libcuda.so.1", "/lib/i386-linux-gnu/libcuda.so.1"),
        (0x0303, "libcuda.so.1", "/usr/lib/x86_64-linux-gnu/libcuda.so.1"),
        (0x0303, "libcudart.so.12", "/opt/libcudart.so.12"),
    ]
    for old in (b"", b"ld.so-1.7.0\0" + bytes(20)):
        cache = cache_of(entries, old)
        assert loader.cached(cache, "libcuda.so.1", "x86_64") == ["/usr/lib/x86_64-linux-gnu/libcuda.so.1"]
        assert loader.cached(cache, "libcuda.so.1", "riscv64") == [entries[0][2], entries[1][2]]
        assert loader.cached(cache, "libcuda.so.2", "x86_64") == []


@pytest.mark.skipif(not Path("/etc/ld.so.cache").exists(), reason="this system has no cache of the loader")
def test_the_real_cache_knows_the_c_library() -> None:
    import os

    found = loader.cached(Path("/etc/ld.so.cache").read_bytes(), "libc.so.6", os.uname().machine)
    assert found
    assert all(Path(path).exists() for path in found)


@given(st.binary(max_size=2000), st.binary(max_size=200))
def test_any_cache(before: bytes, after: bytes) -> None:
    for data in (before, before + b"glibc-ld.so.cache1.1" + after, cache_of([(1, "libcuda.so.1", "/x")])[:-1] + after):
        assert isinstance(loader.cached(data, "libcuda.so.1", "x86_64"), list)


def test_a_cache_that_lies_about_its_length() -> None:
    cache = bytearray(cache_of([(0x0303, "libcuda.so.1", "/x/libcuda.so.1")]))
    cache[20:24] = struct.pack("=I", 2**32 - 1)
    started = time.process_time()
    loader.cached(bytes(cache) + b"\0" * 4_000_000, "libcuda.so.1", "x86_64")
    assert time.process_time() - started < 1


def test_libcuda_is_taken_from_the_first_folder_that_has_it(tmp_path: Path) -> None:
    for name in ("one", "compat"):
        (tmp_path / name).mkdir()
    (tmp_path / "compat" / "libcuda.so.1").write_bytes(b"")
    folders = loader.library_folders(f"{tmp_path}/one:{tmp_path}/compat")
    assert loader.libcuda_paths(folders, "x86_64")[0] == f"{tmp_path}/compat/libcuda.so.1"
    assert loader.libcuda_paths(("\0",), "x86_64") == loader.libcuda_paths((), "x86_64")


TABLE = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F40 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 31415 1 0 100 0 0 10 0
   1: 0100007F:1F41 0100007F:D2F0 01 00000000:00000000 00:00000000 00000000  1000        0 27182 1 0 20 4 30 10 -1
"""
TABLE6 = """\
   0: 00000000000000000000000000000000:0050 00000000000000000000000000000000:0000 0A 0:0 00:0 0 0 0 99 1 0
   1: 00000000000000000000000001000000:0016 00000000000000000000000000000000:0000 0A 0:0 00:0 0 0 0 98 1 0
"""


@pytest.mark.skipif(sys.byteorder != "little", reason="the tables are written in the machine's byte order")
def test_listening_sockets() -> None:
    assert list(listeners.sockets(TABLE)) == [listeners.Socket("127.0.0.1", 8000, 1000, 31415)]
    assert [(s.address, s.port) for s in listeners.sockets(TABLE6)] == [("::", 80), ("::1", 22)]


@given(st.text(max_size=2000))
def test_any_table(text: str) -> None:
    for socket in (*listeners.sockets(text), *listeners.sockets(TABLE.replace("0100007F", text[:20]))):
        assert socket.address


def test_candidates_of_the_bus() -> None:
    tail = "\t".join(["0"] * 14)
    table = (
        f"0100\t10de2330\t0\t{tail}\tnvidia\n"
        f"0010\t80869bc5\t0\t{tail}\ti915\n"
        f"00f8\t80860685\t0\t{tail}\tlpc_ich\n"
        f"0200\t1af41041\t0\t{tail}\tvirtio-pci\n"
    )
    assert pci.candidates(table) == {"01:00.0", "00:02.0"}


@given(st.text(max_size=1000))
def test_any_bus(text: str) -> None:
    assert all(len(place) == 7 for place in pci.candidates(text))


@pytest.mark.parametrize(
    ("banner", "version"),
    [
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 01:15:15 UTC 2023", "535.104.05"),
        ("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build", "580.65.06"),
        ("", None),
        ("GCC version: 12.3.0", "12.3.0"),
        ("NVRM version: nothing\nGCC version: 12.3.0", None),
    ],
)
def test_the_version_of_the_kernel_module(banner: str, version: str | None) -> None:
    assert pci.version_in(banner) == version


def test_os_release() -> None:
    assert system.pretty_name('NAME="Alpine Linux"\nPRETTY_NAME="Alpine Linux v3.20"\n') == "Alpine Linux v3.20"
    assert system.pretty_name("NAME=Arch\n") == "Arch"
    assert system.pretty_name("") is None
