"""`verify --fix`: what needs a yes is shown as it would be done, and done only after one."""

import pytest
from click.testing import CliRunner

from vllm_doctor.cli.verify import _ask
from vllm_doctor.finding import Fix, LaunchEdit, error

FIXES = (
    Fix(title="Allow its code", launch=LaunchEdit(set={"--trust-remote-code": None})),
    Fix(title="Ask for less", launch=LaunchEdit(set={"--max-model-len": "1"})),
    Fix(title="Serve another", launch=LaunchEdit(positional="other/model")),
    Fix(title="Install it", command=("pip", "install", "x")),
)
FINDING = error("trust-remote-code", "The model needs its own code", evidence=("seen",), fixes=FIXES)


@pytest.mark.parametrize(
    ("answers", "taken"), [("y\n", "Allow its code"), ("n\ny\n", "Serve another"), ("n\nn\n", None), ("\n\n", None)]
)
def test_the_first_change_that_is_agreed_to_is_taken(answers: str, taken: str | None) -> None:
    with CliRunner().isolation(input=answers) as streams:
        remedy = _ask(FINDING)
        shown = streams[1].getvalue().decode()
    assert (remedy.title if remedy is not None else None) == taken
    assert "Allow its code: add --trust-remote-code" in shown
    assert "Ask for less" not in shown
    assert "pip" not in shown
