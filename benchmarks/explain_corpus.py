#!/usr/bin/env python3
"""How many recorded texts `explain` names by their cause: right, silent, wrong, and false alarms on healthy ones.

    explain_corpus.py FILE... [-v] [--misses]

A FILE is a list of records with `cause` (null or "none": healthy) and a text: `text`, or `log` and `responses` as the
fault runner records them. Causes in `also` or `also_ok` count as right too. A record whose fault shows in neither
(`symptom` "none") is left out.
"""

import argparse
import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vllm_doctor.triage import explain_text

Record = dict[str, Any]


def text_of(record: Record) -> str:
    """The text a user would have in hand: the log with what the client saw."""
    if "text" in record:
        return str(record["text"])
    log = record.get("log") or []
    lines = [log] if isinstance(log, str) else list(log)
    if record.get("symptom") == "response":
        lines += list(_responses(record))
    return "\n".join(lines)


def _responses(record: Record) -> Iterator[str]:
    for exchange in record.get("responses") or ():
        answer = exchange["response"]
        if "error" in answer:
            yield f"{exchange['method']} {exchange['path']}: {answer['error']}"
        else:
            yield f"HTTP {answer['status']}"
            yield str(answer.get("body") or "")


def verdict(record: Record) -> tuple[str, str]:
    """`right`, `silent`, `wrong` or `false alarm`, and the cause that was named first ("-" for none)."""
    found = explain_text(text_of(record)).findings
    named = found[0].finding.cause if found else "-"
    wanted = {record["cause"], *(record.get("also") or ()), *(record.get("also_ok") or ())} - {None}
    healthy = record["cause"] in (None, "none")
    if named == "-":
        return ("right" if healthy else "silent"), named
    if named in wanted:
        return "right", named
    return ("false alarm" if healthy else "wrong"), named


def main() -> None:
    """Judge every record and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("-v", "--verbose", action="store_true", help="a table per cause")
    parser.add_argument("--misses", action="store_true", help="every record that is not right")
    options = parser.parse_args()
    total: Counter[str] = Counter()
    causes: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for record in (r for path in options.files for r in json.loads(path.read_text())):
        if record.get("symptom") == "none":
            continue
        outcome, named = verdict(record)
        total[outcome] += 1
        causes[str(record["cause"])][outcome] += 1
        if options.misses and outcome != "right":
            print(f"{outcome:12} {record['id']:40} wanted {record['cause']}, named {named}")
    if options.verbose:
        for cause, counts in sorted(causes.items()):
            print(f"{cause:28} " + ", ".join(f"{n} {outcome}" for outcome, n in sorted(counts.items())))
    cases = sum(total.values())
    print(
        f"{cases} texts: right {total['right']} ({100 * total['right'] / max(1, cases):.1f} %), "
        f"silent {total['silent']}, wrong {total['wrong']} ({100 * total['wrong'] / max(1, cases):.1f} %), "
        f"false alarms {total['false alarm']}"
    )


if __name__ == "__main__":
    main()
