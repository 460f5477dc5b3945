"""The proxy that the environment names for a URL: what a client on this machine would go through."""

import os
from collections.abc import Mapping
from urllib.parse import unquote, urlsplit

from msgspec import Struct

from vllm_doctor import redact


class Proxy(Struct, frozen=True):
    """A proxy: its URL without credentials, the variable that names it, and its credentials."""

    url: str
    variable: str
    credentials: tuple[bytes, bytes] | None = None

    @property
    def shown(self) -> str:
        """`http://proxy:3128 (HTTPS_PROXY)`, without the credentials."""
        return redact.line(f"{self.url} ({self.variable})")


def named(url: str, environment: Mapping[str, str] | None = None) -> tuple[str, str] | None:
    """The variable and the value that name a proxy for this URL; None where none does or NO_PROXY excepts the host."""
    variables = os.environ if environment is None else environment
    parts = urlsplit(url)
    host = (parts.hostname or "").lower()
    if not host or _excepted(host, parts.port, variables.get("no_proxy") or variables.get("NO_PROXY") or ""):
        return None
    for name in (f"{parts.scheme}_proxy", f"{parts.scheme.upper()}_PROXY", "all_proxy", "ALL_PROXY"):
        if variables.get(name):
            return name, variables[name]
    return None


def proxy_for(url: str, environment: Mapping[str, str] | None = None) -> Proxy | None:
    """The HTTP proxy for this URL; none for this machine's own loopback, which no proxy reaches, nor a SOCKS one."""
    found = named(url, environment)
    host = urlsplit(url).hostname or ""
    if found is None or is_loopback(host):
        return None
    variable, value = found
    parts = urlsplit(value if "://" in value else f"http://{value}")
    try:
        port = parts.port
    except ValueError:
        return None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return None
    name = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    plain = f"{parts.scheme}://{name}:{port or (443 if parts.scheme == 'https' else 80)}"
    secret = None
    if parts.username is not None:
        secret = (unquote(parts.username).encode(), unquote(parts.password or "").encode())
    return Proxy(plain, variable, secret)


def is_loopback(host: str) -> bool:
    """Whether the host is this machine's own loopback, by name or address."""
    return host == "localhost" or host.startswith("127.") or host in ("::1", "0.0.0.0")  # noqa: S104 - compared with


def _excepted(host: str, port: int | None, exceptions: str) -> bool:
    """NO_PROXY as curl and Python read it: names, suffixes with or without a dot, `*`, and `name:port`."""
    for part in exceptions.split(",")[:500]:
        name = part.strip().lower()
        if not name:
            continue
        if name == "*":
            return True
        bare, _, its_port = name.rpartition(":") if name.count(":") == 1 else (name, "", "")
        bare = (bare or name).lstrip(".")
        if its_port and its_port != str(port):
            continue
        if host == bare or host.endswith(f".{bare}"):
            return True
    return False
