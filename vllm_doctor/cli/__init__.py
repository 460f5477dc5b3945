"""The command line: options -> core calls -> exit code, and every error as one line."""

import sys
from collections.abc import Sequence
from importlib import import_module

import click

# Name -> module and one line of help: a command's module is imported only when it is the one that is called.
COMMANDS = {
    "run": ("vllm_doctor.cli.run", "The check-up: environment, GPUs, model, launch command, running servers."),
    "snapshot": ("vllm_doctor.cli.snapshot", "Write the collected facts, redacted, to one file."),
    "checks": ("vllm_doctor.cli.checks", "The catalogue of checks, or one check's page."),
    "connect": ("vllm_doctor.cli.connect", "What a client meets at a URL, step by step: name, port, key, chat, tools."),
    "releases": ("vllm_doctor.cli.releases", "What is known of the releases of vLLM; what changes between two."),
    "explain": ("vllm_doctor.cli.explain", "The page of one cause: what it means and what helps."),
}

INTERRUPTED = 130
USAGE = 2


class _LazyGroup(click.Group):
    """A group whose commands are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        command = import_module(COMMANDS[cmd_name][0]).command
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, help_line) for name, (_, help_line) in COMMANDS.items()])


def _show_version(ctx: click.Context, _parameter: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from vllm_doctor import __version__

        click.echo(f"vllm-doctor {__version__}")
        ctx.exit()


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_show_version, help="Show it.")
def group() -> None:
    """The doctor for vLLM deployments.

    Names the root cause of what is wrong or will go wrong, shows the evidence and gives the fix.
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0, 1 findings, 2 wrong call or input, 3 a failure of the doctor, 130."""
    sys.exit(_code(arguments))


def _code(arguments: Sequence[str] | None) -> int:
    try:
        outcome = group.main(
            args=None if arguments is None else list(arguments), prog_name="vllm-doctor", standalone_mode=False
        )
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except (KeyboardInterrupt, click.Abort):
        click.echo("vllm-doctor: interrupted", err=True)
        return INTERRUPTED
    except click.ClickException as problem:
        return _complain(_usage_line(problem))
    except BrokenPipeError:
        return _reader_gone()
    except Exception as problem:
        from vllm_doctor.errors import DoctorError

        if not isinstance(problem, DoctorError):
            raise
        return _complain(str(problem))
    return outcome if isinstance(outcome, int) else 0


def _usage_line(problem: click.ClickException) -> str:
    context = getattr(problem, "ctx", None)
    where = context.command_path if context is not None else "vllm-doctor"
    return f"{problem.format_message()} (see `{where} --help`)"


def _complain(message: str) -> int:
    from vllm_doctor import redact

    click.echo(f"vllm-doctor: error: {redact.line(message, 2000)}", err=True)
    return USAGE


def _reader_gone() -> int:
    """`vllm-doctor run | head`: the reader has what it wanted; nothing more can be written."""
    import os

    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0
