"""Environments that are broken in the ways that real ones break."""

import shutil
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.environment.builders import (
    build_library,
    examined,
    make_environment,
    make_launch,
    write_distribution,
    write_files,
    write_torch,
    write_vllm,
)
from vllm_doctor.errors import DoctorError
from vllm_doctor.facts import LaunchForm, Shadow, Unknown
from vllm_doctor.probes.environment import probe_environment

MODULE = make_launch("python", "-m", "vllm.entrypoints.openai.api_server", form=LaunchForm.MODULE)


@pytest.fixture
def site(tmp_path: Path) -> Path:
    site = make_environment(tmp_path / "env")
    write_vllm(site)
    write_torch(site)
    return site


def executable(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


BROKEN = {
    "crashes": ("#!/bin/sh\nkill -SEGV $$\n", "was ended by SIGSEGV"),
    "lacks libpython": (
        "#!/bin/sh\necho 'error while loading shared libraries: libpython3.11.so.1.0: cannot open' >&2\nexit 127\n",
        "ended with exit code 127: error while loading shared libraries: libpython3.11.so.1.0: cannot open",
    ),
    "lost its standard library": (
        "#!/bin/sh\necho \"Fatal Python error: ModuleNotFoundError: No module named 'encodings'\" >&2\nexit 1\n",
        "ended with exit code 1: Fatal Python error: ModuleNotFoundError: No module named 'encodings'",
    ),
    "is of another machine": ("\x7fELF\x02\x01\x01" + "\0" * 60, "cannot be started: "),
    "prints garbage": ("#!/bin/sh\necho '{\"python\": 1}'\n", "did not answer as a Python interpreter does"),
    "prints nothing": ("#!/bin/sh\n", "did not answer as a Python interpreter does"),
    "prints around its answer": (
        '#!/bin/sh\necho hello\nexec /usr/bin/env python3 "$@"\n',
        "did not answer as a Python",
    ),
    "prints without end": ("#!/bin/sh\nexec yes\n", "printed more than"),
    "hangs": ("#!/bin/sh\nsleep 60\n", "did not answer within 0.5 s"),
    "hangs behind a child": ("#!/bin/sh\nsleep 60 & exit 0\n", "did not answer within 0.5 s"),
    "is Python 2": ("#!/bin/sh\necho 'Unknown option: -I' >&2\nexit 2\n", "is older than Python 3.4"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_an_interpreter_that(case: str, tmp_path: Path) -> None:
    text, reason = BROKEN[case]
    python = executable(tmp_path / "python3", text)
    seconds = 0.5 if "0.5 s" in reason else 20
    found = probe_environment(python, timeout_seconds=seconds)
    assert isinstance(found, Unknown)
    assert found.reason.startswith(f"{python} {reason}")
    assert "\n" not in found.reason


def test_an_interrupted_doctor_leaves_no_child_behind(tmp_path: Path) -> None:
    mark = tmp_path / "pid"
    python = executable(tmp_path / "python3", f"#!/bin/sh\necho $$ > {mark}\nexec sleep 60\n")
    code = (
        "import sys, time, pathlib\n"
        "from vllm_doctor.probes.environment import probe_environment\n"
        "from vllm_doctor.probes.running import Running\n"
        f"Running('environment', lambda: probe_environment(pathlib.Path({str(python)!r})))\n"
        f"mark = pathlib.Path({str(mark)!r})\n"
        "while not (mark.exists() and mark.stat().st_size): time.sleep(0.01)\n"
        "raise KeyboardInterrupt\n"
    )
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, timeout=20)
    pid = int(mark.read_text())
    deadline = time.monotonic() + 5
    while Path(f"/proc/{pid}/cmdline").exists() and Path(f"/proc/{pid}/cmdline").read_bytes():
        assert time.monotonic() < deadline, "the child still runs"
        time.sleep(0.01)


def test_another_program_is_no_interpreter(tmp_path: Path) -> None:
    program = executable(tmp_path / "ls", "#!/bin/sh\necho files\n")
    with pytest.raises(DoctorError, match="no Python interpreter"):
        probe_environment(program)


def test_a_removed_base_python(tmp_path: Path) -> None:
    make_environment(tmp_path / "env")
    python = tmp_path / "env" / "bin" / "python"
    python.unlink()
    python.symlink_to("/gone/python3")
    found = probe_environment(tmp_path / "env")
    assert found == Unknown(f"{python} is a link to /gone/python3, which is not there: that Python was removed")


def test_files_that_are_gone(site: Path) -> None:
    (site / "vllm" / "engine" / "core.py").unlink()
    (site / "torch" / "version.py").unlink()
    found = examined(site.parents[2])
    missing = {d.name: (d.missing, d.missing_count) for d in found.distributions}
    assert missing == {"vllm": (("vllm/engine/core.py",), 1), "torch": (("torch/version.py",), 1)}
    assert found.torch is not None
    assert found.torch.version == "2.11.0"


def test_a_whole_package_that_is_gone(site: Path) -> None:
    shutil.rmtree(site / "torch")
    found = examined(site.parents[2])
    torch = found.distribution("torch")
    assert torch is not None
    assert (torch.missing, torch.missing_count) == (("torch/__init__.py", "torch/version.py"), 2)
    assert found.torch is None


def test_vllm_without_its_init(site: Path) -> None:
    (site / "vllm" / "__init__.py").unlink()
    found = examined(site.parents[2])
    assert found.vllm is not None
    assert found.distributions[[d.name for d in found.distributions].index("vllm")].missing == ("vllm/__init__.py",)


def test_what_slim_images_delete_is_not_missed(site: Path) -> None:
    write_distribution(
        site, "numpy", "2.3.5", {"numpy/__init__.py": "", "numpy/tests/test_x.py": "", "numpy/only.py": ""}
    )
    shutil.rmtree(site / "numpy" / "tests")
    (site / "numpy" / "only.py").rename(site / "numpy" / "only.pyc")
    found = examined(site.parents[2]).distribution("numpy")
    assert found is not None
    assert found.missing_count == 0


def test_metadata_that_is_gone(site: Path) -> None:
    shutil.rmtree(site / "vllm-0.20.2.dist-info")
    build = examined(site.parents[2]).vllm
    assert build is not None
    assert (build.distribution, build.metadata_version, build.package_version) == (None, None, "0.20.2")


def test_a_half_deleted_distribution(site: Path) -> None:
    for name in ("METADATA", "RECORD"):
        (site / "vllm-0.20.2.dist-info" / name).unlink()
    found = examined(site.parents[2])
    vllm = found.distribution("vllm")
    assert vllm is not None and found.vllm is not None
    assert (vllm.version, found.vllm.metadata_version) == (None, None)


def test_two_versions_side_by_side(site: Path) -> None:
    write_distribution(site, "torch", "2.9.1")
    found = examined(site.parents[2])
    assert sorted(str(d.version) for d in found.distributions if d.name == "torch") == ["2.11.0", "2.9.1"]
    first = next(p.name for p in site.iterdir() if p.name.startswith("torch-"))
    torch = found.distribution("torch")
    assert torch is not None
    assert first == f"torch-{torch.version}.dist-info"


def test_what_an_interrupted_pip_leaves(site: Path) -> None:
    write_distribution(site, "torch", "2.9.1").rename(site / "~orch-2.9.1.dist-info")
    found = examined(site.parents[2])
    assert found.leftovers == (str(site / "~orch-2.9.1.dist-info"),)
    assert [d.version for d in found.distributions if d.name == "torch"] == ["2.11.0"]


def test_old_metadata_of_setuptools(site: Path) -> None:
    write_files(site, {"old_thing.egg-info/PKG-INFO": "Name: Old.Thing\nVersion: 1.2\n"})
    write_files(site, {"old_thing.egg-info/requires.txt": "six>=1\nmock\n\n[dev]\nblack\n"})
    (site / "single-3.0.egg-info").write_text(
        "Metadata-Version: 1.1\nName: single\nVersion: 3.0\n\nText: Name: other\n"
    )
    found = {d.name: d for d in examined(site.parents[2]).distributions}
    assert (found["old-thing"].version, found["old-thing"].requires) == ("1.2", ("six>=1", "mock"))
    assert found["single"].version == "3.0"


def test_a_source_folder_shadows_a_module_launch(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkout = site.parents[3] / "checkout"
    write_files(
        checkout, {"vllm/__init__.py": "", "numpy/data.txt": "", "random.py": "", "torch.py": "", "mine.py": ""}
    )
    monkeypatch.chdir(checkout)
    assert examined(site.parents[2], MODULE).shadows == (
        Shadow(name="vllm", path=str(checkout / "vllm"), over=str(site / "vllm")),
        Shadow(name="torch", path=str(checkout / "torch.py"), over=str(site / "torch")),
        Shadow(name="random", path=str(checkout / "random.py"), over="standard library"),
    )
    assert examined(site.parents[2], make_launch("vllm", "serve")).shadows == ()
    assert examined(site.parents[2]).shadows == ()


def test_a_folder_of_the_python_path_shadows_every_launch(site: Path) -> None:
    other = site.parents[3] / "other"
    write_files(other, {"torch/__init__.py": ""})
    launch = make_launch("vllm", "serve", environment={"PYTHONPATH": f"{other}:/nowhere"})
    assert examined(site.parents[2], launch).shadows == (
        Shadow(name="torch", path=str(other / "torch"), over=str(site / "torch")),
    )


def test_files_and_metadata_of_different_copies(site: Path) -> None:
    first = site.parents[3] / "first"
    write_files(first, {"urllib3/__init__.py": ""})
    write_distribution(site, "urllib3", "2.5.0", {"urllib3/__init__.py": ""})
    (site / "first.pth").write_text(f"{first}\n")
    assert examined(site.parents[2]).shadows == ()
    launch = make_launch("vllm", environment={"PYTHONPATH": str(first)})
    assert examined(site.parents[2], launch).shadows == (
        Shadow(name="urllib3", path=str(first / "urllib3"), over=str(site / "urllib3")),
    )


TORCH_HEADER = "void _ZN3c105ErrorC2Ev(void) {} void _ZN2at5thereEv(void) {} int aoti_torch_there;"
USES = (
    "void _ZN3c105ErrorC2Ev(void); void _ZN2at4goneEv(void); void aoti_torch_gone(void); void other_gone(void);"
    "void _ZN5torch4weakEv(void) __attribute__((weak)); void _ZN3foo2atEv(void);"
    "void exported(void) { _ZN3c105ErrorC2Ev(); _ZN2at4goneEv(); aoti_torch_gone(); other_gone(); _ZN3foo2atEv();"
    " if (_ZN5torch4weakEv) _ZN5torch4weakEv(); }"
)


@pytest.mark.parametrize("style", ["gnu", "both"])
def test_an_extension_built_for_another_torch(style: str, site: Path) -> None:
    torch = build_library(site / "torch/lib/libtorch_cpu.so", TORCH_HEADER, "-Wl,-soname,libtorch_cpu.so")
    build_library(site / "vllm/_C.abi3.so", USES, torch, "-Wl,--hash-style=" + style)
    found = examined(site.parents[2]).extensions
    assert not isinstance(found, Unknown)
    [extension] = [e for e in found if e.owner == "vllm"]
    assert (extension.undefined, extension.undefined_count) == (("_ZN2at4goneEv", "aoti_torch_gone"), 2)
    assert (extension.needed_missing, extension.problem) == ((), None)


def test_an_extension_that_exports_nothing(site: Path) -> None:
    # With an empty hash table only the section header tells how many symbols there are.
    torch = build_library(site / "torch/lib/libc10.so", TORCH_HEADER, "-Wl,-soname,libc10.so")
    source = "void _ZN2at4goneEv(void); __attribute__((constructor)) static void run(void) { _ZN2at4goneEv(); }"
    build_library(site / "torchvision/_C.so", source, torch, "-Wl,--hash-style=gnu")
    found = examined(site.parents[2]).extensions
    assert not isinstance(found, Unknown)
    assert [(e.owner, e.undefined) for e in found] == [("torchvision", ("_ZN2at4goneEv",)), ("torch", ())]


def test_needed_libraries_that_are_nowhere(site: Path, tmp_path: Path) -> None:
    libraries = {}
    for name in (
        "libcudart.so.12",
        "libcublas.so.12",
        "libcuda.so.1",
        "libown.so",
        "libelsewhere.so",
        "libpython3.9.so",
    ):
        libraries[name] = build_library(tmp_path / "build" / name, "int x;", f"-Wl,-soname,{name}")
    build_library(site / "nvidia/cublas/lib/libcublas.so.12", "int x;")
    build_library(site / "vllm.libs/libown.so", "int x;")
    elsewhere = build_library(tmp_path / "elsewhere" / "libelsewhere.so", "int x;").parent
    build_library(
        site / "vllm/_C.abi3.so",
        "int y;",
        "-Wl,--no-as-needed",
        *map(str, libraries.values()),
        "-Wl,-rpath,$ORIGIN/../vllm.libs",
    )
    found = examined(site.parents[2]).extensions
    assert not isinstance(found, Unknown)
    assert [e.needed_missing for e in found] == [("libcudart.so.12", "libelsewhere.so")]
    launch = make_launch("vllm", environment={"LD_LIBRARY_PATH": str(elsewhere)})
    build = examined(site.parents[2], launch)
    assert not isinstance(build.extensions, Unknown)
    assert [e.needed_missing for e in build.extensions] == [("libcudart.so.12",)]
    assert build.vllm is not None
    assert (build.vllm.platform, build.vllm.cuda) == ("cuda", "12")


def test_a_library_beside_the_module_is_found(site: Path) -> None:
    beside = build_library(site / "torchaudio/lib/libtorchaudio.so", "int x;", "-Wl,-soname,libtorchaudio.so")
    build_library(site / "torchaudio/lib/_torchaudio.so", "int y;", "-Wl,--no-as-needed", beside)
    build_library(site / "torchaudio/lib/libtorchaudio_sox.so", "int z;")
    found = examined(site.parents[2]).extensions
    assert not isinstance(found, Unknown)
    assert [(Path(e.path).name, e.needed_missing) for e in found] == [("_torchaudio.so", ()), ("libtorchaudio.so", ())]


def test_a_truncated_extension(site: Path) -> None:
    path = build_library(site / "vllm/_C.abi3.so", "int x[9999] = {1};")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    (site / "vllm/_moe_C.abi3.so").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    found = examined(site.parents[2]).extensions
    assert not isinstance(found, Unknown)
    assert [(Path(e.path).name, str(e.problem).split(":")[0]) for e in found] == [
        ("_C.abi3.so", "cut short"),
        ("_moe_C.abi3.so", "no ELF file"),
    ]


def test_an_extension_for_another_processor(site: Path) -> None:
    path = build_library(site / "vllm/_C.abi3.so", "int x;")
    content = bytearray(path.read_bytes())
    content[18:20] = b"\x03\x00"
    path.write_bytes(content)
    found = examined(site.parents[2]).extensions
    assert not isinstance(found, Unknown)
    [extension] = found
    assert str(extension.problem).startswith("built for another processor than this ")


def test_an_extension_without_torch(tmp_path: Path) -> None:
    site = make_environment(tmp_path / "env")
    write_vllm(site)
    torch = build_library(tmp_path / "libtorch_cpu.so", TORCH_HEADER, "-Wl,-soname,libtorch_cpu.so")
    build_library(site / "vllm/_C.abi3.so", USES, torch)
    found = examined(tmp_path / "env").extensions
    assert not isinstance(found, Unknown)
    assert [(e.needed_missing, e.problem) for e in found] == [(("libtorch_cpu.so",), "torch is not installed")]


def test_imports_are_tried_only_when_asked_for(tmp_path: Path) -> None:
    site = make_environment(tmp_path / "env")
    write_distribution(site, "requests", "2.34.2", {"requests/__init__.py": ""})
    write_distribution(site, "boto3", "1.28", {"boto3/__init__.py": "import botocore"})
    write_distribution(site, "numpy", "2.0", {"numpy/__init__.py": "import os; os.kill(os.getpid(), 11)"})
    assert examined(tmp_path / "env").imports is None
    found = examined(tmp_path / "env", deep=True).imports
    assert found is not None
    assert {t.module: t.error for t in found} == {
        "numpy": "the interpreter died of signal 11",
        "boto3": "ModuleNotFoundError: No module named 'botocore'",
        "requests": None,
    }
