"""`python -m vllm_doctor` in a folder whose files would break it."""

import json
import sys
from pathlib import Path

import pytest

from tests.cli.calling import HEALTHY, doctor

LAUNCH = ("--", sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", "m")


@pytest.mark.parametrize("name", ["random.py", "json.py", "click.py", "msgspec.py", "typing.py"])
def test_the_doctor_does_not_import_what_lies_in_the_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("raise SystemExit('imported')\n", encoding="utf-8")
    done = doctor("run", "--snapshot", HEALTHY, "--format", "json", folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_random_py_is_named_and_harmless_to_the_doctor(tmp_path: Path) -> None:
    (tmp_path / "random.py").write_text("print('a dice of my own')\n", encoding="utf-8")
    arguments = ("run", "--python", sys.executable, "--format", "json", "--select", "shadowed-package", *LAUNCH)
    done = doctor(*arguments, folder=tmp_path)
    assert done.returncode == 1, done.stderr
    [finding] = json.loads(done.stdout)["findings"]
    assert finding["title"] == f"{tmp_path}/random.py is imported in place of Python's own module random"
