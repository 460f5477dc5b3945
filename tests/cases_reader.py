"""Reads `tests/cases/<check id>.toml`: rows that set facts in a fixture snapshot and say what the check must answer."""

import copy
import sys
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec

from vllm_doctor.launch.parse import parse_line
from vllm_doctor.snapshot import Snapshot

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

CASES = Path(__file__).parent / "cases"
FIXTURES = Path(__file__).parent.parent / "fixtures" / "snapshots"
KINDS = ("found", "quiet", "unknown")


class Case(msgspec.Struct, frozen=True):
    """One row: of which check, whether it must be found, quiet or unknown, and the row itself."""

    check: str
    kind: str
    row: dict[str, Any]

    @property
    def name(self) -> str:
        """How pytest shows it."""
        return f"{self.check}: {self.kind}: {self.row['id']}"

    def snapshot(self) -> Snapshot:
        """The fixture with the row's overrides and launch."""
        document = copy.deepcopy(_fixture(self.row["fixture"]))
        if "launch" in self.row:
            launch = parse_line(self.row["launch"])
            document["launch"] = msgspec.to_builtins(launch)
        for path, value in self.row.get("set", {}).items():
            _set(document, path.split("."), value)
        return msgspec.convert(document, Snapshot)


def cases() -> Iterator[Case]:
    """Every row of every file."""
    for path in sorted(CASES.glob("*.toml")):
        document = tomllib.loads(path.read_text(encoding="utf-8"))
        for kind in KINDS:
            for row in document.get(kind, []):
                yield Case(path.stem, kind, row)


@lru_cache(maxsize=32)
def _fixture(name: str) -> dict[str, Any]:
    document = msgspec.json.decode((FIXTURES / f"{name}.json").read_bytes())
    assert isinstance(document, dict)
    return document


def _set(document: Any, path: list[str], value: Any) -> None:
    """Set a value by its dotted path; members of a list go by index or by name, and a new name is appended."""
    for part in path[:-1]:
        document = document[_place(document, part)] if isinstance(document, list) else document.setdefault(part, {})
    last = path[-1]
    if isinstance(document, list):
        index = _place(document, last)
        document[index : index + 1] = [] if value == "__remove__" else [value]
    elif value == "__remove__":
        document.pop(last, None)
    elif value == "__null__":
        document[last] = None
    else:
        document[last] = value


def _place(members: list[Any], part: str) -> int:
    if part.isdecimal():
        return int(part)
    return next((i for i, m in enumerate(members) if isinstance(m, dict) and m.get("name") == part), len(members))
