"""The curated table of what to write instead, held against the generated data."""

from __future__ import annotations

import re

import pytest

from vllm_doctor import releases
from vllm_doctor.releases import replacements

FLAG = re.compile(r"--[a-z0-9]+(?:-[a-z0-9]+)*")


@pytest.mark.parametrize("name", replacements.REMOVED_FLAGS)
def test_removed_flags_were_there_and_are_gone(name: str) -> None:
    history = releases.flag_history(name)
    assert history
    assert history[-1].last is not None


@pytest.mark.parametrize("name", replacements.REMOVED_VARIABLES)
def test_removed_variables_were_there_and_are_gone(name: str) -> None:
    history = releases.env_history(name)
    assert history
    assert history[-1].last is not None


@pytest.mark.parametrize("name", replacements.NEVER_EXISTED)
def test_names_that_never_were(name: str) -> None:
    assert releases.flag_history(name) == releases.env_history(name) == ()


@pytest.mark.parametrize(
    "advice",
    sorted(
        {
            *replacements.REMOVED_FLAGS.values(),
            *replacements.REMOVED_VARIABLES.values(),
            *replacements.NEVER_EXISTED.values(),
        }
    ),
)
def test_every_flag_and_variable_in_an_advice_exists(advice: str) -> None:
    assert all(releases.flag_history(name) for name in FLAG.findall(advice))
    assert all(releases.env_history(name) for name in re.findall(r"VLLM_\w+", advice))


def test_every_removed_flag_has_an_advice() -> None:
    newest = releases.release(releases.newest())
    assert newest is not None
    ever = {name for version in releases.known_versions() for name in releases.release(version).flags}  # type: ignore[union-attr]
    spelled_with_underscores = {"--max-seq_len-to-capture", "--preemption_mode"}
    assert ever - newest.flags.keys() - spelled_with_underscores == replacements.REMOVED_FLAGS.keys()


def test_names_without_advice() -> None:
    assert releases.removed_flag_replacement("--model") is None
    assert releases.removed_env_replacement("PATH") is None
