"""Builds small `vllm/` source trees for the extractor."""

from __future__ import annotations

from pathlib import Path

ARG_UTILS = "engine/arg_utils.py"

CLI_ARGS = "entrypoints/openai/cli_args.py"

MAKE_PARSER = """
from vllm.engine.arg_utils import AsyncEngineArgs

def make_arg_parser(parser):
    return AsyncEngineArgs.add_cli_args(parser)
"""


def write_tree(folder: Path, files: dict[str, str]) -> Path:
    """Write a `vllm/` folder with an `__init__.py` in every package, and give its path."""
    package = folder / "vllm"
    for name, text in {"__init__.py": "", **files}.items():
        path = package / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        for parent in path.relative_to(package).parents:
            (package / parent / "__init__.py").touch()
    return package


def engine_arguments(body: str, head: str = "") -> dict[str, str]:
    """Sources whose `AsyncEngineArgs.add_cli_args` holds the given statements."""
    indented = "\n".join(f"        {line}" for line in body.strip().splitlines())
    method = f"    @staticmethod\n    def add_cli_args(parser):\n{indented}\n        return parser\n"
    text = f"{head}\nclass AsyncEngineArgs:\n{method}"
    return {ARG_UTILS: text, CLI_ARGS: MAKE_PARSER}
