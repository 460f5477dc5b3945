"""What of an entry's config was compared with a copy of the publisher's file, and whether that still holds."""

import json
from collections.abc import Collection, Mapping
from typing import Any

import msgspec


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """Where an entry's facts were found stated alike, and a digest of those facts.

    `sources` are copies of config.json or tables of others (the publisher's own file was out of reach). `facts` are
    the keys that agree, `text_config.hidden_size` for a nested one; None: all that the memory plan takes.
    """

    sources: tuple[str, ...] = msgspec.field(name="with")
    digest: str
    facts: tuple[str, ...] | None = None


def facts_of(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The config's values by dotted keys."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            found |= facts_of(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


def digest(config: Mapping[str, Any], facts: Collection[str] | None) -> str:
    """A digest of the compared facts, which changes with any of them; of all facts where `facts` is None."""
    import hashlib  # with OpenSSL: more than a plan may cost

    values = facts_of(config)
    compared = {key: values.get(key) for key in (values if facts is None else facts)}
    return hashlib.sha256(json.dumps(compared, sort_keys=True).encode()).hexdigest()[:16]
