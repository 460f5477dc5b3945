"""Reads what a vLLM release knows (flags, variables, registries) from its source, by syntax tree, running none of it.

Standard library only: it serves the generator of the shipped data and, where the data is older than the examined
installation, the doctor itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from vllm_doctor.releases.extract.environment import VariableFacts, read_variables
from vllm_doctor.releases.extract.flags import FlagFacts, read_flags
from vllm_doctor.releases.extract.machine import Machine
from vllm_doctor.releases.extract.names import BudgetSpent
from vllm_doctor.releases.extract.registries import (
    read_architectures,
    read_attention_backends,
    read_quantization,
    read_reasoning_parsers,
    read_removed_architectures,
    read_tool_parsers,
)
from vllm_doctor.releases.extract.tree import SourceTree

__all__ = ["Extracted", "FlagFacts", "VariableFacts", "extract"]

Fact = TypeVar("Fact")


@dataclass(frozen=True)
class Extracted:
    """What one source tree says; an empty container where the tree does not hold that part or it could not be read."""

    flags: dict[str, FlagFacts] = field(default_factory=dict)
    variables: dict[str, VariableFacts] = field(default_factory=dict)
    architectures: frozenset[str] = frozenset()
    removed_architectures: dict[str, str] = field(default_factory=dict)
    tool_parsers: tuple[str, ...] = ()
    reasoning_parsers: tuple[str, ...] = ()
    quantization: dict[str, int | None] = field(default_factory=dict)
    attention_backends: tuple[str, ...] = ()


def extract(package: Path) -> Extracted:
    """Read the `vllm/` folder of a source archive or of an installation; never raises on what it finds there."""
    tree = SourceTree(package)
    return Extracted(
        flags=_part(tree, read_flags, {}),
        variables=_part(tree, read_variables, {}),
        architectures=_part(tree, read_architectures, frozenset()),
        removed_architectures=_part(tree, read_removed_architectures, {}),
        tool_parsers=_part(tree, read_tool_parsers, ()) or _early_tool_parsers(tree),
        reasoning_parsers=_part(tree, read_reasoning_parsers, ()),
        quantization=_part(tree, read_quantization, {}),
        attention_backends=_part(tree, read_attention_backends, ()),
    )


def _part(tree: SourceTree, read: Callable[[Machine], Fact], nothing: Fact) -> Fact:
    """One part, with a reader and a budget of its own, so that one unreadable part does not take the others along."""
    try:
        return read(Machine(tree))
    except (BudgetSpent, RecursionError, MemoryError):
        return nothing


def _early_tool_parsers(tree: SourceTree) -> tuple[str, ...]:
    """0.6.0 - 0.6.2 had no registry: the parsers are the choices of `--tool-call-parser`."""
    flags: dict[str, FlagFacts] = _part(tree, read_flags, {})
    flag = flags.get("--tool-call-parser")
    return tuple(sorted(flag.choices)) if flag and flag.choices else ()
