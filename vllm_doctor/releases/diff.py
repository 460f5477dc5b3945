"""What changes from one release to another: what is gone, what is new, and which defaults are others."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import msgspec

from vllm_doctor.releases.facts import Release


class Change(msgspec.Struct, frozen=True):
    """One kind of thing (`flags`, `variables`, ...): the names that are gone and those that are new."""

    kind: str
    gone: tuple[str, ...]
    new: tuple[str, ...]


class Difference(msgspec.Struct, frozen=True):
    """Everything that differs.

    `pins` and `defaults` map a name to its value in the old and in the new release; `defaults` holds the flags that
    both have.
    """

    changes: tuple[Change, ...]
    pins: Mapping[str, tuple[str | None, str | None]]
    defaults: Mapping[str, tuple[str | None, str | None]]


def difference(old: Release, new: Release) -> Difference:
    """The way from one release to another, in either direction."""
    kinds: tuple[tuple[str, Collection[str], Collection[str]], ...] = (
        ("flags", old.flags, new.flags),
        ("variables", old.env, new.env),
        ("architectures", old.architectures, new.architectures),
        ("tool parsers", old.tool_parsers, new.tool_parsers),
        ("reasoning parsers", old.reasoning_parsers, new.reasoning_parsers),
        ("quantization", old.quantization, new.quantization),
        ("attention backends", old.attention_backends, new.attention_backends),
        ("KV cache dtypes", old.kv_cache_dtypes, new.kv_cache_dtypes),
    )
    changes = tuple(
        Change(kind, tuple(sorted(set(before) - set(after))), tuple(sorted(set(after) - set(before))))
        for kind, before, after in kinds
    )
    both = sorted(set(old.flags) & set(new.flags))
    return Difference(
        changes=tuple(c for c in changes if c.gone or c.new),
        pins=_changed(old.pins, new.pins, sorted(set(old.pins) | set(new.pins))),
        defaults=_changed(
            {n: f.default for n, f in old.flags.items()}, {n: f.default for n, f in new.flags.items()}, both
        ),
    )


def _changed(
    old: Mapping[str, str | None], new: Mapping[str, str | None], names: Collection[str]
) -> dict[str, tuple[str | None, str | None]]:
    return {name: (old.get(name), new.get(name)) for name in names if old.get(name) != new.get(name)}
