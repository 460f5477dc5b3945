"""`vllm-doctor explain CAUSE`: the page of a cause."""

import click

from vllm_doctor import causes
from vllm_doctor.errors import SelectionError


@click.command("explain")
@click.argument("cause", required=False)
def command(cause: str | None) -> int:
    """Print the page of a cause; without one, list the causes."""
    if cause is None:
        for name, group in causes.catalogue().items():
            click.echo(f"{name:26}  {group}")
        return 0
    if cause not in causes.catalogue():
        from difflib import get_close_matches

        near = get_close_matches(cause, list(causes.catalogue()), n=1)
        raise SelectionError(
            f"there is no cause {cause!r}",
            f"did you mean {near[0]}?" if near else "`vllm-doctor explain` lists them",
        )
    click.echo(causes.page(cause).rstrip())
    return 0
