"""What the doctor leaves behind, and whom it asks: nothing and nobody, shown by listings and without a network."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.calling import HEALTHY, ROOT
from tests.environment.builders import make_environment, write_torch, write_vllm
from tests.model.folders import llama

LOG = "ValueError: Total number of attention heads (12) must be divisible by tensor parallel size (8).\n"

Listing = dict[str, tuple[int, int, int, int]]


def listing(*folders: Path) -> Listing:
    """Everything in the folders: mode, size, when it was changed, and when its entry was."""
    found: Listing = {}
    for folder in folders:
        for path in (folder, *sorted(folder.rglob("*"))):
            status = path.lstat()
            found[str(path)] = (status.st_mode, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    return found


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home, a folder to stand in, a folder for temporary files, an environment, a model and a log."""
    world = tmp_path_factory.mktemp("world")
    for name in ("home", "here", "temporary"):
        (world / name).mkdir()
    site = make_environment(world / "venv")
    write_vllm(site)
    write_torch(site)
    llama(world / "model")
    (world / "server.log").write_text(LOG, encoding="utf-8")
    return world


COMMANDS = {
    "run": ("run", "--python", "{world}/venv/bin/python", "--", "vllm", "serve", "{world}/model"),
    "run on a snapshot": ("run", "--snapshot", str(HEALTHY), "--format", "html"),
    "run with defects": ("run", "--python", "{world}/venv/bin/python", "--", "vllm", "serve", "{world}/none", "--x"),
    "plan": ("plan", "{world}/model", "--gpu", "H100 80GB:2"),
    "explain": ("explain", "{world}/server.log"),
    "explain a cause": ("explain", "oom-kv"),
    "checks": ("checks",),
    "a check": ("checks", "kv-cache-size"),
    "releases": ("releases",),
    "help": ("--help",),
}


def called(world: Path, name: str, *before: str) -> "subprocess.CompletedProcess[str]":
    words = [word.replace("{world}", str(world)) for word in COMMANDS[name]]
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("VLLM_", "HF_", "XDG_", "PYTHON"))}
    environment = kept | {
        "PYTHONPATH": f"{ROOT}:{ROOT / 'checks'}",
        "PYTHONDONTWRITEBYTECODE": "1",
        "HOME": str(world / "home"),
        "TMPDIR": str(world / "temporary"),
    }
    return subprocess.run(
        [*before, sys.executable, "-m", "vllm_doctor", *words],
        cwd=world / "here",
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("name", COMMANDS)
def test_nothing_is_written(world: Path, name: str) -> None:
    before = listing(world)
    done = called(world, name)
    assert done.returncode in (0, 1), done.stderr
    assert done.stdout
    assert listing(world) == before


def without_network() -> tuple[str, ...]:
    """A command that runs another without any network; skips by name where that is not allowed."""
    unshare = shutil.which("unshare")
    if unshare is None:
        pytest.skip("needs unshare")
    for options in (("-n",), ("-r", "-n")):
        if subprocess.run([unshare, *options, "true"], capture_output=True).returncode == 0:
            return (unshare, *options)
    pytest.skip("unshare -n is not allowed here")


@pytest.mark.parametrize("name", COMMANDS)
def test_it_works_without_a_network(world: Path, name: str) -> None:
    alone = called(world, name, *without_network())
    usual = called(world, name)
    assert alone.returncode == usual.returncode, alone.stderr
    assert "Traceback" not in alone.stderr
    assert bool(alone.stdout) == bool(usual.stdout)
