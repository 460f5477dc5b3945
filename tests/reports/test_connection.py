"""The report of `connect` on one constructed walk: text, JSON, and as a diagnosis for the other formats."""

import pytest
from msgspec import structs

from vllm_doctor.client.health import Figures, Health
from vllm_doctor.client.names import Served
from vllm_doctor.client.visit import Step
from vllm_doctor.client.walk import Connection
from vllm_doctor.finding import Fix, error, warning
from vllm_doctor.reports import FORMATS, connection, text

STEPS = (
    Step(name="port", status="passed", seconds=0.25, detail="127.0.0.1 port 8000 takes connections"),
    Step(name="tls", status="skipped", seconds=0.0, detail="an http URL"),
    Step(name="key", status="failed", seconds=0.5, detail="the server refuses the API key"),
    Step(name="models", status="skipped", seconds=0.0, detail="the step 'key' failed"),
    Step(name="chat", status="skipped", seconds=0.0, detail="the step 'key' failed"),
)
REFUSED = structs.replace(
    error(
        "auth",
        "the server refuses the API key",
        evidence=("GET http://h:8000/v1/models: 401",),
        fixes=(Fix(title="enter the server's key", settings={"API Key": "***"}),),
    ),
    check="key",
)
WALKED = Connection(url="http://h:8000/v1", steps=STEPS, findings=(REFUSED,), server="vLLM", version="0.32.0")

TEXT = """\
http://h:8000/v1
  ✓ port            0.25 s 127.0.0.1 port 8000 takes connections
  · tls            an http URL
  ✗ key             0.50 s the server refuses the API key
  · not taken, as the step 'key' failed: models, chat

✗ the server refuses the API key
  auth (check key)
  seen  GET http://h:8000/v1/models: 401
  fix   enter the server's key
          API Key: ***

The client will fail at the step 'key'."""


def test_the_text() -> None:
    shown = text.plain_lines(connection.lines((WALKED,), WALKED.findings)).replace("\N{NO-BREAK SPACE}", " ")
    assert [" ".join(row.split()) for row in shown.split("\n")] == [" ".join(row.split()) for row in TEXT.split("\n")]


def test_the_quiet_text_is_the_errors_and_the_verdict() -> None:
    shown = text.plain_lines(connection.lines((WALKED,), WALKED.findings, quiet=True))
    assert shown.startswith("✗ the server refuses")
    assert shown.endswith("The client will fail at the step 'key'.")


@pytest.mark.parametrize(
    ("findings", "verdict"),
    [
        ((), "Every step that was taken works."),
        ((warning("auth", "x", evidence=()),), "The client will work; 1 warning."),
    ],
)
def test_the_verdict(findings: tuple[object, ...], verdict: str) -> None:
    shown = text.plain_lines(connection.lines((WALKED,), findings))  # type: ignore[arg-type]
    assert shown.endswith(verdict)


def test_the_document() -> None:
    served = structs.replace(WALKED, served=(Served(name="m", root="/m", max_model_len=16),))
    health = Health(figures=Figures(running=1.0), findings=(), not_evaluated={"queue": "x"}, samples=3)
    found = connection.document((served,), (), ("running 1", health))
    assert found["schema"] == "vllm-doctor/connection/1"
    assert found["steps"][0] == {"step": "port", "status": "passed", "seconds": 0.25, "detail": STEPS[0].detail}
    assert found["servers"][0]["models"] == [{"id": "m", "root": "/m", "parent": None, "max_model_len": 16}]
    assert (found["health"]["samples"], found["health"]["figures"]["running"]) == (3, 1.0)


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_every_other_format_names_the_cause(name: str) -> None:
    assert "auth" in FORMATS[name](connection.diagnosis((WALKED,), WALKED.findings))
