"""Folds the facts of all releases into runs and lays them out as text, one line per run; the inverse of `store.at`."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from vllm_doctor.releases.extract import Extracted
from vllm_doctor.releases.source import flags_from, variables_from
from vllm_doctor.releases.store import ReleaseRow, Runs

Fact = TypeVar("Fact")

SOURCE = "package metadata and source archives of every release, by scripts/refresh_releases.py; kernels: kernels.py"


def pack(versions: Sequence[str], facts: Sequence[Mapping[str, Fact]]) -> Runs[Fact]:
    """Fold facts by release into runs of equal facts. Both sequences are oldest first and of one length."""
    runs: Runs[Fact] = {}
    previous: Mapping[str, Fact] = {}
    for position, (version, current) in enumerate(zip(versions, facts, strict=True)):
        for name in sorted(previous.keys() | current.keys()):
            goes_on = name in previous and name in current and previous[name] == current[name]
            if name in previous and not goes_on:
                first, _, fact = runs[name][-1]
                runs[name][-1] = (first, versions[position - 1], fact)
            if name in current and not goes_on:
                runs.setdefault(name, []).append((version, None, current[name]))
        previous = current
    return dict(sorted(runs.items()))


def data_files(versions: Sequence[str], found: Sequence[Extracted], pins: Sequence[dict[str, str]]) -> dict[str, str]:
    """The texts of the data files that hold runs, by file name."""

    def folded(facts: Callable[[Extracted], Mapping[str, Any]]) -> Runs[Any]:
        return pack(versions, [facts(each) for each in found])

    registries = {
        "tool_parsers": folded(lambda each: dict.fromkeys(each.tool_parsers)),
        "reasoning_parsers": folded(lambda each: dict.fromkeys(each.reasoning_parsers)),
        "quantization": folded(lambda each: each.quantization),
        "attention_backends": folded(lambda each: dict.fromkeys(each.attention_backends)),
    }
    return {
        "flags.json": spans_text(folded(lambda each: nameless(flags_from(each)))),
        "variables.json": spans_text(folded(lambda each: nameless(variables_from(each)))),
        "architectures.json": spans_text(folded(lambda each: dict.fromkeys(each.architectures))),
        "removed_architectures.json": spans_text(folded(lambda each: each.removed_architectures)),
        "registries.json": tables_text(registries),
        "pins.json": spans_text(pack(versions, pins)),
    }


def index_text(generated: str, rows: Mapping[str, ReleaseRow]) -> str:
    """The text of `releases.json`; generated: ISO date."""
    head = f' "source": "{SOURCE}",\n "generated": "{generated}",\n'
    return f'{{\n{head} "releases": {table_text(rows, " ")}\n}}\n'


def nameless(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Facts without their own names: the key of the file says them."""
    return {name: msgspec.structs.replace(fact, name="") for name, fact in facts.items()}


def table_text(table: Mapping[str, Any], indent: str = "") -> str:
    """A table as JSON with one line per entry."""
    rows = [f"{indent} {json.dumps(name)}: {msgspec.json.encode(value).decode()}" for name, value in table.items()]
    return "{\n" + ",\n".join(rows) + f"\n{indent}}}" if rows else "{}"


def tables_text(tables: Mapping[str, Mapping[str, Any]]) -> str:
    """Several tables as one JSON file."""
    return "{\n" + ",\n".join(f' "{name}": {table_text(table, " ")}' for name, table in tables.items()) + "\n}\n"


def spans_text(table: Runs[Any]) -> str:
    """Runs as JSON with one line per run."""
    rows = []
    for name, entries in table.items():
        texts = [msgspec.json.encode(entry).decode() for entry in entries]
        inner = "\n  " + ",\n  ".join(texts) if len(texts) > 1 else "".join(texts)
        rows.append(f" {json.dumps(name)}: [{inner}]")
    return "{\n" + ",\n".join(rows) + "\n}\n"
