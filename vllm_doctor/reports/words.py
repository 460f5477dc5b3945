"""What every report says in the same words: foreign text made harmless, commands quoted, counts and the verdict."""

import shlex
from collections.abc import Iterable, Mapping

from msgspec import Struct

from vllm_doctor import redact
from vllm_doctor.causes import catalogue
from vllm_doctor.diagnose import CheckResult, Diagnosis, Status
from vllm_doctor.facts import Environment
from vllm_doctor.finding import Finding, Fix, LaunchEdit, Severity
from vllm_doctor.snapshot import Snapshot

# A finding's line longer than this is no line any more.
MAXIMUM_LINE_CHARACTERS = 4000

# What may stand after a word of a title.
_PUNCTUATION = str.maketrans(",:;()", "     ")

# The mask of secrets is made of these; a word that is nothing but a mask needs no quotes to be readable.
_UNQUOTED = frozenset({redact.MASK})


class NotEvaluated(Struct, frozen=True):
    """One reason for which checks were not evaluated, and the ids of those checks."""

    status: Status
    reason: str
    ids: tuple[str, ...]


def line(text: str) -> str:
    """Foreign text as one line: no control characters, no terminal escapes, no secrets."""
    return redact.line(text, MAXIMUM_LINE_CHARACTERS)


def masked_note(command: str) -> str | None:
    """What to say under a command that cannot be run as it is, because secrets are masked in it."""
    told = f"{redact.MASK} stands for a secret that is not shown: put your own value there."
    return told if redact.MASK in redact.text(command) else None


def command_line(words: Iterable[str]) -> str:
    """An argv as one line that a POSIX shell reads back as the same words; of `sh -c LINE`, the line itself."""
    argv = tuple(words)
    if len(argv) == 3 and argv[:2] == ("sh", "-c"):
        return one_line(argv[2])
    return " ".join(_quoted(redact.text(word)) for word in argv)


def one_line(command: str) -> str:
    """A whole command line, made harmless; a line break in it (inside quotes) becomes a space."""
    return redact.text(command).replace("\n", " ").replace("\t", " ")


def _quoted(word: str) -> str:
    if word in _UNQUOTED:
        return word
    if "\n" not in word and "\t" not in word:
        return shlex.quote(word)
    # $'...' keeps the line break and the command on one line (bash, zsh, ksh, dash from 0.5.13).
    escaped = word.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n").replace("\t", "\\t")
    return f"$'{escaped}'"


def edit_lines(edit: LaunchEdit) -> tuple[str, ...]:
    """An edit of the launch, one change a line."""
    changes = [f"name the model {line(edit.positional)}"] if edit.positional is not None else []
    changes += [f"{'add' if value is None else 'set'} {_flag(name, value)}" for name, value in edit.set.items()]
    changes += [f"drop {line(name)}" for name in edit.unset]
    changes += [f"drop the word {line(word)}" for word in edit.drop_words]
    for name, value in edit.env.items():
        changes.append(f"unset {line(name)}" if value is None else f"set {line(name)}={command_line([value])}")
    return tuple(changes)


def _flag(name: str, value: str | None) -> str:
    if value is None:
        return line(name)
    from vllm_doctor.launch.edit import words_of

    return f"{line(name)} {command_line(words_of(name, value))}"


def settings_lines(settings: Mapping[str, str]) -> tuple[str, ...]:
    """What to enter in the client, one setting a line."""
    return tuple(f"{line(name)}: {line(value)}" for name, value in settings.items())


def fix_lines(fix: Fix) -> tuple[str, ...]:
    """What a fix changes besides its command, one change a line; not what its title says already."""
    launch = edit_lines(fix.launch) if fix.launch is not None else ()
    changes = launch + (settings_lines(fix.settings) if fix.settings is not None else ())
    told = f" {line(fix.title).translate(_PUNCTUATION)} "
    return tuple(change for change in changes if f" {change.partition(' ')[2]} " not in told)


def plain_finding(finding: Finding) -> str:
    """A finding as a few lines of plain text, for documents that hold text only."""
    lines = [line(finding.title)]
    lines += [f"seen: {line(seen)}" for seen in finding.evidence]
    for fix in finding.fixes:
        lines.append(f"fix: {line(fix.title)}")
        if fix.command is not None:
            lines.append(f"    {command_line(fix.command)}")
        lines += [f"    {change}" for change in fix_lines(fix)]
    return "\n".join(lines)


def of_severity(diagnosis: Diagnosis, severity: Severity) -> tuple[Finding, ...]:
    """The findings of one severity, in the order of the diagnosis."""
    return tuple(f for f in diagnosis.findings if f.severity is severity)


def of_status(diagnosis: Diagnosis, status: Status) -> tuple[CheckResult, ...]:
    """The checks of one status, in the order of the diagnosis."""
    return tuple(c for c in diagnosis.checks if c.status is status)


def not_evaluated(diagnosis: Diagnosis) -> tuple[NotEvaluated, ...]:
    """The checks that were not evaluated, by reason: what could not be known first, the commonest reason first."""
    groups: dict[tuple[Status, str], list[str]] = {}
    for status in (Status.UNKNOWN, Status.SKIPPED):
        for check in of_status(diagnosis, status):
            groups.setdefault((status, line(check.reason)), []).append(line(check.id))
    found = [NotEvaluated(status, reason, tuple(ids)) for (status, reason), ids in groups.items()]
    return tuple(sorted(found, key=lambda g: (g.status is Status.SKIPPED, -len(g.ids))))


def folded(groups: tuple[NotEvaluated, ...]) -> tuple[NotEvaluated, ...]:
    """The same with the checks that are skipped each for a reason of its own in one group: what is unknown stays."""
    alone = tuple(g for g in groups if g.status is Status.SKIPPED and len(g.ids) == 1)
    if len(alone) < 2:
        return groups
    together = NotEvaluated(Status.SKIPPED, "does not apply here; -v says why", tuple(g.ids[0] for g in alone))
    return (*(g for g in groups if g not in alone), together)


def verdict(diagnosis: Diagnosis) -> str:
    """The contract's word: ok, warning or error; what is only worth knowing spoils no verdict."""
    worst = diagnosis.worst
    return "ok" if worst is None or worst is Severity.INFO else worst.value


def counted(number: int, noun: str) -> str:
    """`1 error`, `2 errors`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def counts(diagnosis: Diagnosis) -> str:
    """How many checks there were and what became of them."""
    told = [f"{n} {s.value}" for s in Status if (n := len(of_status(diagnosis, s)))]
    return f"{counted(len(diagnosis.checks), 'check')}: {', '.join(told)}" if told else "no check was run"


def verdict_sentence(diagnosis: Diagnosis) -> str:
    """The verdict as one sentence; what could not be judged is never left out of it."""
    errors, warnings = (len(of_severity(diagnosis, s)) for s in (Severity.ERROR, Severity.WARNING))
    told = [counted(n, noun) for n, noun in ((errors, "error"), (warnings, "warning")) if n]
    if told and diagnosis.checks and all(check.id.startswith("text:") for check in diagnosis.checks):
        # Read off a log: what it tells of has happened.
        return f"The text tells of {' and '.join(told)}."
    if errors:
        return f"{_failing(diagnosis)} will fail as things are: {' and '.join(told)}{_reservation(diagnosis)}."
    if warnings:
        return f"No error was found, but {told[0]}{_reservation(diagnosis)}."
    if not of_status(diagnosis, Status.PASSED) and not diagnosis.findings:
        return f"Nothing could be judged{_reservation(diagnosis)}."
    absence = ", but there is no vLLM here to judge" if _has_no_vllm(diagnosis.snapshot) else ""
    return f"No fault was found{absence}{_reservation(diagnosis)}."


PROVED = "The checks were run again with this command, and none that could be evaluated complains about it:"


def remaining_note(diagnosis: Diagnosis) -> str | None:
    """What is still wrong with the corrected command, for no command mends it."""
    titles = "; ".join(line(finding.title) for finding in diagnosis.remaining)
    return f"What no command mends, and is still to be done: {titles}." if titles else None


def _failing(diagnosis: Diagnosis) -> str:
    if all(catalogue().get(f.cause) == "Requests" for f in of_severity(diagnosis, Severity.ERROR)):
        return "Requests"
    return "This launch" if diagnosis.snapshot.launch is not None else "vLLM"


def _has_no_vllm(snapshot: Snapshot) -> bool:
    in_image = snapshot.launch is not None and snapshot.launch.docker is not None
    return not in_image and isinstance(snapshot.environment, Environment) and snapshot.environment.vllm is None


def _reservation(diagnosis: Diagnosis) -> str:
    unknown, crashed = (len(of_status(diagnosis, s)) for s in (Status.UNKNOWN, Status.CRASHED))
    told = [f"{counted(unknown, 'check')} could not be evaluated"] if unknown else []
    told += [f"{counted(crashed, 'check')} crashed"] if crashed else []
    told += [f"the {line(name)} probe failed" for name in diagnosis.snapshot.failed_probes]
    return f"; {', '.join(told)}" if told else ""
