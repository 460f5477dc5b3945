"""The environment report and the launch command inside a text, and what the ordinary checks say of them."""

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import TYPE_CHECKING

from vllm_doctor import redact
from vllm_doctor.errors import DoctorError
from vllm_doctor.facts import Launch, Unknown
from vllm_doctor.finding import Finding
from vllm_doctor.snapshot import Snapshot
from vllm_doctor.triage import reader

if TYPE_CHECKING:
    from vllm_doctor.registry import Registry

NOT_SAID = Unknown("the text does not say")

# Words of a report, and of a launch: each is looked for alone, which is ten times as fast as one expression.
_REPORT = (b"PyTorch version", b"CUDA used to build PyTorch", b"GPU models and configuration", b"Nvidia driver version")
_COMMAND = (b"vllm serve ", b"-m vllm.entrypoints.", b"docker run ")
# A command stands at the beginning of its line, behind a prompt at most: prose and log lines that mention one do not.
_BEGINNING = re.compile(
    r"(?:[$#+>%] ?|\S{1,40}@\S{1,80}[$#] ?|(?:CMD|ENTRYPOINT|command|Command|cmd):? )?"
    r"(?P<command>(?:export )?(?:[A-Z_][A-Z0-9_]*=\S* +){0,20}"
    r"(?:sudo )?(?:nohup )?(?:\S{0,80}/)?(?:vllm serve -{0,2}[\w./]|python[\d.]* -m vllm\.|docker run ))"
)

# A report is read from so many bytes before the first of its words on.
BYTES_BEFORE_REPORT = 8192
MAXIMUM_REPORT_BYTES = 40 * 2**10

# Lines that a launch with backslashes may go over.
MAXIMUM_COMMAND_LINES = 60

MAXIMUM_COMMAND_BYTES = 16384

# A text that mentions more launches than this is a manual.
MAXIMUM_COMMANDS = 20


def judge(head: bytes) -> tuple[Snapshot | None, tuple[Finding, ...]]:
    """The facts that the text holds besides its messages, and what the checks find in them."""
    report, launch = _report(head), _launch(head)
    if report is None and launch is None:
        return None, ()
    snapshot = report or Snapshot(host=NOT_SAID, gpus=NOT_SAID, environment=NOT_SAID, servers=NOT_SAID)
    if launch is not None:
        from msgspec import structs

        model = NOT_SAID if launch.model is not None else None
        snapshot = redact.clean(structs.replace(snapshot, launch=launch, model=model))
    from vllm_doctor import diagnose

    return snapshot, diagnose.diagnose(snapshot, _checks()).findings


@lru_cache(maxsize=1)
def _checks() -> "Registry":
    from vllm_doctor import registry

    return registry.load()


def _report(head: bytes) -> Snapshot | None:
    places = [place for word in _REPORT if (place := head.find(word)) >= 0]
    if not places:
        return None
    start = head.rfind(b"\n", 0, max(0, min(places) - BYTES_BEFORE_REPORT)) + 1
    from vllm_doctor.probes.env_report import read_env_report

    try:
        return read_env_report(head[start : start + MAXIMUM_REPORT_BYTES].decode("utf-8", "replace"))
    except DoctorError:
        return None


def _launch(head: bytes) -> Launch | None:
    for start in _mentions(head):
        raw = head[start : start + MAXIMUM_COMMAND_BYTES].split(b"\n", MAXIMUM_COMMAND_LINES)[:MAXIMUM_COMMAND_LINES]
        first = reader.clean(raw[0])
        beginning = _BEGINNING.match(first.text)
        if beginning is None or first.process or first.quiet:
            continue
        lines = map(reader.clean, raw)
        if (launch := _parsed("\n".join(_continued(lines))[beginning.start("command") :])) is not None:
            return launch
    return None


def _mentions(head: bytes) -> list[int]:
    """Where the lines begin that mention a launch: the first ones."""
    found: set[int] = set()
    for word in _COMMAND:
        place = head.find(word)
        for _ in range(MAXIMUM_COMMANDS):
            if place < 0:
                break
            found.add(head.rfind(b"\n", 0, place) + 1)
            end = head.find(b"\n", place)
            place = head.find(word, end) if end >= 0 else -1
    return sorted(found)[:MAXIMUM_COMMANDS]


def _parsed(command: str) -> Launch | None:
    from vllm_doctor.launch.parse import parse_line

    try:
        return parse_line(command)
    except DoctorError:
        return None


def _continued(lines: Iterable[reader.CleanLine]) -> Iterator[str]:
    for line in lines:
        yield line.text
        if not line.text.endswith("\\"):
            return
