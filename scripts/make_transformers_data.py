"""Regenerates vllm_doctor/transformers_releases/data.json from transformers wheels: what each release knows.

Usage: make_transformers_data.py WHEEL... (files of `pip download --no-deps transformers==X`; any order). Nothing is
imported from the wheels: the tables of `transformers/models/auto` are read as syntax trees.
"""

import ast
import json
import sys
import zipfile
from pathlib import Path

from packaging.version import Version

OUTPUT = Path(__file__).parent.parent / "vllm_doctor" / "transformers_releases" / "data.json"
FOLDER = "transformers/models/auto/"


def main(wheels: list[str]) -> None:
    """Write, per release, the names that are new in it and the names that it has no more."""
    releases = sorted((Version(Path(w).name.split("-")[1]), w) for w in wheels)
    known: dict[str, set[str]] = {"model_types": set(), "architectures": set()}
    rows = []
    for version, wheel in releases:
        row: dict[str, object] = {"version": str(version)}
        for kind, names in _names(wheel).items():
            row[kind] = sorted(names - known[kind])
            row[f"{kind}_gone"] = sorted(known[kind] - names)
            known[kind] = names
        rows.append(row)
    OUTPUT.write_text(json.dumps({"source": FOLDER, "releases": rows}, separators=(",", ":")) + "\n", encoding="utf-8")
    print(f"{OUTPUT}: {len(rows)} releases, {', '.join(f'{len(n)} {k}' for k, n in known.items())}")


def _names(wheel: str) -> dict[str, set[str]]:
    with zipfile.ZipFile(wheel) as archive:
        files = [n for n in archive.namelist() if n.startswith(FOLDER) and n.endswith(".py")]
        configurations = [f for f in files if f.endswith(("configuration_auto.py", "auto_mappings.py"))]
        types = {k for f in configurations for k, _ in _pairs(archive.read(f), "CONFIG_MAPPING_NAMES")}
        classes = {v for _, v in _pairs(archive.read(f"{FOLDER}modeling_auto.py"), "MAPPING_NAMES")}
    return {"model_types": types, "architectures": classes}


def _pairs(source: bytes, name: str) -> set[tuple[str, str]]:
    """The pairs of strings in assignments to, and updates of, every variable whose name ends so."""
    pairs = set()
    for node in ast.parse(source).body:
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "value", None)
        if isinstance(target, ast.Call):
            target = target.func
        if target is not None and _ends(target, name):
            pairs |= {p for inner in ast.walk(node) for p in _strings(inner)}
    return pairs


def _ends(target: ast.AST, name: str) -> bool:
    if isinstance(target, ast.Attribute):
        return target.attr == "update" and _ends(target.value, name)
    return isinstance(target, ast.Name) and (
        target.id == name or (name == "MAPPING_NAMES" and target.id.endswith(f"_{name}"))
    )


def _strings(node: ast.AST) -> list[tuple[str, str]]:
    """`("llama", "LlamaModel")`, `("x", ("A", "B"))` and `{"llama": "LlamaModel"}` as pairs."""
    if isinstance(node, ast.Dict):
        found = [(_text(k), _text(v)) for k, v in zip(node.keys, node.values, strict=True)]
    elif isinstance(node, ast.Tuple) and len(node.elts) == 2:
        second = node.elts[1]
        values = second.elts if isinstance(second, ast.Tuple) else [second]
        found = [(_text(node.elts[0]), _text(v)) for v in values]
    else:
        found = []
    return [(k, v) for k, v in found if k is not None and v is not None]


def _text(node: ast.AST | None) -> str | None:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


if __name__ == "__main__":
    main(sys.argv[1:])
