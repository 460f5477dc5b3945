"""Reads the registries of a release: architectures, parsers, quantization methods, attention backends."""

from __future__ import annotations

import ast
import re

from vllm_doctor.releases.extract.machine import Machine
from vllm_doctor.releases.extract.tree import Module
from vllm_doctor.releases.extract.values import ClassRef, FunctionRef, Hint, Unknown, Value

MODEL_TABLES = ("_VLLM_MODELS", "_MODELS")
"""`_VLLM_MODELS` stands in `model_executor/models/registry.py` from 0.6.2, `_MODELS` in `models/__init__.py` before."""

REMOVED_TABLES = ("_PREVIOUSLY_SUPPORTED_MODELS", "_OOT_SUPPORTED_MODELS")

DECORATED = re.compile(r"@(\w+)Manager\.register_module\(\s*(?:name\s*=\s*)?(\[[^\]]*\]|\"[^\"]+\"|'[^']+')")

CAPABILITY_DIGITS = 3


def read_architectures(machine: Machine) -> frozenset[str]:
    """The model architectures that a release has code for (`architectures` in a model's config.json)."""
    for name in ("vllm.model_executor.models.registry", "vllm.model_executor.models"):
        module = machine.tree.module(name)
        for table in MODEL_TABLES if module else ():
            found = machine.member(module, table) if module else None
            if isinstance(found, dict) and found:
                return frozenset(key for key in found if isinstance(key, str))
            tables = _tables(machine, module, table)
            if tables:
                return tables
    return frozenset()


def _tables(machine: Machine, module: Module | None, name: str) -> frozenset[str]:
    """`_MODELS = dict(**_GENERATION_MODELS, **_EMBEDDING_MODELS)`: the names of the tables that a call joins."""
    binding = module.bindings.get(name) if module else None
    if module is None or not isinstance(binding, ast.Call):
        return frozenset()
    parts = [keyword.value.id for keyword in binding.keywords if isinstance(keyword.value, ast.Name)]
    tables = [machine.member(module, part) for part in parts]
    return frozenset(key for table in tables if isinstance(table, dict) for key in table if isinstance(key, str))


def read_removed_architectures(machine: Machine) -> dict[str, str]:
    """Architectures that a release knows to be gone: the last release that had them, or the address of their plugin."""
    module = machine.tree.module("vllm.model_executor.models.registry")
    found: dict[str, str] = {}
    for table in REMOVED_TABLES if module else ():
        value = machine.member(module, table) if module else None
        if isinstance(value, dict):
            found.update({str(key): item for key, item in value.items() if isinstance(item, str)})
    return dict(sorted(found.items()))


def read_tool_parsers(machine: Machine) -> tuple[str, ...]:
    """Names for `--tool-call-parser`."""
    return _parsers(
        machine, ("tool_parsers", "entrypoints/openai/tool_parsers"), "ToolParser", "_TOOL_PARSERS_TO_REGISTER"
    )


def read_reasoning_parsers(machine: Machine) -> tuple[str, ...]:
    """Names for `--reasoning-parser`."""
    folders = ("reasoning", "entrypoints/openai/reasoning_parsers")
    return _parsers(machine, folders, "ReasoningParser", "_REASONING_PARSERS_TO_REGISTER")


def _parsers(machine: Machine, folders: tuple[str, ...], manager: str, table: str) -> tuple[str, ...]:
    """Names registered by a table (from 0.11.1) or by decorators (before)."""
    found: set[str] = set()
    for folder in folders:
        for path in machine.tree.paths(folder):
            text = machine.tree.text(path)
            if table in text:
                module = machine.tree.module(machine.tree.module_name(path))
                value = machine.member(module, table) if module else None
                found.update(key for key in machine.items_of(value) if isinstance(key, str))
            for owner, names in DECORATED.findall(text):
                found.update(re.findall(r"[\"']([^\"']+)[\"']", names) if owner == manager else ())
    return tuple(sorted(found))


def read_quantization(machine: Machine) -> dict[str, int | None]:
    """Quantization methods, each with the least compute capability (89 = 8.9) or None where the class does not say."""
    module = machine.tree.module("vllm.model_executor.layers.quantization")
    if module is None:
        return {}
    table = _method_table(machine, module)
    names = _method_names(machine, module) or [key for key in table if isinstance(key, str)]
    return {name: _least_capability(machine, table.get(name)) for name in sorted(names)}


def _method_table(machine: Machine, module: Module) -> dict[Value, Value]:
    for name in ("QUANTIZATION_METHODS", "_QUANTIZATION_CONFIG_REGISTRY"):
        found = machine.member(module, name)
        if isinstance(found, dict):
            return found
    function = machine.member(module, "get_quantization_config")
    if isinstance(function, FunctionRef):
        found = machine.locals_of(function, [Unknown("quantization")]).get("method_to_config")
        return found if isinstance(found, dict) else {}
    return {}


def _method_names(machine: Machine, module: Module) -> list[str]:
    for name in ("QuantizationMethods", "QUANTIZATION_METHODS"):
        found = machine.member(module, name)
        items = list(found.arguments) if isinstance(found, Hint) else machine.items_of(found)
        names = [item for item in items if isinstance(item, str)]
        if names:
            return names
    return []


def _least_capability(machine: Machine, config: Value) -> int | None:
    """The constant that `get_min_capability` returns, of the class or of its nearest base that has one."""
    if not isinstance(config, ClassRef):
        return None
    method = machine.attribute(config, "get_min_capability")
    if not isinstance(method, FunctionRef):
        return None
    value = machine.run(method, [config], {}, 0)
    return value if isinstance(value, int) and 0 < value < 10**CAPABILITY_DIGITS else None


def read_attention_backends(machine: Machine) -> tuple[str, ...]:
    """Names for `--attention-backend` (before 0.13.0: for VLLM_ATTENTION_BACKEND)."""
    for name in ("AttentionBackendEnum", "_Backend"):
        for module in _backend_modules(machine, name):
            found = machine.member(module, name)
            members = machine.members(found) if isinstance(found, ClassRef) else []
            if members:
                return tuple(sorted(member.name for member in members))
    return ()


def _backend_modules(machine: Machine, name: str) -> list[Module]:
    found = [
        module
        for folder in ("v1/attention", "attention", "platforms")
        for module in machine.tree.defining(f"class {name}", folder)
    ]
    return [module for module in found if isinstance(module.bindings.get(name), ast.ClassDef)]
