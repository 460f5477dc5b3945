"""Which interpreter is examined, and why."""

import os
import stat
import sys
from pathlib import Path

import pytest

from tests.environment.builders import make_environment, make_launch
from vllm_doctor.errors import DoctorError
from vllm_doctor.facts import Docker, LaunchForm, Unknown
from vllm_doctor.probes.environment.interpreter import Chosen, choose, first_folder
from vllm_doctor.probes.environment.shebang import script_interpreter, which


def script(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("VIRTUAL_ENV", "CONDA_PREFIX", "PYENV_VERSION", "UV_PROJECT_ENVIRONMENT", "PYTHONSAFEPATH"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    monkeypatch.chdir(tmp_path)


SHEBANGS = {
    "plain": ("#!/opt/venv/bin/python\nimport sys\n", "/opt/venv/bin/python"),
    "with options": ("#!/opt/venv/bin/python3.11 -sE\n", "/opt/venv/bin/python3.11"),
    "with a space after the mark": ("#! /usr/bin/python3\n", "/usr/bin/python3"),
    "pip's trampoline": (
        "#!/bin/sh\n'''exec' \"/a long/venv/bin/python\" \"$0\" \"$@\"\n' '''\n",
        "/a long/venv/bin/python",
    ),
    "uv's trampoline": (
        "#!/bin/sh\n'''exec' '/a long/.venv/bin/python3' \"$0\" \"$@\"\n' '''\n",
        "/a long/.venv/bin/python3",
    ),
    "an old trampoline without quotes": (
        "#!/bin/sh\n'''exec' /long/bin/python \"$0\" \"$@\"\n' '''\n",
        "/long/bin/python",
    ),
    "a shell script": ("#!/bin/sh\nexec docker run vllm\n", None),
    "an empty first line": ("#!\n", None),
    "no script": ("\x7fELF\x02\x01", None),
    "nothing": ("", None),
    "an unbalanced quote": ("#!/bin/sh\n'''exec' \"/x/bin/python\n", None),
}


@pytest.mark.parametrize("case", SHEBANGS)
def test_a_script_names_its_interpreter(case: str, tmp_path: Path) -> None:
    text, expected = SHEBANGS[case]
    found = script_interpreter(script(tmp_path / "bin" / "vllm", text), "")
    assert found == (Path(expected) if expected is not None else None)


def test_a_relocatable_script_of_uv_means_its_neighbour(tmp_path: Path) -> None:
    text = "#!/bin/sh\n'''exec' \"$(dirname -- \"$(realpath -- \"$0\")\")\"/'python3' \"$0\" \"$@\"\n' '''\n"
    vllm = script(tmp_path / "env" / "bin" / "vllm", text)
    assert script_interpreter(vllm, "") == (tmp_path / "env" / "bin" / "python3").resolve()


@pytest.mark.parametrize(
    "line", ["#!/usr/bin/env python3", "#!/usr/bin/env -S python3 -I", "#!/usr/bin/env A=1 python3"]
)
def test_env_looks_on_the_path(line: str, tmp_path: Path) -> None:
    python = script(tmp_path / "bin" / "python3", "")
    assert script_interpreter(script(tmp_path / "vllm", line + "\n"), str(tmp_path / "bin")) == python


def test_a_pyenv_shim_is_seen_through(tmp_path: Path) -> None:
    root = tmp_path / "pyenv"
    shim = script(root / "shims" / "vllm", '#!/usr/bin/env bash\nexec "/x/libexec/pyenv" exec "$program" "$@"\n')
    script(root / "versions" / "3.11.7" / "bin" / "vllm", "#!/x/python\n")
    newest = script(root / "versions" / "3.11.10" / "bin" / "vllm", "#!/x/python\n")
    (root / "version").write_text("3.11\n")
    assert which("vllm", str(root / "shims")) == newest
    (root / "version").write_text("3.99\n")
    assert which("vllm", str(root / "shims")) == shim


def test_the_option_names_an_interpreter_or_an_environment(tmp_path: Path) -> None:
    make_environment(tmp_path / "env")
    expected = Chosen(tmp_path / "env" / "bin" / "python", "--python")
    assert choose(tmp_path / "env" / "bin" / "python", None) == expected
    assert choose(tmp_path / "env", None) == expected
    assert choose(Path("env"), None) == expected


def test_the_option_may_be_a_command_on_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = script(tmp_path / "bin" / "python3.99", "")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert choose(Path("python3.99"), None) == Chosen(python, "--python")


@pytest.mark.parametrize("name", ["nothing", "empty", "file"])
def test_the_option_that_names_no_interpreter_ends_the_command(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DoctorError, match=name):
        choose(tmp_path / name, None)


def test_a_dangling_link_is_a_broken_environment(tmp_path: Path) -> None:
    make_environment(tmp_path / "env")
    python = tmp_path / "env" / "bin" / "python"
    python.unlink()
    python.symlink_to("/gone/bin/python3.11")
    found = choose(tmp_path / "env", None)
    assert found == Unknown(f"{python} is a link to /gone/bin/python3.11, which is not there: that Python was removed")


def test_the_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script(tmp_path / "bin" / "python3", "")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert choose(None, None) == Chosen(tmp_path / "bin" / "python3", "python3 on PATH")
    make_environment(tmp_path / "active")
    monkeypatch.setenv("CONDA_PREFIX", str(tmp_path / "active"))
    assert choose(None, None) == Chosen(tmp_path / "active" / "bin" / "python", "CONDA_PREFIX")
    monkeypatch.setenv("VIRTUAL_ENV", str(tmp_path / "active"))
    assert choose(None, None) == Chosen(tmp_path / "active" / "bin" / "python", "VIRTUAL_ENV")
    vllm = script(tmp_path / "bin" / "vllm", "#!/opt/one/bin/python\n")
    assert choose(None, None) == Chosen(Path("/opt/one/bin/python"), f"{vllm} on PATH")
    other = script(tmp_path / "other" / "vllm", "#!/opt/two/bin/python\n")
    launch = make_launch(str(other), "serve")
    assert choose(None, launch) == Chosen(Path("/opt/two/bin/python"), f"{other} of the launch")


def test_with_nothing_else_it_is_the_doctors_own() -> None:
    assert choose(None, None) == Chosen(Path(sys.executable), "the doctor's own interpreter")


def test_a_launch_by_a_python(tmp_path: Path) -> None:
    launch = make_launch("/opt/x/bin/python3", "-m", "vllm.entrypoints.openai.api_server", form=LaunchForm.MODULE)
    assert choose(None, launch) == Chosen(Path("/opt/x/bin/python3"), "/opt/x/bin/python3 of the launch")


def test_a_launch_with_a_path_of_its_own(tmp_path: Path) -> None:
    python = script(tmp_path / "bin" / "python3", "")
    launch = make_launch("python3", "-m", "vllm", environment={"PATH": f"{tmp_path}/bin:$PATH"})
    assert choose(None, launch) == Chosen(python, "python3 of the launch")


def test_a_launch_by_uv_takes_the_nearest_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_environment(tmp_path / ".venv")
    (tmp_path / "deep" / "er").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "deep" / "er")
    found = choose(None, make_launch("uv", "run", "vllm", "serve"))
    assert found == Chosen(tmp_path / ".venv" / "bin" / "python", "uv run (.venv)")


def test_a_launch_by_conda(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_environment(tmp_path / "conda" / "envs" / "serving")
    monkeypatch.setenv("CONDA_EXE", str(tmp_path / "conda" / "bin" / "conda"))
    found = choose(None, make_launch("conda", "run", "-n", "serving", "vllm", "serve"))
    assert found == Chosen(tmp_path / "conda" / "envs" / "serving" / "bin" / "python", "conda run -n serving")


def test_a_container_is_not_examined_here() -> None:
    docker = Docker(
        image="vllm/vllm-openai:v0.20.2",
        tag="v0.20.2",
        version="0.20.2",
        options=(),
        gpus=None,
        shm_size_bytes=None,
        ipc=None,
        network=None,
        published={},
        mounts={},
    )
    launch = make_launch("docker", "run", form=LaunchForm.DOCKER)
    found = choose(None, type(launch)(**{f: getattr(launch, f) for f in launch.__struct_fields__} | {"docker": docker}))
    assert isinstance(found, Unknown)
    assert "vllm/vllm-openai:v0.20.2" in found.reason


def test_which_folder_comes_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    module = make_launch("python3", "-m", "vllm.entrypoints.openai.api_server", form=LaunchForm.MODULE)
    assert first_folder(module) == os.fspath(tmp_path)
    assert first_folder(make_launch("vllm", "serve")) == ""
    assert first_folder(None) == ""
    assert first_folder(make_launch("python3", "-I", "-m", "vllm", form=LaunchForm.MODULE)) == ""
    monkeypatch.setenv("PYTHONSAFEPATH", "1")
    assert first_folder(module) == ""
