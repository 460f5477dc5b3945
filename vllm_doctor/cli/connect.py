"""`vllm-doctor connect`: walk what a client does against one URL or several, or replay a client's own request."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import click

from vllm_doctor import redact, settings
from vllm_doctor.cli import options, printing
from vllm_doctor.cli.options import Output
from vllm_doctor.errors import DoctorError, SelectionError
from vllm_doctor.finding import Finding

if TYPE_CHECKING:
    from vllm_doctor.client.request_file import Request
    from vllm_doctor.client.visit import Options, Progress
    from vllm_doctor.client.walk import Connection
    from vllm_doctor.reports.connection import Watched

# vLLM's own variable for the key of a server (vllm/envs.py). OPENAI_API_KEY is not taken unasked: it is the key to
# another party's service and must not be sent to whatever address was typed.
DEFAULT_KEY_VARIABLE = "VLLM_API_KEY"

MAXIMUM_URLS = 32


@click.command("connect")
@click.option("--model", metavar="NAME", help="The model that the client names [the first that is served].")
@click.option("--tools", is_flag=True, help="Also tool calls: auto, required and named.")
@click.option(
    "--api-key-env", metavar="VAR", help="The variable that holds the API key [VLLM_API_KEY]; never the key itself."
)
@click.option("--no-stream", is_flag=True, help="The client does not stream.")
@click.option("--structured", is_flag=True, help="Also structured output (a JSON schema).")
@click.option("--image", is_flag=True, help="Also an image.")
@click.option("--context", type=click.IntRange(1), metavar="TOKENS", help="The context that the client is set to.")
@click.option("--max-tokens", type=click.IntRange(1), metavar="TOKENS", help="The max_tokens that the client asks for.")
@click.option(
    "--request", type=click.Path(path_type=Path), metavar="FILE.json", help="Replay this request body of a client."
)
@click.option("--curl", type=click.Path(path_type=Path), metavar="FILE", help="Replay the curl command in this file.")
@click.option("--watch", type=click.FloatRange(1, 86400), metavar="SECONDS", help="Watch /metrics for that long.")
@click.option("--timeout", type=click.FloatRange(0.5, 3600), metavar="SECONDS", help="Limit of one request [30].")
@options.reporting
@click.argument("urls", nargs=-1, metavar="BASE_URL...")
def command(urls: tuple[str, ...], **given: Any) -> int:
    """Walk what an OpenAI-compatible client does against BASE_URL, and stop at the first step that breaks.

    BASE_URL is what is entered in the client: http://HOST:8000/v1. Several may be given.
    """
    found_settings = settings.find(Path.cwd())
    output = options.output(found_settings, given)
    wanted = _wanted(given)
    request = _request(given)
    addresses = _addresses(urls, request)
    watched = None
    with printing.live(output) as progress:
        connections = [_one(url, wanted, request, progress) for url in addresses]
    if len(connections) > 1:
        from vllm_doctor.client.walk import told_elsewhere

        connections = told_elsewhere(connections, wanted.model)
    if given["watch"] is not None:
        watched, found = _watch(addresses[0], wanted, given["watch"])
        connections[0] = _joined(connections[0], found)
    findings = _selected(connections, given)
    _report(connections, findings, watched, output)
    from vllm_doctor.reports.connection import diagnosis

    return options.exit_code(diagnosis(connections, findings), output.fail_on)


def _wanted(given: dict[str, Any]) -> "Options":
    from vllm_doctor.client.visit import Options

    variable, key = _key(given["api_key_env"])
    return Options(
        model=given["model"],
        key=key,
        key_variable=variable,
        tools=given["tools"],
        stream=not given["no_stream"],
        structured=given["structured"],
        image=given["image"],
        context_tokens=given["context"],
        max_tokens=given["max_tokens"],
        timeout_seconds=given["timeout"] or options.DEFAULT_TIMEOUT_SECONDS,
    )


def _key(variable: str | None) -> tuple[str | None, str | None]:
    name = variable or DEFAULT_KEY_VARIABLE
    value = os.environ.get(name)
    if variable is not None and not value:
        shown = "that" if len(name) > 40 or not name.replace("_", "").isalnum() else name
        raise DoctorError(
            f"--api-key-env: there is no variable {shown} with a value",
            "name the variable, not the key; export it first",
        )
    if not value:
        return None, None
    redact.hide(value)
    if not value.strip().isascii() or not value.strip().isprintable():
        raise DoctorError(f"the key in {name} holds characters that no HTTP header takes", "copy the key again")
    return name, value


def _request(given: dict[str, Any]) -> "Request | None":
    from vllm_doctor.client import request_file

    if given["request"] is not None and given["curl"] is not None:
        raise DoctorError("--request and --curl exclude each other", "give one of them")
    if given["request"] is not None:
        return request_file.read_body(given["request"])
    if given["curl"] is None:
        return None
    found = request_file.read_curl(given["curl"])
    for name, value in found.headers.items():
        if redact.is_secret_name(name) or name.lower() == "authorization":
            redact.hide(value.split(" ")[-1])
    return found


def _addresses(urls: tuple[str, ...], request: "Request | None") -> tuple[str, ...]:
    if not urls and request is not None and request.url is not None:
        parts = urlsplit(request.url)
        urls = (f"{parts.scheme}://{parts.netloc}/v1",)
    if not urls:
        raise DoctorError("there is no BASE_URL", "what is entered in the client, like http://localhost:8000/v1")
    if len(urls) > MAXIMUM_URLS or (request is not None and len(urls) > 1):
        raise DoctorError("too many addresses", f"{MAXIMUM_URLS} at most, and one where a request is replayed")
    from vllm_doctor.client.visit import full_url

    for url in urls:
        full_url(url)
    return urls


def _one(url: str, wanted: "Options", request: "Request | None", progress: "Progress") -> "Connection":
    if request is not None:
        from vllm_doctor.client.replay import replay

        return replay(url, request, wanted, progress)
    from vllm_doctor.client.walk import walk

    return walk(url, wanted, progress)


def _watch(url: str, wanted: "Options", seconds: float) -> "tuple[Watched | None, tuple[Finding, ...]]":
    """The figures of the watch, shown live on a terminal, and what they mean."""
    from vllm_doctor.client import health
    from vllm_doctor.client.replies import Reply
    from vllm_doctor.client.visit import Visit

    visit = Visit(url, wanted)

    def seen(figures: health.Figures) -> None:
        if sys.stderr.isatty():
            click.echo(f"\r\x1b[K{health.told(figures)[:200]}", err=True, nl=False)

    try:
        found = health.watch(visit, seconds, seen)
    finally:
        visit.session.close()
        if sys.stderr.isatty():
            click.echo("\r\x1b[K", err=True, nl=False)
    if isinstance(found, Reply):
        lost = health.lost_watch(visit, found)
        return None, () if lost is None else (lost,)
    return (health.told(found.figures), found), found.findings


def _joined(one: "Connection", found: tuple[Finding, ...]) -> "Connection":
    """The connection with what the watch found; the look at one moment gives way to it."""
    from msgspec import structs

    kept = tuple(f for f in one.findings if f.check != "health")
    new = tuple(structs.replace(f, check="health") for f in found)
    ordered = sorted((*kept, *new), key=lambda f: f.severity.rank)
    return structs.replace(one, findings=tuple(ordered))


def _selected(connections: "list[Connection]", given: dict[str, Any]) -> tuple[Finding, ...]:
    """The findings that --select and --ignore leave, worst first."""
    from vllm_doctor.causes import catalogue

    steps = {step.name for one in connections for step in one.steps}
    select, ignore = (_names(given[name], steps | set(catalogue())) for name in ("select", "ignore"))
    found = sorted((f for one in connections for f in one.findings), key=lambda f: f.severity.rank)
    return tuple(f for f in found if not ignore & {f.cause, f.check} and (not select or select & {f.cause, f.check}))


def _names(values: tuple[str, ...], known: set[str]) -> frozenset[str]:
    names = frozenset(part.strip() for value in values for part in value.split(",") if part.strip())
    for name in sorted(names - known):
        raise SelectionError(f"{name!r} is neither a step nor a cause", "`vllm-doctor explain` lists the causes")
    return names


def _report(
    connections: "list[Connection]", findings: tuple[Finding, ...], watched: "Watched | None", output: Output
) -> None:
    from vllm_doctor.reports import connection, text

    if output.format_name == "json":
        printing.write(connection.render(connections, findings, watched), output.path)
    elif output.format_name == "text":
        lines = tuple(connection.lines(connections, findings, watched, quiet=output.quiet))
        if output.path is None:
            text.show_lines(lines)
        else:
            printing.write(text.plain_lines(lines), output.path)
    else:
        printing.report(connection.diagnosis(connections, findings), output)
