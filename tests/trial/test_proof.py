"""The proof against a scripted canary: everything right passes, and each wrong text is found for what it is."""

import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from tests.client.scripted import CALL, Asked, Scripted, as_json, chat, refused, stream
from tests.trial import copier
from vllm_doctor.client.visit import Options
from vllm_doctor.client.walk import Connection
from vllm_doctor.finding import Confidence, Finding, Severity
from vllm_doctor.trial import canary, proof
from vllm_doctor.trial.proof import Blame

Spoil = Callable[[dict[str, Any], str], str]
STEPS = ("sentence", "cached", "streamed", "long-prompt", "called", "streamed-call", "batch")


def event(delta: dict[str, Any]) -> bytes:
    return b"data: " + msgspec.json.encode({"choices": [{"index": 0, "delta": delta}]}) + b"\n\n"


def pieces(text: str) -> list[bytes]:
    return [event({"role": "assistant", "content": ""}), *(event({"content": letter}) for letter in text)]


def call_pieces(arguments: str) -> list[bytes]:
    first = {"index": 0, "id": "c", "type": "function", "function": {"name": "get_weather"}}
    more = [{"index": 0, "function": {"arguments": part}} for part in (arguments[:5], arguments[5:])]
    return [event({"tool_calls": [call]}) for call in (first, *more)]


def canary_like(spoil: Spoil = lambda _, said: said, arguments: str = '{"city": "Paris"}') -> Callable[[Asked], bytes]:
    """Answers as the canary does; `spoil` changes the text of a chat, `arguments` are those of a streamed call."""

    def handler(asked: Asked) -> bytes:
        body = asked.json()
        if body.get("tools"):
            if body.get("stream"):
                return stream(*call_pieces(arguments))
            return chat(calls=CALL, content=None, reason="tool_calls")
        said = copier.answer(copier.prompt(body["messages"])) or ""
        said = spoil(body, said)[: body["max_tokens"]]
        return stream(*pieces(said)) if body.get("stream") else chat(said)

    return handler


def proved(handler: Any, blame: Blame | None = None, **options: Any) -> Connection:
    with Scripted({"/v1/chat/completions": handler}, models=(canary.NAME,)) as server:
        usual: dict[str, Any] = {"tools": True, "timeout_seconds": 10, "model": canary.NAME}
        wanted = Options(**(usual | options))
        return proof.prove(server.base, wanted, blame=blame)


def statuses(connection: Connection) -> dict[str, str]:
    return {step.name: step.status for step in connection.steps if step.name in STEPS}


def only(connection: Connection) -> Finding:
    (found,) = connection.findings
    return found


def test_a_server_that_computes_right_passes_every_step() -> None:
    connection = proved(canary_like())
    assert connection.findings == ()
    assert statuses(connection) == dict.fromkeys(STEPS, "passed")
    assert "health" not in {step.name for step in connection.steps}
    said = {step.name: step.detail for step in connection.steps}
    assert said["batch"] == "16 requests at once, 13 different answers, all right"
    assert said["called"] == 'called get_weather({"city":"Paris"})'


def test_without_tools_and_streams_the_rest_is_proved() -> None:
    connection = proved(canary_like(), tools=False, stream=False)
    assert connection.findings == ()
    left = {name for name, status in statuses(connection).items() if status == "skipped"}
    assert left == {"streamed", "called", "streamed-call"}


def test_a_wrong_text_tells_what_was_expected_and_what_came() -> None:
    connection = proved(canary_like(lambda _, said: said.replace("kernel", "colonel")), Blame(platform="cuda"))
    found = only(connection)
    assert (found.check, found.severity, found.confidence) == ("sentence", Severity.ERROR, Confidence.LIKELY)
    assert found.evidence[0] == f"expected: {canary.SENTENCE!r}"
    assert "each colonel here" in found.evidence[1]
    assert found.evidence[2] == f"of 116 characters the first {canary.SENTENCE.index('kernel')} are right"
    assert statuses(connection) == dict.fromkeys(STEPS, "skipped") | {"sentence": "failed"}


def test_an_answer_without_a_right_character_is_the_prefill() -> None:
    found = only(proved(canary_like(lambda _, said: "\n" * len(said))))
    assert found.evidence[2] == "of 116 characters the first is wrong: the prompt was computed wrong"


def test_an_answer_that_is_empty_is_wrong_too() -> None:
    assert only(proved(canary_like(lambda _, said: ""))).evidence[1] == "came: nothing"


def test_an_answer_that_goes_on_is_wrong_too() -> None:
    assert "the first 116 are right" in only(proved(canary_like(lambda _, said: f"{said} And on."))).evidence[2]


@pytest.mark.parametrize(
    ("logprobs", "told"),
    [
        ([-1e-7, -0.5], "the same text again; doubt of the least sure token 4e-01"),
        ([-1e-7, 0], "the same text again; doubt of the least sure token 1e-07"),
        ([], "the same text again"),
        (["x", None], "the same text again"),
    ],
)
def test_the_doubt_of_the_least_sure_token_is_told(logprobs: list[Any], told: str) -> None:
    def handler(asked: Asked) -> bytes:
        if not asked.json().get("logprobs"):
            return canary_like()(asked)
        choice = {"message": {"content": canary.SENTENCE}, "logprobs": {"content": [{"logprob": n} for n in logprobs]}}
        return as_json({"choices": [choice]})

    assert {step.name: step.detail for step in proved(handler).steps}["cached"] == told


@pytest.mark.parametrize(
    ("blame", "cause", "first"),
    [
        (Blame(platform="cuda"), "vllm-bug", "Compute without compiled code and CUDA graphs"),
        (Blame(platform="cpu"), "vllm-bug", "See which dtypes, backends and modes are right here"),
        (Blame(platform="cuda", tp=2), "nccl-failure", "Prove one GPU alone"),
        (Blame(platform="cuda", backend="FLASHINFER"), "attention-backend", "Let vLLM choose the attention backend"),
    ],
)
def test_what_a_wrong_text_is_put_down_to(blame: Blame, cause: str, first: str) -> None:
    found = only(proved(canary_like(lambda _, said: said.upper()), blame))
    assert found.cause == cause
    assert found.fixes[0].title.startswith(first)


def spoilt_from(number: int) -> Spoil:
    """Right for the first requests for the sentence, then wrong."""
    asked = 0

    def spoil(body: dict[str, Any], said: str) -> str:
        nonlocal asked
        asked += body["max_tokens"] == proof.ANSWER_TOKENS
        return said[::-1] if asked > number else said

    return spoil


@pytest.mark.parametrize(("right", "step"), [(1, "cached"), (2, "streamed"), (3, "long-prompt"), (4, "batch")])
def test_a_text_that_is_wrong_later_fails_the_step_that_shows_it(right: int, step: str) -> None:
    connection = proved(canary_like(spoilt_from(right)))
    assert statuses(connection)[step] == "failed"
    assert [found.check for found in connection.findings] == [step]


def test_an_answer_of_another_request_is_found_in_the_batch() -> None:
    def spoil(body: dict[str, Any], said: str) -> str:
        return proof.sung(2).expected if said == proof.sung(3).expected else said

    found = only(proved(canary_like(spoil)))
    assert found.check == "batch"
    assert found.title.endswith("among 16 at once")
    assert "Song 3" in found.evidence[0]
    assert "Song 2" in found.evidence[1]


def test_a_call_that_is_not_the_canary_s() -> None:
    def handler(asked: Asked) -> bytes:
        call = {"id": "c", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Rome"}'}}
        if asked.json().get("tools"):
            return chat(calls=[call], content=None, reason="tool_calls")
        return canary_like()(asked)

    found = only(proved(handler))
    assert found.check == "called"
    assert found.evidence[1] == """came: 'get_weather({"city":"Rome"})'"""


@pytest.mark.parametrize(
    ("city", "check", "cause"),
    [("Paris", "called", "tool-parser-wrong"), ("Parisssssss", "called", "vllm-bug")],
    ids=["as it should be", "computed wrong"],
)
def test_a_call_left_in_the_text(city: str, check: str, cause: str) -> None:
    """The parser's fault only where the model wrote it right."""

    def handler(asked: Asked) -> bytes:
        body = asked.json()
        text = copier.answer(copier.prompt(body["messages"], body.get("tools"))) or ""
        return chat(text.replace("Paris", city)) if body.get("tools") else canary_like()(asked)

    found = only(proved(handler))
    assert (found.check, found.cause) == (check, cause)


def test_a_call_that_is_broken_in_a_stream_only() -> None:
    connection = proved(canary_like(arguments='{"city": "Pa'))
    found = only(connection)
    assert (found.check, found.cause, found.severity) == ("streamed-call", "vllm-bug", Severity.WARNING)
    assert "the same call without a stream comes back right" in found.evidence
    assert statuses(connection)["batch"] == "passed"


def test_a_request_that_is_refused_is_explained() -> None:
    def handler(asked: Asked) -> bytes:
        if len(json.dumps(asked.json()["messages"])) > proof.LONG_CHARACTERS:
            return refused("This model's maximum context length is 512 tokens. However, your prompt contains 1774")
        return canary_like()(asked)

    found = only(proved(handler))
    assert (found.check, found.cause) == ("long-prompt", "context-exceeded")


@pytest.mark.parametrize(
    "answer",
    [
        as_json({"choices": []}),
        as_json({"choices": [{"message": {"content": None, "tool_calls": [{"function": {"name": 3}}, 4]}}]}),
        as_json([]),
    ],
)
def test_answers_of_no_known_shape_are_wrong_and_break_nothing(answer: bytes) -> None:
    def handler(asked: Asked) -> bytes:
        return answer if asked.json()["max_tokens"] == proof.ANSWER_TOKENS else canary_like()(asked)

    assert only(proved(handler)).check == "sentence"
