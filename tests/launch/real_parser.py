"""Run by the interpreter of a real vLLM: one JSON list of words per line in, `accepted` or what argparse said out."""

import contextlib
import io
import json
import logging
import sys

import vllm.entrypoints.cli.serve  # type: ignore[import-not-found]
from vllm.utils.argparse_utils import FlexibleArgumentParser  # type: ignore[import-not-found]

logging.disable(logging.CRITICAL)
parser = FlexibleArgumentParser(description="vLLM CLI")
parser.add_argument("-v", "--version", action="version", version="x")
subparsers = parser.add_subparsers(required=False, dest="subparser")
for command in vllm.entrypoints.cli.serve.cmd_init():
    command.subparser_init(subparsers)
sys.stdout.write("ready\n")
for line in sys.stdin:
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            parser.parse_args(["serve", *json.loads(line)])
        answer = "accepted"
    except SystemExit as end:
        answer = "accepted" if end.code in (0, None) else said.getvalue().strip().splitlines()[-1]
    except Exception as problem:  # noqa: BLE001 - whatever the parser raises is an answer
        answer = f"{type(problem).__name__}: {problem}"
    sys.stdout.write(json.dumps(answer) + "\n")
