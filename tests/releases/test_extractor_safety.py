"""The extractor reads what others wrote: it runs none of it, reads a bounded amount, and survives anything."""

from __future__ import annotations

import ast
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.releases.trees import ARG_UTILS, CLI_ARGS, engine_arguments, write_tree
from vllm_doctor.releases.extract import Extracted, extract
from vllm_doctor.releases.extract.tree import MAXIMUM_FILE_BYTES, SourceTree
from vllm_doctor.releases.source import read_installed

SOURCES = (ARG_UTILS, CLI_ARGS, "envs.py", "model_executor/models/registry.py", "attention/selector.py")

FRAGMENTS = (
    "parser.add_argument('--a', **x['y'])",
    "while True: pass",
    "for i in i: parser.add_argument(i)",
    "parser.add_argument(f'--{parser}')",
    "cls = cls.cls",
    "x = [x for x in x]",
    "return AsyncEngineArgs.add_cli_args(parser)",
    "x = {**{}, 'a': {}}; x['a']['b'] = x; x['c'] = x",
    "x = 'a' * 10**9",
    "x = 2 ** 2 ** 2 ** 64",
    "x = 10.0 ** 400; y = 1 / 0; z = 1 << 10**9",
    "parser.add_argument('--a', default=x, choices=x, help=1, nargs=[], type={}, action=3)",
    "x = ['a', 'b']; " + "x = [x, x]; " * 60,
    "x = 'ab'; " + "x = x + x; " * 60 + "y = f'{x}{x}'",
    "x = {}; " + "y = {}; y['a'] = x; y['b'] = x; x = y; " * 60,
    "x = Literal['a']; " + "x = x | x; " * 60 + "y = get_args(x)",
    "x = []; " + "x.append(x); x.extend(x); " * 60,
    "parser.add_argument('--b', default=x, choices=x, metavar=x, help=x, type=x)",
    "del x['a'], y",
    "x: 'unclosed[' = 1",
    "get_kwargs(AsyncEngineArgs); get_args(Literal[Literal['a'], 1]); get_field(AsyncEngineArgs, 3)",
)

any_settings = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def test_nothing_is_run(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    text = f"open({str(marker)!r}, 'w')\nimport vllm_would_be_imported\n"
    package = write_tree(tmp_path, dict.fromkeys(SOURCES, text))
    assert extract(package) == Extracted()
    assert not marker.exists()
    assert "vllm_would_be_imported" not in sys.modules


def test_an_oversized_file_is_not_read(tmp_path: Path) -> None:
    package = write_tree(tmp_path, {"envs.py": "environment_variables = {'VLLM_X': 1}\n" + "#" * MAXIMUM_FILE_BYTES})
    assert extract(package).variables == {}


def test_a_link_out_of_the_tree_is_not_read(tmp_path: Path) -> None:
    outside = tmp_path / "outside.py"
    outside.write_text("environment_variables = {'VLLM_SECRET': 1}\n")
    package = write_tree(tmp_path, {})
    (package / "envs.py").symlink_to(outside)
    assert extract(package).variables == {}


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    assert read_installed(tmp_path / "vllm").flags == {}


@pytest.mark.parametrize("text", ["x = (" * 500, "-" * 100_000 + "1", "x\0y", "a" + ".b" * 50_000, "(" * 90 + ")" * 90])
def test_hostile_nesting(tmp_path: Path, text: str) -> None:
    package = write_tree(tmp_path, dict.fromkeys(SOURCES, text))
    assert extract(package).flags == {}


def test_functions_that_call_each_other_for_ever(tmp_path: Path) -> None:
    body = "return AsyncEngineArgs.add_cli_args(AsyncEngineArgs.add_cli_args(parser))"
    assert extract(write_tree(tmp_path, engine_arguments(body))).flags == {}


def test_module_names_cannot_leave_the_package(tmp_path: Path) -> None:
    tree = SourceTree(write_tree(tmp_path, {}))
    assert [tree.module(name) for name in ("os", "vllm.../x", "vllm..", "vllm./etc/passwd", "")] == [None] * 5


@any_settings
@given(st.lists(st.binary(max_size=400), min_size=len(SOURCES), max_size=len(SOURCES)))
def test_arbitrary_bytes(contents: list[bytes]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        package = write_tree(Path(folder), dict.fromkeys(SOURCES, ""))
        for name, content in zip(SOURCES, contents, strict=True):
            (package / name).write_bytes(content)
        assert isinstance(extract(package), Extracted)


@any_settings
@given(st.lists(st.sampled_from(FRAGMENTS), max_size=8))
def test_arbitrary_statements(fragments: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        package = write_tree(Path(folder), engine_arguments("\n".join(["pass", *fragments])))
        assert isinstance(read_installed(package).flags, dict)


@any_settings
@given(st.text(alphabet=st.characters(min_codepoint=32, max_codepoint=126), max_size=200))
def test_arbitrary_text_in_a_flag_declaration(text: str) -> None:
    body = f"parser.add_argument('--a', default={text})"
    with tempfile.TemporaryDirectory() as folder:
        package = write_tree(Path(folder), engine_arguments(body))
        parses = _parses((package / ARG_UTILS).read_text(encoding="utf-8"))
        assert set(extract(package).flags) <= ({"--a"} if parses else set()) or parses


def _parses(text: str) -> bool:
    try:
        ast.parse(text)
    except (SyntaxError, ValueError):
        return False
    return True


def test_make_parser_without_arguments_is_the_form_of_old_releases(tmp_path: Path) -> None:
    statements = ("parser = argparse.ArgumentParser()", "parser.add_argument('--old')", "return parser")
    old = "def make_arg_parser():\n" + "".join(f"    {statement}\n" for statement in statements)
    assert list(extract(write_tree(tmp_path, {CLI_ARGS: old})).flags) == ["--old"]
