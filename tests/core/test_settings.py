"""Settings files: two places, one meaning, and one line for what is wrong."""

from pathlib import Path

import pytest

from vllm_doctor.errors import InputFileError
from vllm_doctor.settings import Settings, find


def test_no_file_says_nothing(tmp_path: Path) -> None:
    assert find(tmp_path) == Settings()


def test_both_places_mean_the_same(tmp_path: Path) -> None:
    body = 'fail-on = "warning"\nignore = ["gpu-busy"]\ntimeout = 5\noffline = true\n'
    wanted = Settings(fail_on="warning", ignore=("gpu-busy",), timeout=5.0, offline=True)
    (tmp_path / "pyproject.toml").write_text("[tool.vllm-doctor]\n" + body, encoding="utf-8")
    assert find(tmp_path) == wanted
    (tmp_path / "vllm-doctor.toml").write_text(body, encoding="utf-8")
    (tmp_path / "pyproject.toml").write_text("[tool.vllm-doctor]\ntimeout = 9\n", encoding="utf-8")
    assert find(tmp_path) == wanted


@pytest.mark.parametrize(
    ("body", "says"),
    [("fail-on = 3", "fail-on"), ("fail = 'x'", "unknown field"), ("not toml", "not a settings file")],
)
def test_a_wrong_file_is_one_line(tmp_path: Path, body: str, says: str) -> None:
    (tmp_path / "vllm-doctor.toml").write_text(body, encoding="utf-8")
    with pytest.raises(InputFileError, match=says) as caught:
        find(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_broken_pyproject_of_somebody_else_is_not_our_business(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("not toml", encoding="utf-8")
    assert find(tmp_path) == Settings()
