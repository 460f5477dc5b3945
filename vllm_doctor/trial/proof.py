"""The proof that a canary server computes right: the walk of a client, and after it the exact texts."""

from __future__ import annotations

import contextlib
import hashlib
import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import takewhile
from typing import Any

import msgspec
from msgspec import Struct

from vllm_doctor import redact
from vllm_doctor.client import calling, chatting
from vllm_doctor.client.explaining import explain
from vllm_doctor.client.finding_paths import lost
from vllm_doctor.client.replies import Reply
from vllm_doctor.client.session import Session
from vllm_doctor.client.visit import Broken, Options, Progress, Skipped, Visit, silent, text_of, walk_steps
from vllm_doctor.client.walk import CHATTING, REACHING, Connection, connection
from vllm_doctor.finding import Confidence, Finding, Fix, LaunchEdit, Severity, warning
from vllm_doctor.trial import canary

# The sentence takes 117 tokens, a call 26, a song 77.
ANSWER_TOKENS = 160

# The capitals that the template makes of it fill about 1,900 of the 2,048 tokens together with sentence and answer.
LONG_CHARACTERS = 1600

# With three that say the sentence and two that call, as many as the canary's server takes at once.
SINGERS = canary.MAX_NUM_SEQS - 5


Steps = tuple[tuple[str, Callable[[Visit], str]], ...]


class Blame(Struct, frozen=True, kw_only=True):
    """What a wrong text would be put down to: the parallel size and attention backend of the launch, and the device."""

    platform: str = "cuda"
    tp: int = 1
    backend: str | None = None


class Question(Struct, frozen=True, kw_only=True):
    """A request whose answer is known: `expected` is its text, or the call where `tools` are sent."""

    messages: tuple[dict[str, str], ...]
    expected: str
    tools: bool = False

    def body(self) -> dict[str, Any]:
        """The request, without the model."""
        body: dict[str, Any] = {"messages": self.messages, "max_tokens": ANSWER_TOKENS, "temperature": 0}
        return body | {"tools": canary.tools(), "tool_choice": "auto"} if self.tools else body


def prove(url: str, options: Options, progress: Progress = silent, blame: Blame | None = None) -> Connection:
    """Walk as a client does, then ask for the exact texts; raises UrlError for a URL that is none."""
    visit = Visit(url, options, progress)
    judge = Judge(blame or Blame())
    try:
        walk_steps(visit, judge.among((*REACHING, *CHATTING)))
    finally:
        visit.session.close()
    return connection(visit)


def spoken(user: str) -> Question:
    """A chat: the canary's sentence, whatever the user says."""
    return Question(messages=({"role": "user", "content": user},), expected=canary.SENTENCE)


def sung(number: int) -> Question:
    """A chat that goes on: the canary repeats what it said last, here digits that no other request has."""
    song = f"Song {number}: {hashlib.sha256(b'canary %d' % number).hexdigest()}."
    messages = (
        {"role": "user", "content": "Sing. " * (3 * number + 1)},
        {"role": "assistant", "content": song},
        {"role": "user", "content": "Again."},
    )
    return Question(messages=messages, expected=song)


def called() -> Question:
    """A chat with tools: the canary's call."""
    name, arguments = canary.TOOL_CALL
    told = f"{name}({msgspec.json.encode(arguments).decode()})"
    return Question(messages=({"role": "user", "content": "How is the weather?"},), expected=told, tools=True)


GREETING = spoken("Hello?")
LONG = spoken(("Lorem ipsum dolor sit amet. " * 100)[:LONG_CHARACTERS])


class Judge:
    """Asks and compares; `blame` decides what a wrong text is put down to."""

    def __init__(self, blame: Blame) -> None:
        self.blame = blame

    def among(self, walked: Steps) -> Steps:
        """The steps of a walk and of the proof: texts before tools, where wrong numbers look like a wrong parser."""
        # Not its health: how fast a server answers its users cannot be told from its first requests.
        others = tuple((name, step) for name, step in walked if name != "health")
        tools = [name for name, _ in others].index("tools")
        texts = (
            ("sentence", self.sentence),
            ("cached", self.cached),
            ("streamed", self.streamed),
            ("long-prompt", self.long_prompt),
            ("called", self.called),
        )
        return (*others[:tools], *texts, *others[tools:], ("streamed-call", self.streamed_call), ("batch", self.batch))

    def sentence(self, visit: Visit) -> str:
        """The sentence, greedily decoded."""
        seconds = self._asked(visit, GREETING).seconds
        return f"{len(canary.SENTENCE)} characters, every one right, in {seconds:.2f} s"

    def cached(self, visit: Visit) -> str:
        """The same once more: now the prompt's blocks come from the prefix cache, where it is on."""
        reply = chatting.ask(visit, GREETING.body() | {"logprobs": True})
        self._judged(visit, GREETING, reply, "when it is asked again")
        doubt = _doubt(reply)
        return f"the same text again{'' if doubt is None else f'; doubt of the least sure token {doubt:.0e}'}"

    def streamed(self, visit: Visit) -> str:
        """The sentence as a stream."""
        if not visit.options.stream:
            raise Skipped("--no-stream")
        deltas = _deltas(visit, GREETING)
        self._compare(GREETING, "".join(text_of(delta.get("content")) for delta in deltas), "in a stream")
        return f"the same text in {len(deltas)} pieces"

    def long_prompt(self, visit: Visit) -> str:
        """The sentence after a prompt that nearly fills the context."""
        reply = self._asked(visit, LONG)
        return f"the same text after {chatting.prompt_tokens(reply)} tokens"

    def called(self, visit: Visit) -> str:
        """The tool call, chosen by the model and read by the parser."""
        _with_tools(visit)
        question = called()
        self._asked(visit, question)
        return f"called {question.expected}"

    def streamed_call(self, visit: Visit) -> str:
        """The tool call as a stream, as most clients ask for it."""
        _with_tools(visit)
        if not visit.options.stream:
            raise Skipped("--no-stream")
        question = called()
        deltas = _deltas(visit, question)
        said = _call_text([call for delta in deltas for call in _listed(delta.get("tool_calls"))])
        if said != question.expected:
            raise Broken(_lost_call(question, said, deltas))
        return f"called {said}"

    def batch(self, visit: Visit) -> str:
        """Many at once, alike and different: each must get its own answer."""
        questions = [GREETING, GREETING, LONG, *(sung(number) for number in range(SINGERS))]
        questions += [called(), called()] if visit.options.tools else []
        with ThreadPoolExecutor(len(questions)) as pool:
            replies = list(pool.map(lambda question: _alone(visit, question), questions))
        for question, reply in zip(questions, replies, strict=True):
            self._judged(visit, question, reply, f"among {len(questions)} at once")
        return f"{len(questions)} requests at once, {len({q.expected for q in questions})} different answers, all right"

    def _asked(self, visit: Visit, question: Question) -> Reply:
        reply = chatting.ask(visit, question.body())
        self._judged(visit, question, reply, "")
        return reply

    def _judged(self, visit: Visit, question: Question, reply: Reply, when: str) -> None:
        if reply.status is None or reply.cut is not None:
            raise Broken(lost(visit, reply))
        if reply.status != 200:
            raise Broken(explain(visit, reply, {"model": visit.model, **question.body()}))
        message = chatting.message_of(reply) or {}
        calls = _listed(message.get("tool_calls"))
        content = text_of(message.get("content"))
        if question.tools and not calls and canary.CALL in content:
            unread = calling.judge(visit, reply, question.body())
            raise Broken(unread if unread is not None else wrong_text(question.expected, content, when, self.blame))
        self._compare(question, _call_text(calls) if calls else content, when)

    def _compare(self, question: Question, came: str, when: str) -> None:
        if came != question.expected:
            raise Broken(wrong_text(question.expected, came, when, self.blame))


def wrong_text(expected: str, came: str, when: str, blame: Blame) -> Finding:
    """The server answers, and computes wrong: what was expected, what came, and how far it was right."""
    right = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(expected, came, strict=False)))
    where = "the first is wrong: the prompt was computed wrong" if right == 0 else f"the first {right} are right"
    evidence = (
        f"expected: {redact.line(expected, 200)!r}",
        f"came: {redact.line(came, 200)!r}" if came else "came: nothing",
        f"of {len(expected)} characters {where}",
        "the model is the doctor's own and has this one answer in bfloat16, float16 and float32",
    )
    cause, fixes = _suspected(blame)
    title = f"The server computes wrong: the canary's answer is another{f' {when}' if when else ''}"
    return Finding(
        cause=cause,
        severity=Severity.ERROR,
        confidence=Confidence.LIKELY,
        title=title,
        evidence=evidence,
        fixes=fixes,
    )


def _suspected(blame: Blame) -> tuple[str, tuple[Fix, ...]]:
    """The likeliest cause of wrong numbers, and what tells it from the others."""
    if blame.tp > 1:
        return "nccl-failure", (
            Fix(
                title="Prove one GPU alone: where that is right, what lies between the GPUs is at fault",
                command=("vllm-doctor", "verify"),
            ),
            Fix(
                title="Do without vLLM's own all-reduce, which needs P2P between the GPUs that works",
                launch=LaunchEdit(set={"--disable-custom-all-reduce": None}),
            ),
            Fix(
                title="Do without P2P (an IOMMU or PCIe ACS that redirects it corrupts the data in silence)",
                launch=LaunchEdit(env={"NCCL_P2P_DISABLE": "1"}),
            ),
        )
    others = Fix(
        title="See which dtypes, backends and modes are right here", command=("vllm-doctor", "verify", "--matrix")
    )
    if blame.backend is not None:
        return "attention-backend", (
            Fix(
                title="Let vLLM choose the attention backend",
                launch=LaunchEdit(unset=("--attention-backend",), env={"VLLM_ATTENTION_BACKEND": None}),
            ),
            others,
        )
    eager = Fix(title="Compute without compiled code and CUDA graphs", launch=LaunchEdit(set={"--enforce-eager": None}))
    if blame.platform == "cpu":
        return "vllm-bug", (others,)
    hardware = Fix(
        title="Rule the GPU out: Xid lines in the kernel's log, ECC counts", command=("nvidia-smi", "-q", "-d", "ECC")
    )
    return "vllm-bug", (eager, others, hardware)


def _doubt(reply: Reply) -> float | None:
    """1 less the probability of the answer's least sure token; None where the server tells none.

    On vLLM 0.32 for CPU it is 6e-6 in bfloat16: much more means that the numbers are rough.
    """
    choice = next(iter(_listed(reply.object().get("choices"))), {})
    told = choice.get("logprobs")
    tokens = _listed(told.get("content")) if isinstance(told, dict) else []
    numbers = [token["logprob"] for token in tokens if isinstance(token.get("logprob"), int | float)]
    return -math.expm1(min(0.0, *numbers)) if numbers else None


def _alone(visit: Visit, question: Question) -> Reply:
    """Asked over a connection of its own."""
    session = Session(visit.base, visit.options.key, visit.options.timeout_seconds)
    try:
        return session.post(chatting.chat_url(visit), {"model": visit.model, **question.body()})
    finally:
        session.close()


def _deltas(visit: Visit, question: Question) -> list[dict[str, Any]]:
    """What a stream brings, piece by piece."""
    body = question.body() | {"stream": True}
    reply = chatting.ask(visit, body)
    if reply.status != 200:
        raise Broken(explain(visit, reply, {"model": visit.model, **body}))
    return list(_pieces(chatting.events(reply.body)))


def _pieces(events: chatting.Events) -> Iterator[dict[str, Any]]:
    for chunk in events.chunks:
        for choice in _listed(chunk.get("choices")):
            delta = choice.get("delta")
            if isinstance(delta, dict):
                yield delta


def _call_text(calls: list[dict[str, Any]]) -> str:
    """One call as text, whole or put together from the pieces of a stream."""
    functions = [call["function"] for call in calls if isinstance(call.get("function"), dict)]
    name = "".join(text_of(function.get("name")) for function in functions)
    arguments = "".join(text_of(function.get("arguments")) for function in functions)
    with contextlib.suppress(msgspec.MsgspecError, RecursionError):
        arguments = msgspec.json.encode(msgspec.json.decode(arguments)).decode()
    return f"{name}({arguments})"


def _listed(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _with_tools(visit: Visit) -> None:
    if not visit.options.tools:
        raise Skipped("the server was not started for tools")


def _lost_call(question: Question, said: str, deltas: list[dict[str, Any]]) -> Finding:
    content = "".join(text_of(delta.get("content")) for delta in deltas)
    evidence = (
        f"expected: {question.expected}",
        f"came: {redact.line(said, 200)}, and in content: {redact.line(content, 200)!r}",
        "the same call without a stream comes back right",
    )
    title = "vLLM's parser loses the tool call in a stream, and reads it right in one piece"
    fixes = (
        Fix(title="Upgrade vLLM: nothing in the launch or the model is wrong"),
        Fix(title="Until then: switch streaming off where tools are used", settings={"Stream": "off"}),
    )
    # A warning: what computes is right.
    return warning("vllm-bug", title, evidence=evidence, fixes=fixes)
