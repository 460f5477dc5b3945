"""A client's own request from a file: its JSON body, or the curl command that was pasted."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from vllm_doctor import redact
from vllm_doctor.errors import InputFileError

MAXIMUM_FILE_BYTES = 8 * 2**20

_DATA = ("-d", "--data", "--data-raw", "--data-binary", "--data-ascii", "--json")
_PASSED_OVER = frozenset(
    {
        "-A",
        "--user-agent",
        "-b",
        "--cookie",
        "-e",
        "--referer",
        "-m",
        "--max-time",
        "--connect-timeout",
        "-o",
        "--output",
    }
    | {"-x", "--proxy", "-w", "--write-out", "--retry", "-u", "--user", "--cacert", "-E", "--cert", "--key"}
)


_TAKES_VALUE = _PASSED_OVER | {*_DATA, "-H", "--header", "-X", "--request", "--url"}


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What the client sends: method, path (None: to be told from the body), headers, and the raw body."""

    method: str = "POST"
    path: str | None = None
    headers: Mapping[str, str] = {}
    body: bytes = b""
    url: str | None = None

    def json(self) -> dict[str, Any] | None:
        """The body as a JSON object; None where it is none."""
        try:
            value = msgspec.json.decode(self.body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None
        return value if isinstance(value, dict) else None

    @property
    def operation(self) -> str:
        """The path below the base: told from the URL, else from the body's own fields."""
        if self.path is not None:
            return self.path
        fields = self.json() or {}
        if "messages" not in fields and "prompt" in fields:
            return "/completions"
        return "/embeddings" if "messages" not in fields and "input" in fields else "/chat/completions"


def read_body(path: Path) -> Request:
    """The request whose body is that file; raises InputFileError."""
    return Request(body=_content(path))


def read_curl(path: Path) -> Request:
    """The request of a pasted curl command; raises InputFileError where there is none in the file."""
    text = _content(path).decode("utf-8", "replace").replace("\\\r\n", " ").replace("\\\n", " ")
    try:
        words = shlex.split(text)
    except ValueError as problem:
        raise InputFileError(f"{path}: {problem}", "paste the whole curl command, with its quotes") from None
    start = next((n for n, word in enumerate(words) if word.rsplit("/", 1)[-1] in ("curl", "curl.exe")), None)
    if start is None:
        raise InputFileError(
            f"{path}: there is no curl command in it", "paste it as you call it: curl URL -H ... -d ..."
        )
    return _parsed(words[start + 1 :], path)


def _parsed(words: list[str], path: Path) -> Request:
    found = _Words(path)
    rest = iter(words)
    for word in rest:
        name, joined, value = word.partition("=") if word.startswith("--") else (word, "", "")
        if name.startswith("-X") and len(name) > 2:
            name, joined, value = "-X", "=", name[2:]
        if name in _TAKES_VALUE:
            found.option(name, value if joined else next(rest, ""))
        elif not word.startswith("-") and found.url is None:
            found.url = word
    return found.request()


class _Words:
    """What the words of a curl command add up to."""

    def __init__(self, path: Path) -> None:
        self.url: str | None = None
        self._path = path
        self._method: str | None = None
        self._headers: dict[str, str] = {}
        self._bodies: list[str] = []

    def option(self, name: str, value: str) -> None:
        """Take one option with its value; those that do not change the request are passed over."""
        if name in ("-H", "--header"):
            self._headers.update(_header(value))
        elif name in _DATA:
            self._bodies.append(_data(value, self._path))
            if name == "--json":
                self._headers.setdefault("Content-Type", "application/json")
        elif name in ("-X", "--request"):
            self._method = value
        elif name == "--url":
            self.url = value

    def request(self) -> Request:
        """The request; raises InputFileError where the command names no URL or a method that is none."""
        if self.url is None:
            raise InputFileError(f"{self._path}: the curl command names no URL", "paste the whole command")
        method = (self._method or ("POST" if self._bodies else "GET")).upper()
        if not method.isascii() or not method.isalpha() or len(method) > 20:
            shown = redact.line(method, 40)
            raise InputFileError(f"{self._path}: {shown!r} is no method", "paste the command as it was called")
        full = self.url if "://" in self.url else f"http://{self.url}"
        body = "&".join(self._bodies).encode()
        return Request(method=method, path=_path(full), headers=self._headers, body=body, url=full)


def _header(text: str) -> dict[str, str]:
    name, colon, value = text.partition(":")
    plain = name.strip()
    held = colon and plain.isascii() and plain.replace("-", "").replace("_", "").isalnum()
    # Host, length and encoding are the connection's own; an encoding could stand for gigabytes.
    if not held or plain.lower() in ("host", "content-length", "accept-encoding", "connection", "transfer-encoding"):
        return {}
    return {plain: value.strip().replace("\r", "").replace("\n", "")}


def _data(text: str, path: Path) -> str:
    if not text.startswith("@"):
        return text
    return _content(path.parent / text[1:]).decode("utf-8", "replace")


def _path(url: str) -> str:
    try:
        return urlsplit(url).path or "/"
    except ValueError:
        return "/"


def _content(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(MAXIMUM_FILE_BYTES + 1)
    except OSError as problem:
        raise InputFileError(f"{path}: {problem.strerror}", "name a file that can be read") from None
    if len(content) > MAXIMUM_FILE_BYTES:
        raise InputFileError(f"{path} is larger than {MAXIMUM_FILE_BYTES} bytes", "no request is as large")
    return content
