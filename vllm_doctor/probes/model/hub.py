"""Asks the hub about a model: its small files and the list of the others, never weights; each refusal told apart."""

import ssl
import time
from collections.abc import Mapping
from typing import Any
from urllib.request import proxy_bypass_environment  # type: ignore[attr-defined]  # not in typeshed

import httpx
from msgspec import Struct

from vllm_doctor import __version__
from vllm_doctor.facts import ModelProblem, Unknown
from vllm_doctor.probes.model.reading import Unreadable, parse_object
from vllm_doctor.probes.running import Running

DEFAULT_ENDPOINT = "https://huggingface.co"
# Each request; the whole conversation takes at most MAXIMUM_SECONDS.
TIMEOUT = httpx.Timeout(8.0, connect=5.0)
MAXIMUM_SECONDS = 20.0
MAXIMUM_BYTES = 16 * 2**20
MAXIMUM_FILES = 20_000


class HubAnswer(Struct):
    """What the hub said: the files with their sizes (None: not told) and the contents of those that were wanted.

    `listed` says whether the files are all of the repository's, and not just config.json.
    """

    files: dict[str, int | None] = {}
    contents: dict[str, bytes] = {}
    commit: str | None = None
    listed: bool = False
    problem: ModelProblem | None = None


class _Refused(Exception):
    def __init__(self, kind: str, file: str, detail: str) -> None:
        super().__init__(detail)
        self.problem = ModelProblem(kind=kind, file=file, detail=detail)


class Access(Struct, frozen=True, kw_only=True):
    """How the launch would reach the hub; `variables` hold its proxies and certificates."""

    endpoint: str
    token: str | None
    variables: Mapping[str, str]

    def client(self) -> httpx.Client:
        """A client that goes the way vLLM would go; raises ValueError or OSError where that is no way."""
        # Identity: a few bytes of a compressed body could stand for gigabytes.
        headers = {"user-agent": f"vllm-doctor/{__version__}", "accept-encoding": "identity"}
        if self.token:
            headers["authorization"] = f"Bearer {self.token}"
        certificates = self.variables.get("SSL_CERT_FILE")
        return httpx.Client(
            base_url=self.endpoint,
            headers=headers,
            timeout=TIMEOUT,
            follow_redirects=True,
            trust_env=False,
            proxy=_proxy(self.endpoint, self.variables),
            verify=ssl.create_default_context(cafile=certificates) if certificates else True,
        )


def _proxy(endpoint: str, variables: Mapping[str, str]) -> str | None:
    """The proxy that the variables name for the endpoint (HTTPS_PROXY, ALL_PROXY; NO_PROXY excepts hosts)."""
    scheme, _, rest = endpoint.partition("://")
    names = (f"{scheme}_proxy".lower(), f"{scheme}_proxy".upper(), "all_proxy", "ALL_PROXY")
    proxy = next((variables[n] for n in names if variables.get(n)), None)
    excepted = variables.get("no_proxy") or variables.get("NO_PROXY") or ""
    if proxy is None or proxy_bypass_environment(rest.partition("/")[0], {"no": excepted}):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def ask_hub(repo_id: str, revision: str | None, access: Access, wanted: tuple[str, ...]) -> HubAnswer:
    """The hub's answer about a repository; a refusal is its `problem`.

    The limit holds for the whole conversation: httpx counts anew with every byte that comes.
    config.json is asked for first, by the URL that the hub's client uses, so that a mirror without an API will do.
    """
    try:
        client = access.client()
    except (httpx.InvalidURL, ValueError, OSError, ImportError) as problem:
        detail = f"{access.endpoint}: {problem}"
        return HubAnswer(problem=ModelProblem(kind="unreachable", file=repo_id, detail=detail))
    conversation = _Conversation(client, repo_id, revision or "main", access.token is not None)
    talk = Running("hub", lambda: _held(client, conversation, wanted))
    answer = talk.result(MAXIMUM_SECONDS + 0.5)
    if not isinstance(answer, Unknown):
        return answer
    why = f"no whole answer within {MAXIMUM_SECONDS:g} s" if talk.late else answer.reason
    detail = f"{_site(client)}: {why}"
    return HubAnswer(problem=ModelProblem(kind="unreachable", file=repo_id, detail=detail))


def _held(client: httpx.Client, conversation: "_Conversation", wanted: tuple[str, ...]) -> HubAnswer:
    with client:
        try:
            return conversation.hold(wanted)
        except _Refused as refused:
            return HubAnswer(problem=refused.problem)


class _Conversation:
    """A few requests about one revision of one repository, within one deadline."""

    def __init__(self, client: httpx.Client, repo_id: str, revision: str, has_token: bool) -> None:
        self._client = client
        self._repo_id = repo_id
        self._revision = revision
        self._has_token = has_token
        self._deadline = time.monotonic() + MAXIMUM_SECONDS

    def hold(self, wanted: tuple[str, ...]) -> HubAnswer:
        answer = HubAnswer(files={}, contents={})
        config = self._file("config.json")
        if config is not None:
            answer.contents["config.json"] = config
            answer.files["config.json"] = len(config)
        listing = self._listing()
        sizes = _sizes(listing)
        answer.listed = bool(sizes)
        answer.files.update(sizes)
        commit = listing.get("sha")
        answer.commit = commit if isinstance(commit, str) else None
        for name in wanted:
            if name in answer.files and name not in answer.contents and (data := self._file(name)) is not None:
                answer.contents[name] = data
        return answer

    def _file(self, name: str) -> bytes | None:
        """A file's content; None where the repository does not have it."""
        return self._get(f"/{self._repo_id}/resolve/{self._revision}/{name}")

    def _listing(self) -> Mapping[str, Any]:
        try:
            data = self._get(f"/api/models/{self._repo_id}/revision/{self._revision}", {"blobs": "true"})
            return parse_object(data, "listing") if data is not None else {}
        except (_Refused, Unreadable):
            return {}  # a mirror without the API: what config.json says is all there is

    def _get(self, path: str, query: Mapping[str, str] | None = None) -> bytes | None:
        where = self._repo_id
        if time.monotonic() > self._deadline:
            raise _Refused("unreachable", where, f"no whole answer within {MAXIMUM_SECONDS:g} s")
        try:
            with self._client.stream("GET", path, params=query) as response:
                if response.is_success:
                    return _bounded(response, self._deadline)
                if response.headers.get("x-error-code") != "EntryNotFound":
                    raise self._refusal(response)
                return None
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as problem:
            raise _Refused("unreachable", where, _unreachable(self._client, problem)) from None

    def _refusal(self, response: httpx.Response) -> _Refused:
        """What a status means (huggingface_hub 2.4 utils/_http.py `hf_raise_for_status`)."""
        status, code = response.status_code, response.headers.get("x-error-code")
        said = f"HTTP {status} from {_site(self._client)}"
        if code == "GatedRepo":
            have = "the token has no access to it" if self._has_token else "no token was given"
            return _Refused("gated", self._repo_id, f"{said}: the repository is gated, and {have}")
        if code == "RevisionNotFound":
            return _Refused("not-found", self._repo_id, f"{said}: no revision {self._revision!r}")
        if status in (401, 403):
            have = "the token was refused" if self._has_token else "no token was given"
            return _Refused("unauthorized", self._repo_id, f"{said}: private or not there, and {have}")
        if status == 404:
            return _Refused("not-found", self._repo_id, f"{said}: no such repository")
        detail = f"{said}: {'rate limit' if status == 429 else 'the hub does not answer as it should'}"
        return _Refused("unreachable", self._repo_id, detail)


def _bounded(response: httpx.Response, deadline: float) -> bytes | None:
    if response.headers.get("content-encoding", "identity").lower() != "identity":
        raise httpx.DecodingError("the answer is compressed, which was not asked for")
    data = bytearray()
    for chunk in response.iter_raw():
        data += chunk
        if len(data) > MAXIMUM_BYTES or time.monotonic() > deadline:
            return None
    return bytes(data)


def _unreachable(client: httpx.Client, problem: Exception) -> str:
    text = str(problem) or type(problem).__name__
    kind = "TLS fails" if "SSL" in text or "certificate" in text.lower() else "no connection"
    if isinstance(problem, httpx.TimeoutException):
        kind = "no answer in time"
    return f"{_site(client)}: {kind} ({text[:200]})"


def _site(client: httpx.Client) -> str:
    url = client.base_url
    return f"{url.scheme}://{url.host}" + (f":{url.port}" if url.port else "")


def _sizes(listing: Mapping[str, Any]) -> dict[str, int | None]:
    siblings = listing.get("siblings")
    found: dict[str, int | None] = {}
    for entry in siblings[:MAXIMUM_FILES] if isinstance(siblings, list) else ():
        if isinstance(entry, dict) and isinstance(name := entry.get("rfilename"), str):
            size = entry.get("size")
            found[name] = size if isinstance(size, int) and 0 <= size < 2**53 else None
    return found
