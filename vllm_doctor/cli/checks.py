"""`vllm-doctor checks`: the catalogue of checks, or one check's page."""

import click

from vllm_doctor import registry
from vllm_doctor.check import Check
from vllm_doctor.cli import rows
from vllm_doctor.errors import SelectionError
from vllm_doctor.snapshot import platform_name


@click.command("checks")
@click.argument("check_id", required=False, metavar="[ID]")
def command(check_id: str | None) -> int:
    """List every check, own and plugins', or print one check's page."""
    found = registry.load()
    if check_id is not None:
        click.echo(page(_wanted(found, check_id)))
        return 0
    width = max((len(c.id) for c in found.checks), default=0)
    for check in found.checks:
        click.echo(rows.wrapped(check.id, check.title, width + 2, indent=""))
    for broken in found.broken:
        click.echo(f"plugin {broken.name} of {broken.package} could not be loaded: {broken.problem}", err=True)
    return 3 if broken_or_empty(found) else 0


def broken_or_empty(found: registry.Registry) -> bool:
    """Whether a plugin failed to load, or there is no check at all."""
    return bool(found.broken) or not found.checks


def page(check: Check) -> str:
    """A check's page: its docstring with what it may report and where it comes from."""
    holds = (
        f"\nHolds for: {', '.join(platform_name(p) for p in check.platforms)} builds of vLLM" if check.platforms else ""
    )
    return (
        f"{check.id}\n{'=' * len(check.id)}\n\n{check.page}\n\n"
        f"Causes: {', '.join(check.causes)}\nNeeds: {', '.join(check.needs) or 'nothing'}{holds}\nFrom: {check.module}"
    )


def _wanted(found: registry.Registry, check_id: str) -> Check:
    check = found.find(check_id)
    if check is None:
        from difflib import get_close_matches

        near = get_close_matches(check_id, [c.id for c in found.checks], n=1)
        raise SelectionError(
            f"there is no check {check_id!r}",
            f"did you mean {near[0]}?" if near else "`vllm-doctor checks` lists them",
        )
    return check
