"""A corrected command in which a secret is masked says so: it cannot be pasted as it is."""

import pytest

from tests.cli.calling import HEALTHY, doctor

LAUNCH = ("vllm", "serve", "Qwen/Qwen2.5-7B-Instruct", "--api-key", "s3cr3t-value", "--max-model-length", "4096")


@pytest.mark.parametrize("name", ["text", "github", "html", "markdown"])
def test_the_mask_is_explained_where_a_command_holds_one(name: str) -> None:
    shown = doctor("run", "--snapshot", HEALTHY, "--format", name, "--", *LAUNCH).stdout
    assert "put your own value there" in shown
    assert "s3cr3t-value" not in shown


@pytest.mark.parametrize("name", ["text", "github", "html", "markdown"])
def test_nothing_is_said_where_nothing_is_masked(name: str) -> None:
    shown = doctor("run", "--snapshot", HEALTHY, "--format", name, "--", *LAUNCH[:3], *LAUNCH[5:]).stdout
    assert "Corrected launch" in shown
    assert "put your own value there" not in shown
