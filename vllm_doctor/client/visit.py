"""One visit to a server: the options, what was learnt so far, and the steps with what became of them."""

import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from msgspec import Struct, structs

from vllm_doctor import redact
from vllm_doctor.client.identify import Kind
from vllm_doctor.client.names import Served
from vllm_doctor.client.session import Session
from vllm_doctor.errors import DoctorError
from vllm_doctor.finding import Finding, Fix, Severity

# Told of every step: its name, then "started", and "done", "failed" or "skipped".
Progress = Callable[[str, str], None]

# Where Tlink keeps the settings that a fix names.
TLINK = "Settings -> AI Assistant -> AI Providers -> vLLM (Local)"

# Endings that are often pasted with the address; the client appends them itself.
OPERATIONS = ("/chat/completions", "/completions", "/embeddings", "/models", "/responses")


def silent(_step: str, _state: str) -> None:
    """For walks that nobody watches."""


class UrlError(DoctorError):
    """BASE_URL is no http or https URL."""


class Options(Struct, frozen=True, kw_only=True):
    """What the client will do: its model, tools, streaming, images, structured output and sizes; and the limits."""

    model: str | None = None
    key: str | None = None
    key_variable: str | None = None
    tools: bool = False
    stream: bool = True
    structured: bool = False
    image: bool = False
    context_tokens: int | None = None
    max_tokens: int | None = None
    timeout_seconds: float = 30.0


class Step(Struct, frozen=True, kw_only=True):
    """One step: its name, what became of it (passed, failed, skipped), the seconds it took, and what was seen."""

    name: str
    status: str
    seconds: float
    detail: str


class Skipped(Exception):
    """The step does not apply, or was not asked for; the text says why."""


class Broken(Exception):
    """The step failed: with what was found, in order of weight."""

    def __init__(self, *findings: Finding) -> None:
        super().__init__(findings[0].title)
        self.findings = findings


class Visit:
    """What is known of one server while its steps are walked; `base` is the URL that the client would use."""

    def __init__(self, url: str, options: Options, progress: Progress = silent) -> None:
        self.base = full_url(url)
        self.progress = progress
        self.options = options
        self.session = Session(self.base, options.key, options.timeout_seconds)
        self.kind: Kind | None = None
        self.version: str | None = None
        self.served: tuple[Served, ...] = ()
        self.chosen: Served | None = None
        self.paths: frozenset[str] | None = None
        self.plain_prompt_tokens: int | None = None
        self.answered = False
        self.steps: list[Step] = []
        self.findings: list[Finding] = []

    @property
    def root(self) -> str:
        """The base without /v1: where /health, /version and /metrics are."""
        return root_of(self.base)

    @property
    def shown_base(self) -> str:
        """The base, harmless."""
        return redact.line(self.base)

    @property
    def model(self) -> str:
        """The name to send in requests."""
        return self.chosen.name if self.chosen is not None else self.options.model or ""

    def take(self, name: str, step: "Callable[[Visit], str]") -> bool:
        """Walk one step; False where the walk ends here. Findings below an error do not end it."""
        started = time.monotonic()
        self.progress(name, "started")
        goes_on, status = True, "passed"
        try:
            detail = step(self)
        except Skipped as reason:
            status, detail = "skipped", str(reason)
        except Broken as broken:
            status, detail = "failed", broken.findings[0].title
            self.findings += [structs.replace(found, check=name) for found in broken.findings]
            goes_on = all(found.severity is not Severity.ERROR for found in broken.findings)
        self.progress(name, "done" if status == "passed" else status)
        seconds = round(time.monotonic() - started, 6)
        self.steps.append(Step(name=name, status=status, seconds=seconds, detail=redact.line(detail, 500)))
        return goes_on


def _has_bad_port(full: str) -> bool:
    port = full.split("/")[2].rpartition("]")[2].rpartition(":")
    return port[1] == ":" and port[2].isdecimal() and not 0 < int(port[2][:9]) < 65536


def full_url(url: str) -> str:
    """The URL with its scheme, without query and fragment; raises UrlError for one that is no http(s) URL."""
    full = url if "://" in url else f"http://{url}"
    try:
        parts = urlsplit(full)
        valid = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        valid = False
    if not valid and full.startswith(("http://", "https://")) and _has_bad_port(full):
        raise UrlError(f"{redact.line(url)!r} names no port from 1 to 65535", "write it like http://HOST:8000/v1")
    if not valid or len(full) > 2000 or not full.isascii() or not full.isprintable() or " " in full:
        raise UrlError(f"{redact.line(url)!r} is no http or https URL", "write it like http://HOST:8000/v1")
    if "@" in parts.netloc:
        raise UrlError("the URL holds a user name or password", "put the key into a variable: --api-key-env NAME")
    return full.split("?")[0].split("#")[0]


def root_of(base: str) -> str:
    """The base without trailing slashes and every /v1 at its end."""
    root = base.rstrip("/")
    for ending in OPERATIONS:
        root = root.removesuffix(ending)
    while root.rstrip("/").endswith("/v1"):
        root = root.rstrip("/").removesuffix("/v1")
    return root.rstrip("/")


def client_fix(title: str, settings: Mapping[str, str]) -> Fix:
    """What to enter in the client; the title says where Tlink has it."""
    return Fix(title=f"{title} (Tlink: {TLINK})", settings=settings)


def walk_steps(visit: Visit, steps: "tuple[tuple[str, Callable[[Visit], str]], ...]") -> None:
    """Walk the steps, one after the other; those after a broken one are skipped."""
    broken: str | None = None
    for name, step in steps:
        if broken is not None:
            reason = f"the step {broken!r} failed"
            visit.steps.append(Step(name=name, status="skipped", seconds=0.0, detail=reason))
        elif not visit.take(name, step):
            broken = name


def text_of(value: Any) -> str:
    """The value where it is text, else nothing."""
    return value if isinstance(value, str) else ""
