"""The environment report and the launch command inside a text, and what the ordinary checks say of them."""

import re
from collections.abc import Iterable, Iterator
from itertools import islice

from vllm_doctor import redact
from vllm_doctor.errors import DoctorError
from vllm_doctor.facts import Launch, Unknown
from vllm_doctor.finding import Finding
from vllm_doctor.snapshot import Snapshot
from vllm_doctor.triage import reader

NOT_SAID = Unknown("the text does not say")

_REPORT = re.compile(rb"PyTorch version|CUDA used to build PyTorch|GPU models and configuration|Nvidia driver version")
_COMMAND = re.compile(rb"vllm serve \S|-m vllm\.entrypoints\.|docker run ")
# A command stands at the beginning of its line, behind a prompt at most: prose and log lines that mention one do not.
_BEGINNING = re.compile(
    r"(?:[$#+>%] ?|\S{1,40}@\S{1,80}[$#] ?|(?:CMD|ENTRYPOINT|command|Command|cmd):? )?"
    r"(?P<command>(?:export )?(?:[A-Z_][A-Z0-9_]*=\S* +){0,20}"
    r"(?:sudo )?(?:nohup )?(?:\S{0,80}/)?(?:vllm serve -{0,2}[\w./]|python[\d.]* -m vllm\.|docker run ))"
)

# Lines that a launch with backslashes may go over.
MAXIMUM_COMMAND_LINES = 60

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
    from vllm_doctor import diagnose, registry

    return snapshot, diagnose.diagnose(snapshot, registry.load()).findings


def _report(head: bytes) -> Snapshot | None:
    if not _REPORT.search(head):
        return None
    from vllm_doctor.probes.env_report import read_env_report

    try:
        return read_env_report(head.decode("utf-8", "replace"))
    except DoctorError:
        return None


def _launch(head: bytes) -> Launch | None:
    for found in islice(_COMMAND.finditer(head), MAXIMUM_COMMANDS):
        start = head.rfind(b"\n", 0, found.start()) + 1
        lines = [reader.clean(line) for line in head[start : start + 16384].split(b"\n")[:MAXIMUM_COMMAND_LINES]]
        beginning = _BEGINNING.match(lines[0].text)
        if beginning is None or lines[0].process or lines[0].quiet:
            continue
        if (launch := _parsed("\n".join(_continued(lines))[beginning.start("command") :])) is not None:
            return launch
    return None


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
