"""`vllm-doctor snapshot`: write the facts, redacted, to one file."""

from pathlib import Path
from typing import Any

import click

from vllm_doctor import settings, snapshot
from vllm_doctor.cli import options
from vllm_doctor.cli.run import request
from vllm_doctor.collect import collect
from vllm_doctor.errors import InputFileError


@click.command("snapshot", context_settings={"allow_interspersed_args": False})
@click.option(
    "-o", "--output", required=True, type=click.Path(dir_okay=False, path_type=Path), help="The file to write."
)
@click.option("--url", metavar="URL", help="Also ask this server.")
@options.probing
@click.argument("launch", nargs=-1, type=click.UNPROCESSED, metavar="[-- LAUNCH...]")
def command(output: Path, launch: tuple[str, ...], **given: Any) -> int:
    """Write every collected fact to a file, for `vllm-doctor run --snapshot FILE` on another machine.

    Tokens, keys, passwords, user names and home folders are masked.
    """
    facts = collect(request(launch, given, settings.find(options.working_folder())))
    try:
        snapshot.write(facts, output)
    except OSError as problem:
        raise InputFileError(f"{output}: {problem.strerror}", "name a file that can be written") from None
    click.echo(f"{output}: written; read it before you share it, and diagnose it with `vllm-doctor run --snapshot`")
    return 0
