"""The command line: options -> core calls -> exit code, and every error as one line."""

import contextlib
import errno
import sys
from collections.abc import Sequence
from importlib import import_module

import click

from vllm_doctor.cli import streams

# Name -> module and one line of help: a command's module is imported only when it is the one that is called.
COMMANDS = {
    "run": ("vllm_doctor.cli.run", "The check-up: environment, GPUs, model, launch command, running servers."),
    "plan": ("vllm_doctor.cli.plan", "Does a launch fit the GPU: the memory plan, and a command that fits."),
    "snapshot": ("vllm_doctor.cli.snapshot", "Write the collected facts, redacted, to one file."),
    "checks": ("vllm_doctor.cli.checks", "The catalogue of checks, or one check's page."),
    "connect": ("vllm_doctor.cli.connect", "What a client meets at a URL, step by step: name, port, key, chat, tools."),
    "verify": ("vllm_doctor.cli.verify", "Launch, prove that it serves, take it down: your command, or the canary."),
    "releases": ("vllm_doctor.cli.releases", "What is known of the releases of vLLM; what changes between two."),
    "explain": ("vllm_doctor.cli.explain", "The root cause out of a log or an HTTP error; or the page of a cause."),
}

INTERRUPTED = 130
USAGE = 2
FAILED = 3

# What writing raises where the reader, the disk or the terminal is gone.
_OUTPUT_ERRORS = frozenset({errno.EPIPE, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF})


class _LazyGroup(click.Group):
    """A group whose commands are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            raise click.UsageError(_no_command(cmd_name), ctx)
        command = import_module(COMMANDS[cmd_name][0]).command
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, help_line) for name, (_, help_line) in COMMANDS.items()])


def _no_command(name: str) -> str:
    from difflib import get_close_matches

    near = get_close_matches(name, list(COMMANDS), n=1)
    return f"there is no command {name!r}" + (f"; did you mean {near[0]}?" if near else "")


def _show_version(ctx: click.Context, _parameter: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from vllm_doctor import __version__

        click.echo(f"vllm-doctor {__version__}")
        ctx.exit()


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_show_version, help="Show the version."
)
def group() -> None:
    """The doctor for vLLM deployments.

    Names the root cause of what is wrong or will go wrong, shows the evidence and gives the fix. It
    changes nothing; only verify starts a server, and takes it down again.

    \b
    vllm-doctor run                                what is here, and what is wrong with it
    vllm-doctor run -- vllm serve MODEL [FLAGS]    the same for a launch, before you launch
    vllm-doctor verify -- vllm serve MODEL [FLAGS] launch it, prove that it serves, take it down
    vllm-doctor explain CAUSE                      what a cause means, and what helps
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0, 1 findings, 2 wrong call or input, 3 a failure of the doctor, 130."""
    streams.prepare()
    _end_on_signals()
    sys.exit(_code(arguments))


def _end_on_signals() -> None:
    """End as on Ctrl-C when told to terminate, so that whatever was started is stopped."""
    import signal

    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        # A program started by nohup ignores SIGHUP, and is to go on ignoring it.
        if number is not None and signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, signal.default_int_handler)


def _code(arguments: Sequence[str] | None) -> int:
    try:
        code = _run(arguments)
        streams.flush()
    except BrokenPipeError:
        # `vllm-doctor run | head`: the reader has what it wanted.
        streams.abandon()
        return 0
    except OSError as problem:
        code = _complain(f"the output cannot be written: {problem.strerror or problem}")
        streams.abandon()
    except KeyboardInterrupt:
        return INTERRUPTED
    return code


def _run(arguments: Sequence[str] | None) -> int:
    try:
        outcome = group.main(
            args=None if arguments is None else list(arguments), prog_name="vllm-doctor", standalone_mode=False
        )
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except (KeyboardInterrupt, click.Abort):
        _tell("vllm-doctor: interrupted")
        return INTERRUPTED
    except click.exceptions.NoArgsIsHelpError as nothing:
        _tell(nothing.format_message())
        return USAGE
    except click.ClickException as problem:
        return _complain(_usage_line(problem))
    except Exception as problem:
        from vllm_doctor.errors import DoctorError

        if isinstance(problem, DoctorError):
            return _complain(str(problem))
        if isinstance(problem, OSError) and problem.errno in _OUTPUT_ERRORS:
            raise
        return _failed(problem)
    return outcome if isinstance(outcome, int) else 0


def _usage_line(problem: click.ClickException) -> str:
    context = getattr(problem, "ctx", None)
    where = context.command_path if context is not None else "vllm-doctor"
    if isinstance(problem, click.NoSuchOption) and where.endswith(" plan"):
        return f"{problem.format_message()} (flags of `vllm serve` come last, after --: {where} MODEL -- -tp 2)"
    return f"{problem.format_message()} (see `{where} --help`)"


def _complain(message: str) -> int:
    from vllm_doctor import redact

    _tell(f"vllm-doctor: error: {redact.line(message, 2000)}")
    return USAGE


def _failed(problem: Exception) -> int:
    """A fault of the doctor's own: its kind and its place, for a report; never a traceback."""
    from vllm_doctor import redact

    trace = problem.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace is not None else "an unknown place"
    said = redact.line(f"{type(problem).__name__}: {problem}", 500)
    _tell(f"vllm-doctor: internal error at {where}: {said} (this is a fault of vllm-doctor: please report it)")
    return FAILED


def _tell(message: str) -> None:
    with contextlib.suppress(OSError):
        click.echo(message, err=True)
