#!/usr/bin/env python3
"""Writes what the README shows of the program itself: the table of checks and the help; `--check` only compares.

write_docs.py [--check]
"""

import sys
from pathlib import Path

import click

from vllm_doctor import registry
from vllm_doctor.cli import group

README = Path(__file__).resolve().parent.parent / "README.md"


def table_of_checks() -> str:
    """One row a check: id, first line of its page, causes."""
    rows = ["| check | what it finds | causes |", "|---|---|---|"]
    for check in registry.load().checks:
        if check.package == "vllm_doctor_checks":
            causes = ", ".join(f"`{cause}`" for cause in check.causes)
            rows.append(f"| `{check.id}` | {check.title} | {causes} |")
    return "\n".join(rows)


def help_of_run() -> str:
    """What `vllm-doctor run --help` prints, 100 columns wide."""
    context = click.Context(
        group, info_name="vllm-doctor", terminal_width=100, max_content_width=100, help_option_names=["-h", "--help"]
    )
    command = group.get_command(context, "run")
    assert command is not None
    inner = click.Context(command, info_name="run", parent=context, terminal_width=100, max_content_width=100)
    return f"```\n{command.get_help(inner)}\n```"


def written(text: str) -> str:
    """The README with its generated parts as they are now."""
    for name, content in (("checks", table_of_checks()), ("help", help_of_run())):
        opening, closing = f"<!-- generated: {name} -->\n", f"<!-- end: {name} -->"
        before, found, rest = text.partition(opening)
        if not found or closing not in rest:
            raise SystemExit(f"README.md lacks the place for the generated {name}")
        text = f"{before}{opening}{content}\n{closing}{rest.partition(closing)[2]}"
    return text


def main() -> None:
    """Write, or compare and fail."""
    before = README.read_text(encoding="utf-8")
    after = written(before)
    if "--check" not in sys.argv[1:]:
        README.write_text(after, encoding="utf-8")
    elif after != before:
        raise SystemExit("README.md is not current: run scripts/write_docs.py")


if __name__ == "__main__":
    main()
