"""Environments and models made to hurt: `vllm-doctor run` runs none of them, ends in time and stays small."""

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.environment.builders import make_environment, write_files, write_torch, write_vllm
from tests.model.folders import llama
from tests.security.calling import Call, measured

# The time limit of a child is 30 seconds; two busy cores may take as long again.
MAXIMUM_SECONDS = 60
MAXIMUM_MIB = 250

Bomb = Callable[[Path, Path], None]


def _path_files(site: Path, marker: Path) -> None:
    """Code, very many lines, very long ones, and folders that lead back."""
    run = f"import os; open({str(marker)!r}, 'w')\n"
    files: dict[str, str | bytes] = {f"a{number}.pth": run + ".\n..\n/\n" for number in range(2000)}
    files |= {
        "lines.pth": run + f"{site}\n" * 500_000,
        "long.pth": "x" * 20_000_000 + "\n" + run,
        "binary.pth": os.urandom(200_000),
        "sitecustomize.py": run,
        "usercustomize.py": run,
    }
    write_files(site, files)
    (site / "loop.pth").symlink_to("loop.pth")
    os.mkfifo(site / "waits.pth")


def _python_modules(site: Path, marker: Path) -> None:
    """Modules that would run, recurse or fill the memory where anybody imports or parses them."""
    run = f"open({str(marker)!r}, 'w')\n"
    deep = "(" * 5_000
    write_files(
        site,
        {
            "vllm/version.py": run + f"__version__ = {deep}",
            "torch/version.py": run + "__version__ = 'x' * 10**12\n" + "a = 1\n" * 500_000,
            "numpy/__init__.py": run,
            "transformers/__init__.py": run + deep,
            "__editable___vllm_finder.py": f"MAPPING = {deep}",
        },
    )


def _metadata(site: Path, _marker: Path) -> None:
    """Distributions by the thousand, requirements without end, a RECORD of everything."""
    for number in range(3000):
        folder = site / f"bomb{number}-1.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: bomb{number}\nVersion: 1\n", encoding="utf-8")
    requires = "".join(f"Requires-Dist: bomb{number} (>={'1.' * 200}0)\n" for number in range(20_000))
    (site / "vllm-0.20.2.dist-info" / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: vllm\nVersion: 0.20.2\n{requires}", encoding="utf-8"
    )
    (site / "vllm-0.20.2.dist-info" / "RECORD").write_text("../../../etc/passwd,,\n" * 500_000, encoding="utf-8")


def _elf(name_table: int, count: int) -> bytes:
    """The head of a library of 64 bits whose tables claim that many bytes and entries."""
    head = b"\x7fELF\x02\x01\x01" + bytes(9)
    head += struct.pack("<HHIQQQIHHHHHH", 3, 62, 1, 0, 64, 64 + 56 * 2, 0, 64, 56, 2, 64, 0xFFFF, 0)
    load = struct.pack("<IIQQQQQQ", 1, 5, 0, 0, 0, 2**62, 2**62, 4096)
    dynamic = struct.pack("<IIQQQQQQ", 2, 6, 256, 256, 256, 2**40, 2**40, 8)
    entries = [(5, 512), (10, name_table), (6, 512), (11, 24), (4, 600), (0x6FFFFEF5, 600)] + [(1, 7)] * count
    return (head + load + dynamic).ljust(256, b"\0") + b"".join(struct.pack("<QQ", *entry) for entry in entries)


def _libraries(site: Path, _marker: Path) -> None:
    """Libraries that claim more than there is, need themselves, and are hundreds."""
    bombs = {
        "huge": _elf(2**60, 4000) + b"\xff" * 4096,
        "looped": _elf(64, 4000) + struct.pack("<IIII", 1, 1, 0, 0) * 1000,
        "random": b"\x7fELF\x02\x01\x01" + os.urandom(500_000),
        "cut": _elf(64, 10)[:100],
    }
    for package in ("vllm", "torch/lib", "flashinfer"):
        for name, content in bombs.items():
            for number in range(60):
                write_files(site, {f"{package}/_C{name}{number}.abi3.so": content})
    (site / "vllm" / "_C.abi3.so").symlink_to("/dev/zero")
    (site / "torch" / "lib" / "libtorch.so").symlink_to("libtorch.so")


BOMBS: dict[str, Bomb] = {
    "path files": _path_files,
    "modules": _python_modules,
    "metadata": _metadata,
    "libraries": _libraries,
}


def is_small(call: Call) -> None:
    assert call.code in (0, 1)
    assert call.seconds < MAXIMUM_SECONDS
    assert call.peak_mib < MAXIMUM_MIB


@pytest.mark.parametrize("name", BOMBS)
def test_an_environment_that_is_a_bomb(tmp_path: Path, name: str) -> None:
    site = make_environment(tmp_path / "venv")
    write_vllm(site)
    write_torch(site)
    marker = tmp_path / "was-run"
    BOMBS[name](site, marker)
    python = tmp_path / "venv" / "bin" / "python"
    call = measured("run", "--python", python, "--format", "json", folder=tmp_path)
    is_small(call)
    assert json.loads(call.output)["checks"]
    assert not marker.exists()


TEMPLATES = {
    "a loop without end": "{% for a in range(10**9) %}{% for b in range(10**9) %}x{% endfor %}{% endfor %}",
    "a number of a million digits": "{{ 9 ** 9 ** 9 }}{{ 'x' * 10**12 }}",
    "parentheses": "{{ " + "(" * 20_000 + ")" * 20_000 + " }}",
    "blocks": "{% if a %}" * 20_000,
    "filters": "{{ x" + " | upper" * 50_000 + " }}",
    "the classes of Python": "{{ ''.__class__.__mro__[1].__subclasses__() }}{{ cycler.__init__.__globals__.os }}",
    "itself": "{% include 'chat_template.jinja' %}{% extends 'chat_template.jinja' %}{% import 'os' as os %}",
    "megabytes": "{# x #}" * 1_000_000,
    "no text": "\ud800".encode("utf-8", "surrogatepass").decode("latin-1"),
}


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("place", ["chat_template.jinja", "tokenizer_config.json"])
def test_a_template_that_is_a_bomb(tmp_path: Path, name: str, place: str) -> None:
    model = llama(tmp_path / "model")
    if place == "chat_template.jinja":
        (model / place).write_text(TEMPLATES[name], encoding="utf-8")
    else:
        (model / place).write_text(json.dumps({"chat_template": TEMPLATES[name]}), encoding="utf-8")
    call = measured("run", "--format", "json", "--", "vllm", "serve", model, folder=tmp_path)
    is_small(call)
    assert any(check["id"] == "chat-template" for check in json.loads(call.output)["checks"])
