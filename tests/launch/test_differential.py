"""Mutated launch lines: what the doctor accepts and refuses against the argument parser of a real vLLM 0.32."""

import json
import os
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from vllm_doctor.diagnose import run_check
from vllm_doctor.finding import Finding, Severity
from vllm_doctor.launch import parse_launch
from vllm_doctor.releases import Flag, release
from vllm_doctor.snapshot import Snapshot
from vllm_doctor_checks.launch import flag_value, launch_form, lora_flags, unknown_flag

PYTHON = os.environ.get("VLLM_DOCTOR_TEST_VLLM_PYTHON", "")
FIXTURES = Path(__file__).parent.parent.parent / "fixtures" / "snapshots"
LINES = 3000

# What vLLM finds out only after the parser has accepted the line; the doctor says it at once.
LATER = (
    "out of range",
    "is no load format",
    "tool call parser",
    "is no reasoning parser",
    "has no key",
    "does nothing without",
    "without --enable-lora",
    "is no address",
    "is a switch and takes no value",
    "cannot be read",
    "--speculative-config needs a JSON object",
    "--diffusion-config needs a JSON object",
    "must end in .yaml",
    "no model is named",
)
WORDS = {
    "int": ("8", "0", "-1", "4k", "1_000", "1.5", "0x10", "eight", "None", "8 "),
    "human-int": ("8", "4k", "4K", "1.5k", "1.5K", "16g", "8kb", "lots", "-8", "1e3"),
    "human-int-or-auto": ("4096", "4k", "auto", "AUTO", "-1", "-2", "lots", "4,096"),
    "float": ("0.5", "1", ".5", "1e-1", "nan", "half", "0,5", "50%"),
    "json": ('{"a": 1}', "{}", "{a: 1}", "[1]", "x", "3", '{"a": 4k}', "{'a': 1}"),
    "json-or-str": ('{"a": 1}', "{a}", "x", "{", "None"),
    "str": ("x", "a b", "auto", "-", "None", "fp16", "x=y"),
    "bool": (),
}

pytestmark = [
    pytest.mark.real_vllm,
    pytest.mark.skipif(not PYTHON, reason="VLLM_DOCTOR_TEST_VLLM_PYTHON names no interpreter of a real vLLM 0.32"),
]


def spelled(chance: random.Random, flag: Flag) -> str:
    """The name, as it is or as somebody may mistype it."""
    name = chance.choice((flag.name, flag.name, flag.name, *flag.short))
    match chance.randrange(12):
        case 0:
            return "--" + name.lstrip("-").replace("-", "_")
        case 1 if name.startswith("--"):
            return name[: chance.randrange(min(3, len(name)), len(name) + 1)]
        case 2:
            place = chance.randrange(2, len(name) + 1)
            return name[:place] + chance.choice("aest-_") + name[place:]
        case 3:
            place = chance.randrange(1, len(name))
            return name[:place] + name[place + 1 :]
        case 4:
            return f"--no-{name.lstrip('-')}"
        case 5:
            return name[1:]
        case 6 if flag.kind == "json":
            return f"{name}.bogus"
    return name


def words(chance: random.Random, flag: Flag) -> list[str]:
    """One flag with a value, without one, with too many."""
    name = spelled(chance, flag)
    values = (*(flag.choices or ()), *WORDS.get(flag.kind, WORDS["str"]))
    if flag.default is None or flag.default.startswith("<"):
        # Whether the field is optional is not in the data: the doctor says nothing of `None` there.
        values = tuple(v for v in values if v != "None")
    if "." in name:
        # A dotted key takes the next word whatever it is, an option too: the doctor says that a value is missing.
        return [name, chance.choice(values)]
    if not values or chance.random() < (0.85 if flag.nargs == "0" else 0.05):
        return [name]
    value = chance.choice(values) if flag.nargs != "0" else chance.choice(("1", "x"))
    match chance.randrange(8):
        case 0 | 1 if " " not in value:
            # An unknown option with a blank in its value is a positional word to argparse, a flag to the doctor.
            return [f"{name}={value}"]
        case 2 if flag.nargs == "+":
            return [name, value, chance.choice(values)]
        case 3 if chance.random() < 0.3:
            return [name, value, "stray"]
    return [name, value]


def lines() -> Iterator[list[str]]:
    chance = random.Random(20261122)
    known = release("0.32.0")
    assert known is not None
    # `--config` reads a file and `--omni` starts another program; the parser's own JSON types need keys that exist.
    flags = [f for f in known.flags.values() if f.name not in ("--config", "--help", "--mm-processor-device")]
    for _ in range(LINES):
        chosen = [word for flag in chance.sample(flags, chance.randrange(1, 4)) for word in words(chance, flag)]
        yield ["M", *chosen] if chance.random() < 0.9 else [*chosen, "M"]


def judged(snapshot: Snapshot, given: list[str]) -> list[Finding]:
    launch = parse_launch(["vllm", "serve", *given])
    checks = (launch_form, unknown_flag, flag_value, lora_flags)
    found = [f for check in checks for f in run_check(check, replace(snapshot, launch=launch))[0]]
    return [f for f in found if f.severity is Severity.ERROR]


def test_the_doctor_and_the_parser_agree() -> None:
    snapshot = msgspec.json.decode((FIXTURES / "host-cpu-served.json").read_bytes(), type=Snapshot)
    all_lines = list(lines())
    text = "\n".join(json.dumps(line) for line in all_lines) + "\n"
    script = str(Path(__file__).parent / "real_parser.py")
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "VLLM_NO_USAGE_STATS": "1"}
    done = subprocess.run(
        [PYTHON, script], input=text, capture_output=True, text=True, timeout=540, check=True, env=environment
    )
    answers = [json.loads(line) for line in done.stdout.partition("ready\n")[2].splitlines()]
    assert len(answers) == LINES
    wrong: list[str] = []
    refused = 0
    for line, answer in zip(all_lines, answers, strict=True):
        errors = judged(snapshot, line)
        early = [e for e in errors if not any(word in e.title for word in LATER)]
        refused += answer != "accepted"
        if answer == "accepted" and early:
            wrong.append(f"false alarm: {line}: {early[0].title}")
        elif answer != "accepted" and not errors:
            wrong.append(f"missed: {line}: {answer}")
    assert refused > LINES // 4
    assert wrong == []
