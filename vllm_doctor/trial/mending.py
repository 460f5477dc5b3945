"""The changes of a launch that a failed attempt suggests: those that may be done unasked, what costs least first."""

import socket
from collections.abc import Iterator, Mapping, Sequence

from msgspec import Struct

from vllm_doctor import tool_families, tool_parsers
from vllm_doctor.facts import ChatTemplate, Launch, Model
from vllm_doctor.finding import Finding, Fix, LaunchEdit
from vllm_doctor.launch.arguments import canonical
from vllm_doctor.snapshot import Snapshot

# What a change of the flag takes from the user; one that is not named here takes more than all of these.
# 0: nothing; 1: another address or name; 2: fewer requests at once; 3: shorter ones; 4: slower ones; 5: other GPUs.
COSTS: Mapping[str, int] = {
    "--enable-auto-tool-choice": 0,
    "--tool-call-parser": 0,
    "--chat-template": 0,
    "--max-lora-rank": 0,
    "--enable-lora": 0,
    "--port": 1,
    "--served-model-name": 1,
    "--gpu-memory-utilization": 1,
    "--kv-cache-memory-bytes": 2,
    "--max-num-seqs": 2,
    "--max-num-batched-tokens": 2,
    "--max-model-len": 3,
    "--enforce-eager": 4,
    "--compilation-config": 4,
    "--disable-custom-all-reduce": 4,
    "--tensor-parallel-size": 5,
    "--pipeline-parallel-size": 5,
}

TOOLS = ("tools-not-enabled", "tool-parser-wrong")
SWITCH = "--enable-auto-tool-choice"

_CORRECTION = 0
_UNCOMMON = 6

# Causes that no flag of a launch mends: what is wrong is the machine, the environment, or the model's files.
HOPELESS = frozenset(
    {
        *("driver-too-old", "driver-library-mismatch", "gpu-not-visible", "fabric-manager", "arch-unsupported"),
        *("gpu-hardware-fault", "python-unsupported", "platform-unsupported", "cuda-wheel-mismatch"),
        *("torch-vllm-mismatch", "torch-companion-mismatch", "dependency-conflict", "build-toolchain"),
        *("broken-install", "model-not-found", "model-access", "hub-unreachable", "model-files-incomplete"),
        "disk-full",
    }
)


class Remedy(Struct, frozen=True, kw_only=True):
    """A change of the launch that may be tried: in words, as an edit, and what it costs the user (0 is nothing)."""

    title: str
    edit: LaunchEdit
    cost: int


def remedies(findings: Sequence[Finding], snapshot: Snapshot) -> tuple[Remedy, ...]:
    """Every change that the findings offer and that needs no yes, what costs least first; none for a hopeless cause."""
    if not findings or findings[0].cause in HOPELESS:
        return ()
    found = [remedy for finding in findings for remedy in _of_finding(finding, snapshot)]
    return tuple(sorted(found, key=lambda remedy: remedy.cost))


def _of_finding(finding: Finding, snapshot: Snapshot) -> Iterator[Remedy]:
    offered = [remedy for fix in finding.fixes if (remedy := unasked(fix)) is not None]
    launch = snapshot.launch
    if launch is not None and (finding.cause in TOOLS or any(SWITCH in remedy.edit.unset for remedy in offered)):
        offered = [remedy for remedy in offered if _is_complete(remedy.edit, launch)]
        yield from _parsers(snapshot, launch)
    if finding.cause == "port-in-use" and not offered:
        port = str(free_port())
        yield Remedy(title=f"Listen on port {port}, which is free", edit=LaunchEdit(set={"--port": port}), cost=1)
    yield from offered


def free_port() -> int:
    """A TCP port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def unasked(fix: Fix) -> Remedy | None:
    """The fix as a change that is tried without asking; None where it is none, or takes more than settings."""
    edit = fix.launch
    if edit is None or _has_place(edit):
        return None
    costs = [COSTS.get(canonical(name), _UNCOMMON) for name in (*edit.set, *edit.unset)]
    if fix.automatic:
        corrects = all(cost == _UNCOMMON for cost in costs)
        return Remedy(title=fix.title, edit=edit, cost=_CORRECTION if corrects else max(costs))
    mild = bool(costs) and max(costs) < _UNCOMMON and not edit.env and edit.positional is None and not edit.drop_words
    return Remedy(title=fix.title, edit=edit, cost=max(costs)) if mild else None


def needing_yes(finding: Finding) -> tuple[Remedy, ...]:
    """The changes of the launch that a finding offers and that are not tried unasked."""
    edits = [(fix.title, fix.launch) for fix in finding.fixes if fix.launch is not None and unasked(fix) is None]
    return tuple(Remedy(title=title, edit=edit, cost=_UNCOMMON) for title, edit in edits if not _has_place(edit))


def _has_place(edit: LaunchEdit) -> bool:
    """Whether a value only says what belongs there (FILE.jinja)."""
    return any("FILE" in (value or "") or "TEMPLATE" in (value or "") for value in edit.set.values())


def _is_complete(edit: LaunchEdit, launch: Launch) -> bool:
    """Whether the launch can start with the edit: the switch for tools alone does not."""
    return "--tool-call-parser" in edit.set or launch.has("--tool-call-parser") or SWITCH not in edit.set


def _parsers(snapshot: Snapshot, launch: Launch) -> Iterator[Remedy]:
    """The parser that reads what the model's own template writes, where that is another than the one in use."""
    model, version = snapshot.model, snapshot.vllm_version
    if not isinstance(model, Model) or not isinstance(model.chat_template, ChatTemplate):
        return
    for name in tool_parsers.writes(model.chat_template.text)[:2]:
        if name != launch.value("--tool-call-parser") and tool_families.in_release(name, version):
            edit = LaunchEdit(set={"--enable-auto-tool-choice": None, "--tool-call-parser": name})
            yield Remedy(title=f"Use the parser that reads this model's format: {name}", edit=edit, cost=_CORRECTION)
            return
