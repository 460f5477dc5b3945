"""Flags as every generation of vLLM's source declares them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.releases.trees import CLI_ARGS, engine_arguments, write_tree
from vllm_doctor.releases.extract import FlagFacts, extract

GET_KWARGS = """
import argparse, json
from vllm.config import CacheConfig, ModelConfig

def optional_type(return_type):
    def _optional_type(val):
        return return_type(val)
    return _optional_type

def get_kwargs(cls):
    kwargs = {}
    for field in fields(cls):
        human_readable_int_args = {"max_num_batched_tokens"}
        if name == "max_model_len":
            kwargs[name]["type"] = human_readable_int_or_auto
        elif name in human_readable_int_args:
            kwargs[name]["type"] = human_readable_int
        if type_hints == {bool, str, type(None)}:
            kwargs[name]["nargs"] = "?"
    return kwargs

def literal_to_kwargs(type_hints):
    kwarg = "metavar" if contains_type(type_hints, str) else "choices"
"""

CONFIG = '''
from dataclasses import field
from typing import Annotated, Any, ClassVar, Literal, Optional, Union
from pydantic import Field

Dtype = Literal["auto", "fp8"]

@config
class Inner:
    depth: int = 1

@config
class Base:
    DEFAULT: ClassVar[int] = 16
    inherited: float = 0.5

@config
class CacheConfig(Base):
    block_size: int = Field(default=None, gt=0)
    cache_dtype: Dtype = "auto"
    free: Optional[Union[Dtype, str]] = None
    max_model_len: int = None
    max_num_batched_tokens: Optional[int] = None
    inner: Inner = field(default_factory=Inner)
    extra: dict[str, Any] = field(default_factory=dict)
    overrides: Union[dict[str, Any], Any] = field(default_factory=dict)
    names: list[str] = field(default_factory=lambda: ["a"])
    token: Union[bool, str, None] = None
    on: bool = True
    """Deprecated: has no effect."""
    sizes: list[Literal[1, 2]] | None = None

class ModelConfig:
    pass
'''


def read(tmp_path: Path, files: dict[str, str]) -> dict[str, FlagFacts]:
    return extract(write_tree(tmp_path, files)).flags


def one(tmp_path: Path, call: str, head: str = "import argparse, json") -> FlagFacts:
    (flag,) = read(tmp_path, engine_arguments(f"parser.add_argument({call})", head)).values()
    return flag


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        pytest.param("'--a', type=int, default=8", FlagFacts("--a", "int", default="8"), id="int"),
        pytest.param("'--a', '-a', type=nullable_str", FlagFacts("--a", short=("-a",)), id="text with a short name"),
        pytest.param("'--a', action='store_true'", FlagFacts("--a", "bool", default="False", nargs="0"), id="switch"),
        pytest.param(
            "'--a', action=argparse.BooleanOptionalAction, default=None",
            FlagFacts("--a", "bool", nargs="0", negatable=True),
            id="switch with --no-a",
        ),
        pytest.param(
            "'--a', action=StoreBoolean, nargs='?', const='True'",
            FlagFacts("--a", "bool", nargs="?"),
            id="optional value",
        ),
        pytest.param(
            "'--a', choices=['x', None, 'y']", FlagFacts("--a", choices=("x", "y")), id="choices without None"
        ),
        pytest.param(
            "'--a', choices=['x'] + plugins()",
            FlagFacts("--a", choices=("x",), open_choices=True),
            id="computed choice",
        ),
        pytest.param("'--a', type=json.loads, default=['*']", FlagFacts("--a", "json", default='["*"]'), id="json"),
        pytest.param(
            "'--a', action='append', default=[]", FlagFacts("--a", default="[]", repeated=True), id="repeated by append"
        ),
        pytest.param("'--a', nargs='+'", FlagFacts("--a", nargs="+", repeated=True), id="several values"),
        pytest.param(
            "'--a', choices=['x_y'], type=lambda s: s.lower()",
            FlagFacts("--a", choices=("x_y",), folded=True),
            id="case does not matter",
        ),
        pytest.param("'--a', default=get_ip()", FlagFacts("--a", default="<get_ip()>"), id="computed default"),
        pytest.param("'--a', default=argparse.SUPPRESS", FlagFacts("--a"), id="suppressed default"),
        pytest.param("'--a', default=4 * 1024**2", FlagFacts("--a", default="4194304"), id="arithmetic"),
        pytest.param(
            "'--a', help='[DEPRECATED] gone. More.'", FlagFacts("--a", deprecated="[DEPRECATED] gone"), id="deprecated"
        ),
    ],
)
def test_one_call(tmp_path: Path, call: str, expected: FlagFacts) -> None:
    assert one(tmp_path, call) == expected


def test_an_alias_has_an_entry_of_its_own(tmp_path: Path) -> None:
    flags = read(tmp_path, engine_arguments("parser.add_argument('--gpu', '--device', type=float, default=0.9)"))
    assert flags["--device"] == FlagFacts("--device", "float", default="0.9", alias_of="--gpu")
    assert flags["--gpu"].alias_of is None


def test_config_fields_become_flags(tmp_path: Path) -> None:
    fields = ["inherited", "block_size", "cache_dtype", "free", "max_model_len", "max_num_batched_tokens", "inner"]
    fields += ["extra", "overrides", "names", "token", "on", "sizes"]
    body = "cache = get_kwargs(CacheConfig)\ngroup = parser.add_argument_group(title='x')\n"
    body += "\n".join(f"group.add_argument('--{name.replace('_', '-')}', **cache['{name}'])" for name in fields)
    flags = read(tmp_path, {**engine_arguments(body, GET_KWARGS), "config/__init__.py": CONFIG})
    assert list(flags.values()) == [
        FlagFacts("--block-size", "int"),
        FlagFacts("--cache-dtype", choices=("auto", "fp8"), default="auto"),
        FlagFacts("--extra", "json", default="{}"),
        FlagFacts("--free", choices=("auto", "fp8"), open_choices=True),
        FlagFacts("--inherited", "float", default="0.5"),
        FlagFacts("--inner", "json", default="Inner"),
        FlagFacts("--max-model-len", "human-int-or-auto"),
        FlagFacts("--max-num-batched-tokens", "human-int"),
        FlagFacts("--names", default='["a"]', nargs="+", repeated=True),
        FlagFacts("--on", "bool", default="True", deprecated="Deprecated: has no effect.", nargs="0", negatable=True),
        FlagFacts("--overrides", "json-or-str", default="{}"),
        FlagFacts("--sizes", "int", choices=("1", "2"), nargs="+", repeated=True),
        FlagFacts("--token", nargs="?"),
    ]


def test_keywords_that_are_changed_before_they_are_used(tmp_path: Path) -> None:
    body = """
cache = get_kwargs(CacheConfig)
cache["names"]["type"] = optional_type(json.loads)
del cache["names"]["nargs"]
cache["cache_dtype"]["choices"].remove("fp8")
parser.add_argument("--names", **cache["names"])
parser.add_argument("--dtype", **{**cache["cache_dtype"], "default": None})
"""
    flags = read(tmp_path, {**engine_arguments(body, GET_KWARGS), "config/__init__.py": CONFIG})
    assert list(flags.values()) == [
        FlagFacts("--dtype", choices=("auto",)),
        FlagFacts("--names", "json", default='["a"]'),
    ]


FRONTEND = """
from vllm.config import config
from vllm.engine.arg_utils import get_kwargs

@config
class BaseFrontendArgs:
    api_key: list[str] | None = None

    @classmethod
    def _customize_cli_kwargs(cls, frontend_kwargs):
        frontend_kwargs["api_key"]["type"] = str
        return frontend_kwargs

    @classmethod
    def add_cli_args(cls, parser):
        frontend_kwargs = cls._customize_cli_kwargs(get_kwargs(cls))
        for key, value in frontend_kwargs.items():
            parser.add_argument(f"--{key.replace('_', '-')}", **value)
        return parser

@config
class FrontendArgs(BaseFrontendArgs):
    port: int = 8000

    @classmethod
    def _customize_cli_kwargs(cls, frontend_kwargs):
        frontend_kwargs = super()._customize_cli_kwargs(frontend_kwargs)
        frontend_kwargs["port"]["default"] = 9000
        return frontend_kwargs

def make_arg_parser(parser):
    parser.add_argument("model_tag", nargs="?")
    parser = FrontendArgs.add_cli_args(parser)
    return parser
"""


def test_every_field_of_the_front_end_class_is_a_flag(tmp_path: Path) -> None:
    files = engine_arguments("pass", "def get_kwargs(cls):\n    return {}\n") | {
        CLI_ARGS: FRONTEND,
        "config.py": CONFIG,
    }
    assert list(read(tmp_path, files).values()) == [
        FlagFacts("--api-key", nargs="+", repeated=True),
        FlagFacts("--port", "int", default="9000"),
    ]


def test_serve_subcommand_adds_its_own_flags(tmp_path: Path) -> None:
    many = "\n".join(f"parser.add_argument('--flag-{number}')" for number in range(20))
    serve = """
from vllm.entrypoints.openai.cli_args import make_arg_parser

class ServeSubcommand:
    def subparser_init(self, subparsers):
        serve_parser = subparsers.add_parser("serve", help="x")
        serve_parser.add_argument("--headless", action="store_true")
        return make_arg_parser(serve_parser)
"""
    flags = read(tmp_path, engine_arguments(many) | {"entrypoints/cli/serve.py": serve})
    assert len(flags) == 21
    assert flags["--headless"] == FlagFacts("--headless", "bool", default="False", nargs="0")


def test_undecidable_conditions_declare_both_sides_and_cuda_is_assumed(tmp_path: Path) -> None:
    body = """
if current_platform.is_rocm():
    parser.add_argument("--rocm")
if "serve" in sys.argv:
    parser.add_argument("--one")
else:
    parser.add_argument("--two")
"""
    assert list(read(tmp_path, engine_arguments(body, "import sys"))) == ["--one", "--two"]
