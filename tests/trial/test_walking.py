"""The walk of a launch's own server: one that pools is asked for an embedding in place of a chat."""

from tests.client.scripted import Asked, Scripted, as_json, refused, usual
from vllm_doctor.client.visit import Options, silent
from vllm_doctor.trial.walking import walk

VECTOR = {"data": [{"embedding": [0.5] * 64, "index": 0}]}


def test_a_server_that_chats_is_walked_as_a_client_does() -> None:
    with Scripted() as server:
        found = walk(server.base, Options(tools=True), silent)
    statuses = {step.name: step.status for step in found.steps}
    assert statuses["chat"] == statuses["tools"] == "passed"
    assert not {"embed", "health"} & statuses.keys()
    assert found.findings == ()


def pooling(answer: bytes) -> Scripted:
    paths = as_json({"paths": {"/v1/models": {}, "/v1/embeddings": {}}})
    return Scripted({"/openapi.json": lambda _: paths, "/v1/embeddings": lambda _: answer, "*": _chatless})


def _chatless(asked: Asked) -> bytes:
    return as_json({"detail": "Not Found"}, 404) if "chat" in asked.path else usual(asked)


def test_a_server_that_pools_is_asked_for_an_embedding() -> None:
    with pooling(as_json(VECTOR)) as server:
        found = walk(server.base, Options(tools=True), silent)
    assert {step.name: step.status for step in found.steps if step.status == "passed"}.keys() >= {"models", "embed"}
    assert {step.name: step.status for step in found.steps}["chat"] == "skipped"
    assert next(step for step in found.steps if step.name == "embed").detail.startswith("a vector of 64 numbers")
    assert found.findings == ()


def test_an_embedding_that_is_refused_is_a_broken_step() -> None:
    with pooling(refused("no")) as server:
        found = walk(server.base, Options(), silent)
    assert {step.name: step.status for step in found.steps}["embed"] == "failed"
    assert [finding.check for finding in found.findings] == ["embed"]
