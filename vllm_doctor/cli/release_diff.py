"""`vllm-doctor releases --diff OLD NEW [-- LAUNCH]`: what changes, and what of a launch breaks."""

from typing import Any

import click

from vllm_doctor import correct, diagnose, registry
from vllm_doctor.cli.rows import as_json, wrapped
from vllm_doctor.facts import Environment, Launch, Unknown, VllmBuild
from vllm_doctor.finding import Finding, Severity
from vllm_doctor.launch.parse import parse_launch
from vllm_doctor.releases import Release
from vllm_doctor.releases.diff import Difference, difference
from vllm_doctor.snapshot import Snapshot

_NOT_EXAMINED = Unknown("only the launch command is compared")


def show(old: Release, new: Release, words: tuple[str, ...], format_name: str) -> int:
    """Print the difference; with a launch, what it loses, and exit code 1 where it breaks."""
    if not words:
        _print(old, new, difference(old, new), format_name)
        return 0
    launch = parse_launch(words)
    before, after = _judged(launch, old), _judged(launch, new)
    known = {(f.check, f.title) for f in before.findings}
    breaks = [f for f in after.findings if (f.check, f.title) not in known and f.severity is not Severity.INFO]
    defaults = _defaults_of(launch, difference(old, new))
    if format_name == "json":
        click.echo(as_json(_document(old, new, breaks, defaults, after.corrected)))
    else:
        _print_launch(old, new, breaks, defaults, after.corrected)
    return 1 if any(f.severity is Severity.ERROR for f in breaks) else 0


def _judged(launch: Launch, release: Release) -> diagnose.Diagnosis:
    """The launch judged by one release alone: nothing of this host is looked at."""
    build = VllmBuild(
        path="",
        distribution="vllm",
        metadata_version=release.version,
        package_version=release.version,
        platform="cuda",
        extensions=(),
    )
    environment = Environment(
        python="python",
        python_version="3.12",
        implementation="cpython",
        prefix="",
        kind="venv",
        named_by="--diff",
        markers={},
        openssl_version=_NOT_EXAMINED,
        search_path=(),
        commands={},
        distributions=(),
        torch=None,
        vllm=build,
        extensions=_NOT_EXAMINED,
        shadows=(),
        complete=False,
    )
    snapshot = Snapshot(
        host=_NOT_EXAMINED, gpus=_NOT_EXAMINED, environment=environment, servers=_NOT_EXAMINED, launch=launch
    )
    found = registry.load()
    of_launch = registry.Registry(tuple(c for c in found.checks if "launch" in c.needs))
    return correct.correct(diagnose.diagnose(snapshot, of_launch), of_launch)


# How a default says that there is nothing.
_NOTHING = (None, "", "{}", "[]")


def _defaults_of(launch: Launch, changed: Difference) -> dict[str, tuple[str | None, str | None]]:
    """The defaults that change under a launch that leaves them to vLLM; one way to write nothing is like another."""
    given = {"--model"} if launch.model is not None else set()
    return {
        name: pair
        for name, pair in changed.defaults.items()
        if not launch.has(name) and name not in given and not all(value in _NOTHING for value in pair)
    }


def _document(
    old: Release,
    new: Release,
    breaks: list[Finding],
    defaults: dict[str, tuple[str | None, str | None]],
    corrected: str | None,
) -> dict[str, Any]:
    from vllm_doctor.reports.json import finding_document

    return {
        "schema": "vllm-doctor/release-diff/1",
        "old": old.version,
        "new": new.version,
        "findings": [finding_document(f) for f in breaks],
        "defaults": {name: {"old": pair[0], "new": pair[1]} for name, pair in defaults.items()},
        "corrected": corrected,
    }


def _print_launch(
    old: Release,
    new: Release,
    breaks: list[Finding],
    defaults: dict[str, tuple[str | None, str | None]],
    corrected: str | None,
) -> None:
    for finding in breaks:
        click.echo(f"{finding.severity.value}: {finding.title}  [{finding.cause}]")
        for label, lines in (("seen", finding.evidence), ("fix", tuple(fix.title for fix in finding.fixes))):
            for line in lines:
                click.echo(wrapped(label, line, 8))
    if corrected is not None:
        click.echo(f"\nThe command for {new.version}:\n\n  {corrected}\n")
    if defaults:
        click.echo(f"Defaults that the command leaves to vLLM and that change from {old.version} to {new.version}:")
        for name, (before, after) in defaults.items():
            click.echo(wrapped("", f"{name}: {_shown(before)} -> {_shown(after)}", 4))
    verdict = f"{len(breaks)} things break" if len(breaks) != 1 else "1 thing breaks"
    click.echo(f"\nFrom {old.version} to {new.version}: {verdict if breaks else 'nothing of this launch breaks'}.")


def _print(old: Release, new: Release, changed: Difference, format_name: str) -> None:
    if format_name == "json":
        rows = {c.kind: {"gone": list(c.gone), "new": list(c.new)} for c in changed.changes}
        document = {"schema": "vllm-doctor/release-diff/1", "old": old.version, "new": new.version, "changes": rows}
        pairs = (("pins", changed.pins), ("defaults", changed.defaults))
        click.echo(as_json(document | {kind: _pairs(values) for kind, values in pairs}))
        return
    click.echo(f"From vLLM {old.version} to {new.version}\n")
    for change in changed.changes:
        click.echo(change.kind)
        for sign, names in (("gone", change.gone), ("new", change.new)):
            if names:
                click.echo(wrapped(sign, ", ".join(names), 8))
    for title, values in (("requirements", changed.pins), ("defaults", changed.defaults)):
        click.echo(title)
        for name, (before, after) in values.items():
            click.echo(wrapped("", f"{name}: {_shown(before)} -> {_shown(after)}", 4))


def _shown(value: str | None) -> str:
    return "nothing" if value is None else value or "''"


def _pairs(values: Any) -> dict[str, dict[str, str | None]]:
    return {name: {"old": pair[0], "new": pair[1]} for name, pair in values.items()}
