"""The file of a command that served, against the argument parser of a real vLLM 0.32: it reads the same from both."""

import json
import os
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from vllm_doctor.launch import parse_launch
from vllm_doctor.releases import release
from vllm_doctor.trial.known_good import config_file

PYTHON = os.environ.get("VLLM_DOCTOR_TEST_VLLM_PYTHON", "")
COMMANDS = 400

# Other programs, what a file has no place for, secrets, which are masked in it, and what makes up an id each time.
LEFT_OUT = frozenset(
    "--config --help --model --omni --middleware --api-key --hf-token --kv-transfer-config --ec-transfer-config".split()  # noqa: SIM905
)

VALUES = {
    "int": ("8", "0", "1_000"),
    "human-int": ("4k", "4K", "1.5k"),
    "human-int-or-auto": ("4096", "4k", "auto", "-1"),
    "float": ("0.5", "1", ".5", "1e-1"),
    "json": ('{"a": 1}', "{}"),
    "json-or-str": ('{"a": 1}', "x"),
    "str": ("x", "a b", "yes", "null", "007", "1e3", "x=y", "it's: #1", "0x10", "~"),
}

pytestmark = [
    pytest.mark.real_vllm,
    pytest.mark.skipif(not PYTHON, reason="VLLM_DOCTOR_TEST_VLLM_PYTHON names no interpreter of a real vLLM 0.32"),
]


def commands() -> Iterator[list[str]]:
    chance = random.Random(20261122)
    known = release("0.32.0")
    assert known is not None
    flags = [f for f in known.flags.values() if f.name not in LEFT_OUT]
    for _ in range(COMMANDS):
        words = ["org/model"]
        for flag in chance.sample(flags, chance.randrange(1, 6)):
            values = flag.choices or VALUES.get(flag.kind, ())
            if flag.nargs == "0" or not values:
                words.append(f"--no-{flag.name[2:]}" if flag.negatable and chance.random() < 0.5 else flag.name)
            else:
                count = 2 if flag.nargs == "+" else 1
                words += [flag.name, *(str(chance.choice(values)) for _ in range(count))]
        yield words


def test_the_real_parser_reads_the_same_from_the_file(tmp_path: Path) -> None:
    asked = []
    for number, words in enumerate(commands()):
        text = config_file(parse_launch(["vllm", "serve", *words]))
        if text is not None:
            (tmp_path / f"{number}.yaml").write_text(text)
            asked.append((words, str(tmp_path / f"{number}.yaml")))
    done = subprocess.run(
        [PYTHON, str(Path(__file__).with_name("real_config.py"))],
        input="".join(json.dumps(each) + "\n" for each in asked),
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "VLLM_NO_USAGE_STATS": "1"},
        capture_output=True, text=True, timeout=300, check=True,
    )  # fmt: skip
    answers = done.stdout.partition("ready\n")[2].splitlines()
    assert len(answers) == len(asked) > 0.9 * COMMANDS
    pairs = zip(asked, answers, strict=True)
    assert [(words, answer) for (words, _), answer in pairs if answer not in ("same", "refused")] == []
    assert answers.count("same") > COMMANDS // 4
