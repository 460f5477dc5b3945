"""Runs in a real vLLM's interpreter: whether its parser reads a command and its `--config` file to the same values.

Standard input: a line of JSON each, the words after `vllm serve` and the name of the file. Standard output: `ready`,
and for each `same`, `refused` (the command itself), or what differs.
"""

import contextlib
import io
import json
import logging
import sys

import vllm.entrypoints.cli.serve  # type: ignore[import-not-found]
from vllm.utils.argparse_utils import FlexibleArgumentParser  # type: ignore[import-not-found]

logging.disable(logging.CRITICAL)
parser = FlexibleArgumentParser(description="vLLM CLI")
subparsers = parser.add_subparsers(required=False, dest="subparser")
for command in vllm.entrypoints.cli.serve.cmd_init():
    command.subparser_init(subparsers)


def values(*words: str) -> "dict[str, str] | None":
    """What the parser makes of them; None where it refuses them. The name of the file is none of it."""
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        try:
            found = vars(parser.parse_args(["serve", *words]))
        except (SystemExit, Exception):  # noqa: BLE001 - whatever the parser raises is a refusal
            return None
    # The model is a word of the command, or `--model` of the file: `vllm serve` puts the one in the other's place.
    found["model"] = found.pop("model_tag", None) or found.get("model")
    return {name: repr(value) for name, value in found.items() if name != "config"}


sys.stdout.write("ready\n")
for line in sys.stdin:
    given, file = json.loads(line)
    typed, read = values(*given), values("--config", file)
    if typed is None:
        answer = "refused"
    elif read is None:
        answer = "the file is refused"
    else:
        answer = (
            "same" if typed == read else json.dumps([[n, v, read.get(n)] for n, v in typed.items() if read.get(n) != v])
        )
    sys.stdout.write(answer + "\n")
