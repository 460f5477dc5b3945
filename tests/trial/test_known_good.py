"""The command that served as a file for `--config`: read back, it says the same."""

import subprocess
from pathlib import Path

import pytest
import yaml

from vllm_doctor.facts import Launch
from vllm_doctor.launch.parse import parse_launch
from vllm_doctor.trial.known_good import command, config_file

COMMANDS = [
    "vllm serve m/x --max-model-len 2048 --enforce-eager --port 8001",
    "vllm serve m/x --no-enable-prefix-caching --gpu-memory-utilization 0.85 -tp 2",
    "vllm serve m/x --max-model-len auto --max-num-seqs 16 --served-model-name a b c",
    "vllm serve m/x --max-num-batched-tokens 4k --enable-auto-tool-choice --tool-call-parser hermes",
    'vllm serve m/x --compilation-config \'{"cudagraph_mode": "PIECEWISE"}\' --seed 0007',
    "vllm serve m/x -cc.cudagraph_mode=PIECEWISE --served-model-name yes --revision 1e3 --hf-token ''",
    "vllm serve m/x --limit-mm-per-prompt '{\"image\": 2}' --host :: --max-model-len=-1",
    'A=b vllm serve m/x --chat-template "it\'s {{ here }}: #1" --port 1 --port 2',
]


def read_as_vllm(text: str) -> list[str]:
    """What `load_config_file` of vLLM 0.32.0 makes of it, for the values that are written here."""
    words: list[str] = []
    for key, value in yaml.safe_load(text).items():
        if isinstance(value, bool):
            assert value
            words.append(f"--{key}")
        elif isinstance(value, list):
            words += [f"--{key}", *map(str, value)]
        else:
            words += [f"--{key}", str(value)]
    return words


def settings(launch: Launch) -> dict[str, tuple[str, ...]]:
    """The values that count, by flag."""
    return {use.name: use.values for use in launch.flags if use.name != "--model"}


@pytest.mark.parametrize("line", COMMANDS)
def test_the_file_says_what_the_command_says(line: str) -> None:
    import shlex

    launch = parse_launch(shlex.split(line))
    text = config_file(launch)
    assert text is not None
    again = parse_launch(["vllm", "serve", *read_as_vllm(text)])
    assert again.model == launch.model
    assert settings(again) == settings(launch)
    assert again.problems == ()


@pytest.mark.parametrize(
    "line",
    [
        pytest.param("vllm serve m/x --middleware a.b --middleware c.d", id="a flag that gathers has one place"),
        pytest.param("vllm serve m/x --served-model-name=--odd", id="a value that looks like a flag"),
    ],
)
def test_where_a_file_cannot_say_it_there_is_none(line: str) -> None:
    assert config_file(parse_launch(line.split())) is None


def test_the_command_is_quoted_for_a_shell(tmp_path: Path) -> None:
    given = ["A=two words", "vllm", "serve", "m/x", "--chat-template", 'it\'s $HOME `x` "y"', "--port", "1"]
    line = command(parse_launch(given))
    script = tmp_path / "vllm"
    script.write_text('#!/bin/sh\nprintf "%s\\n" "$A" "$@"\n')
    script.chmod(0o755)
    done = subprocess.run(["sh", "-c", line], env={"PATH": f"{tmp_path}:/usr/bin:/bin"}, capture_output=True, text=True)
    assert done.stdout.splitlines() == ["two words", *given[2:]]
