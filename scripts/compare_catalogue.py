"""Compares the catalogue of models with copies of their configs, and notes what agrees beside each entry.

Usage: scripts/compare_catalogue.py FOLDER SOURCE [--write]

FOLDER holds ORGANISATION/NAME/config.json, as downloads from the hub do; SOURCE says where they are from. A file with
`architectures` is a whole config.json: where the memory plan takes the same from it as from the entry, all of the
entry's facts are compared. Of any other file, and of a whole one that differs, those facts count that agree: a table of
somebody else's may hold a few (`hidden_size`, `num_hidden_layers`, ...), by config.json's names.
Prints one line per file and what differs; `--write` notes the rest in models.json.
"""

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from vllm_doctor.facts.model import text_part
from vllm_doctor.memory.architecture import read_architecture
from vllm_doctor.memory.catalogue.comparison import digest, facts_of
from vllm_doctor.memory.config_values import ConfigError
from vllm_doctor.memory.facts import LaunchSettings, release_numbers
from vllm_doctor.memory.weights import weights
from vllm_doctor.releases import newest

MODELS = Path(__file__).resolve().parent.parent / "vllm_doctor" / "memory" / "catalogue" / "models.json"


class Result(NamedTuple):
    """The facts that agree, those that differ as (entry, copy), and what the plan takes otherwise from a whole copy.

    `agree` None: everything that the memory plan takes is the same.
    """

    agree: list[str] | None
    differ: dict[str, tuple[Any, Any]]
    planned_otherwise: list[str]


def planned_from(config: Mapping[str, Any]) -> dict[str, Any]:
    """All that the memory plan takes from a config; of the modules left unquantized, what it makes of them."""
    found, release = read_architecture(json.dumps(config)), release_numbers(newest())
    assert release is not None
    values = {name: getattr(found, name) for name in found.__struct_fields__ if name != "quantization"}
    if found.quantization is not None:
        fields = found.quantization.__struct_fields__
        values |= {f"quantization.{f}": getattr(found.quantization, f) for f in fields if f != "ignored"}
    return {**values, "weights": weights(found, LaunchSettings(), release).total_bytes}


def compare(entry: Mapping[str, Any], copy: Mapping[str, Any]) -> Result:
    """An entry's config against a copy, or against a table of some facts."""
    facts, other = facts_of(entry), at_their_places(entry, copy)
    shared = facts.keys() & other.keys()
    differ = {key: (facts[key], other[key]) for key in sorted(shared) if facts[key] != other[key]}
    otherwise = planned_otherwise(entry, copy) if "architectures" in copy else []
    whole = "architectures" in copy and not otherwise
    return Result(None if whole else sorted(shared - differ.keys()), differ, otherwise)


def planned_otherwise(entry: Mapping[str, Any], copy: Mapping[str, Any]) -> list[str]:
    """Names of what the plan takes otherwise from the copy than from the entry."""
    try:
        ours, theirs = planned_from(entry), planned_from(copy)
    except ConfigError as problem:
        return [str(problem)]
    return [name for name in ours | theirs if ours.get(name) != theirs.get(name)]


def at_their_places(entry: Mapping[str, Any], copy: Mapping[str, Any]) -> dict[str, Any]:
    """The copy's facts; a flat table's are those of the entry's text part, where that is nested."""
    facts = facts_of(copy)
    part = next((key for key, value in entry.items() if value is text_part(entry)), None)
    if part is None or part in copy:
        return facts
    return {f"{part}.{key}": value for key, value in facts.items()}


def copies(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The model's name and its config, for every file in the folder."""
    for path in sorted(folder.glob("*/*/config.json")):
        yield "/".join(path.parts[-3:-1]), json.loads(path.read_text())


def note(row: dict[str, Any], where: str, result: Result) -> None:
    """Adds a comparison to a row; one of the whole config makes those of some facts needless."""
    before = row.get("compared", {})
    if "facts" not in before and before.get("with"):
        if result.agree is not None or where in before["with"]:
            return
        sources, facts = [*before["with"], where], None
    elif result.agree is None:
        sources, facts = [where], None
    else:
        facts = sorted({*before.get("facts", []), *result.agree})
        if facts == before.get("facts"):
            return
        sources = list(dict.fromkeys([*before.get("with", []), where]))
    row["compared"] = {"with": sources, **({} if facts is None else {"facts": facts})}
    row["compared"]["digest"] = digest(row["config"], facts)


def main() -> None:
    """Compares every file in the folder with the entry of its name."""
    folder, source = Path(sys.argv[1]), sys.argv[2]
    rows = json.loads(MODELS.read_text())
    by_name = {name.lower(): row for row in rows for name in (*row["chat"], *row["base"])}
    for name, copy in copies(folder):
        if (row := by_name.get(name.lower())) is None:
            print(f"{name}: not in the catalogue")
            continue
        result = compare(row["config"], copy)
        extent = "whole" if result.agree is None else f"{len(result.agree)} facts"
        print(f"{name}: {extent}, differ: {result.differ}, planned otherwise: {result.planned_otherwise}")
        if result.agree is None or result.agree:
            note(row, f"{source} ({name})", result)
    if "--write" in sys.argv[3:]:
        lines = ",\n".join(json.dumps(row, ensure_ascii=False, separators=(",", ":")) for row in rows)
        MODELS.write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    main()
