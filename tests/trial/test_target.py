"""What is started of a launch, where it will answer, and what is refused in one line."""

from pathlib import Path

import pytest

from vllm_doctor.errors import LaunchError
from vllm_doctor.launch.parse import parse_launch
from vllm_doctor.trial import target
from vllm_doctor.trial.secrets import Secrets


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("docker run vllm/vllm-openai --model m", "no container"),
        ("bash -c 'vllm serve m'", "no shell"),
        ("sudo -E vllm serve m", "sudo"),
        ("python -m vllm.entrypoints.api_server --model m", "demo server"),
        ("vllm serve m --uds /tmp/s", "Unix socket"),
        ("vllm serve m --ssl-keyfile k --ssl-certfile c", "TLS"),
        ("vllm serve m --headless", "headless"),
        ("vllm serve m --nnodes 2", "other nodes"),
        ("vllm serve m --port 0", "--port 0"),
        ("vllm serve m --help", "prints its help"),
    ],
)
def test_what_cannot_be_started_from_here_is_refused(line: str, says: str) -> None:
    import shlex

    with pytest.raises(LaunchError, match=says):
        target.require_startable(parse_launch(shlex.split(line)))


@pytest.mark.parametrize("line", ["vllm serve m", "A=b vllm serve m --nnodes 1 --root-path /llm --host ::"])
def test_what_can_is_not(line: str) -> None:
    target.require_startable(parse_launch(line.split()))


@pytest.mark.parametrize(
    ("line", "argv"),
    [
        ("A=b C=d vllm serve m", ("vllm", "serve", "m")),
        ("nohup vllm serve m", ("vllm", "serve", "m")),
        ("A=b exec vllm serve m", ("vllm", "serve", "m")),
        ("env A=b vllm serve m", ("env", "A=b", "vllm", "serve", "m")),
        ("numactl -N 0 vllm serve m", ("numactl", "-N", "0", "vllm", "serve", "m")),
        ("python -m vllm.entrypoints.openai.api_server --model m",
         ("python", "-m", "vllm.entrypoints.openai.api_server", "--model", "m")),
    ],
)  # fmt: skip
def test_the_words_are_those_that_a_shell_would_start(line: str, argv: tuple[str, ...]) -> None:
    assert target.target(parse_launch(line.split()), Secrets(), {}).argv == argv


def test_the_variables_are_the_inherited_ones_and_those_of_the_launch() -> None:
    launch = parse_launch(["env", "-u", "GONE", "A=new", "B=b", "vllm", "serve", "m"])
    found = target.target(launch, Secrets(), {"A": "old", "GONE": "x", "KEPT": "y"})
    assert found.environment == {"A": "new", "B": "b", "KEPT": "y"}


@pytest.mark.parametrize(
    ("host", "address"),
    [
        (None, "127.0.0.1"),
        ("0.0.0.0", "127.0.0.1"),
        ("10.1.2.3", "10.1.2.3"),
        ("::", "[::1]"),
        ("fe80::1", "[fe80::1]"),
        ("localhost", "localhost"),
    ],
)
def test_the_address_is_the_one_it_binds_to(host: str | None, address: str) -> None:
    assert target.address(host) == address


def test_the_program_is_that_of_the_environment_asked_for(tmp_path: Path) -> None:
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    python.write_text("")
    launch = parse_launch(["vllm", "serve", "m"])
    module = (str(python), "-m", "vllm.entrypoints.cli.main", "serve")
    assert target.placed(launch, python, asked=True).program == module
    (tmp_path / "bin" / "vllm").write_text("")
    (tmp_path / "bin" / "vllm").chmod(0o755)
    assert target.placed(launch, python, asked=True).program == (str(tmp_path / "bin" / "vllm"), "serve")
    assert target.placed(launch, None, asked=False).program == ("vllm", "serve")
    named = parse_launch(["/opt/x/bin/vllm", "serve", "m"])
    assert target.placed(named, python, asked=True).program == ("/opt/x/bin/vllm", "serve")


def test_a_program_that_the_shell_finds_stays_as_typed(tmp_path: Path) -> None:
    (tmp_path / "vllm").write_text("")
    (tmp_path / "vllm").chmod(0o755)
    launch = parse_launch([f"PATH={tmp_path}", "vllm", "serve", "m"])
    assert target.placed(launch, tmp_path / "python", asked=False).program == ("vllm", "serve")
