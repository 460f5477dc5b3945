#!/usr/bin/env python3
"""Writes what pip installs with a release of vLLM, for the test that sound environments of many releases are quiet.

    make_release_fixtures.py VERSION REPORT.json

REPORT.json is what `pip install --dry-run --ignore-installed --report REPORT.json vllm==VERSION` says under a Python
that the release supports. Kept are names, versions and the requirements that hold without extras.
"""

import json
import sys
from pathlib import Path

FOLDER = Path(__file__).parent.parent / "fixtures" / "environments"


def compact(report: dict[str, object]) -> list[dict[str, object]]:
    """Name, version, Requires-Python and requirements of every distribution, sorted by name."""
    found: list[dict[str, object]] = []
    for item in report["install"]:  # type: ignore[attr-defined]
        metadata = item["metadata"]
        requires = [r for r in metadata.get("requires_dist", ()) if "extra ==" not in r]
        name = metadata["name"].lower().replace("_", "-").replace(".", "-")
        entry = {"name": name, "version": metadata["version"], "requires": requires}
        if "requires_python" in metadata:
            entry["requires_python"] = metadata["requires_python"]
        found.append(entry)
    return sorted(found, key=lambda d: str(d["name"]))


def main() -> None:
    """Write one file."""
    version, report = sys.argv[1], json.loads(Path(sys.argv[2]).read_text(encoding="utf-8"))
    lines = ",\n".join(json.dumps(d, ensure_ascii=False, separators=(",", ":")) for d in compact(report))
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / f"vllm-{version}.json").write_text(f"[\n{lines}\n]\n", encoding="utf-8")


if __name__ == "__main__":
    main()
