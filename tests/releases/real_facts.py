"""Asks a real vLLM 0.32.0, in its own interpreter, for its argparse parser and registries; prints them as JSON."""

from __future__ import annotations

import argparse
import json
import sys
import types
from importlib import import_module
from typing import Any


def main() -> None:
    """Print everything."""
    envs = import_module("vllm.envs")
    make_arg_parser = import_module("vllm.entrypoints.launchers.cli_args").make_arg_parser
    quantization = import_module("vllm.model_executor.layers.quantization")
    models = import_module("vllm.model_executor.models.registry").ModelRegistry
    reasoning = import_module("vllm.reasoning").ReasoningParserManager
    tools = import_module("vllm.tool_parsers").ToolParserManager
    new_parser = import_module("vllm.utils.argparse_utils").FlexibleArgumentParser
    backends = import_module("vllm.v1.attention.backends.registry").AttentionBackendEnum
    methods = quantization.QUANTIZATION_METHODS

    parser = make_arg_parser(new_parser(prog="serve"))
    facts = {
        "flags": [described(action) for action in parser._actions if "--help" not in action.option_strings],
        "env": sorted(envs.environment_variables),
        "architectures": sorted(models.get_supported_archs()),
        "tool_parsers": sorted(tools.list_registered()),
        "reasoning_parsers": sorted(reasoning.list_registered()),
        "quantization": {name: quantization.get_quantization_config(name).get_min_capability() for name in methods},
        "attention_backends": sorted(backends.__members__),
    }
    sys.stdout.write(json.dumps(facts) + "\n")


def described(action: argparse.Action) -> dict[str, Any]:
    """One argparse action as plain data."""
    return {
        "options": action.option_strings,
        "action": type(action).__name__,
        "type": converter_name(action.type),
        "choices": None
        if action.choices is None
        else [str(item) for item in action.choices if item not in (None, "None")],
        "default": default_text(action.default),
        "nargs": action.nargs,
    }


def converter_name(converter: Any) -> str | None:
    """The innermost converter: `optional_type(int)` is int."""
    while isinstance(converter, types.FunctionType) and converter.__qualname__.endswith(
        ("_optional_type", "_parse_type")
    ):
        closure = zip(converter.__code__.co_freevars, converter.__closure__ or (), strict=True)
        converter = next(cell.cell_contents for name, cell in closure if name == "return_type")
    return None if converter is None else converter.__qualname__


def default_text(value: Any) -> str | None:
    """A default as the doctor writes it: JSON for collections, the class of a config object, an enum member's name."""
    if value is None or value == argparse.SUPPRESS or isinstance(value, str):
        return None if value == argparse.SUPPRESS else value
    if isinstance(value, dict | list | tuple | set):
        return json.dumps(sorted(value) if isinstance(value, set) else value)
    if isinstance(value, bool | int | float):
        return str(value + 0 if type(value) not in (bool, int, float) else value)
    return getattr(value, "name", type(value).__name__)


if __name__ == "__main__":
    main()
