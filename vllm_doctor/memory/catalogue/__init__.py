"""Widely served models with their config facts, for a plan without network and for gated repositories.

The configs and the counts of parameters were written down from memory in part. The file at `source`, the publisher's
own config.json, was out of reach; most entries were compared with copies of it or with tables of others instead
(`compared`, by scripts/compare_catalogue.py), wholly or in some facts, and a plan says with what. A test holds each
entry to what was compared, and the count of parameters that follows from its config to the one written beside it. A
config at hand, or the hub's, wins over these.
"""

from collections.abc import Mapping
from difflib import get_close_matches
from functools import lru_cache
from importlib.resources import files

import msgspec

from vllm_doctor.memory.catalogue.comparison import Comparison
from vllm_doctor.memory.catalogue.variants import QUANTIZED_SUFFIXES, variant_of

__all__ = ["Entry", "find", "names", "quantized", "suggest"]

MAXIMUM_SUGGESTIONS = 4


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One model: its config's facts as JSON text, and what serving it needs.

    `chat`: it has a chat template (False: a base, code or embedding model). `gated` None: not known. `parameters` as
    said to be published, None where nothing is. `derived_from` names the base of a quantized variant that is not
    itself listed. `compared`: where its facts (a variant's base's) were found stated alike, None: nowhere.
    """

    name: str
    config_json: str
    chat: bool
    source: str
    tool_parser: str | None = None
    reasoning_parser: str | None = None
    gated: bool | None = None
    parameters: int | None = None
    note: str = ""
    derived_from: str | None = None
    compared: Comparison | None = None


class _Row(msgspec.Struct, frozen=True, kw_only=True):
    """Models of one config in the data file: those with a chat template, and those without."""

    chat: tuple[str, ...]
    base: tuple[str, ...]
    source: str
    config: msgspec.Raw
    tool_parser: str | None = None
    reasoning_parser: str | None = None
    gated: bool | None = None
    parameters: int | None = None
    note: str = ""
    compared: Comparison | None = None


def find(name: str) -> Entry | None:
    """The model of that hub id (letter case does not count), or a quantized variant that names its base; else None."""
    known = _index()
    if (row := known.get(name.lower())) is not None:
        return _entry(*row)
    variant = variant_of(name, frozenset(known))
    if variant is None:
        return None
    base = _entry(*known[variant.base])
    config = {**msgspec.json.decode(base.config_json), "quantization_config": variant.quantization}
    text = msgspec.json.encode(config).decode()
    return msgspec.structs.replace(
        base, name=name, config_json=text, parameters=None, gated=None, derived_from=base.name, note=variant.note
    )


def names() -> tuple[str, ...]:
    """Every hub id of the catalogue."""
    return tuple(name for name, _ in _index().values())


def quantized(name: str) -> tuple[Entry, ...]:
    """The quantized checkpoints of the same publisher that the catalogue lists for the model, the largest first."""
    ids = [f"{name}{suffix}" for suffix in QUANTIZED_SUFFIXES]
    return tuple(entry for i in ids if i.lower() in _index() and (entry := find(i)) is not None)


def suggest(name: str) -> tuple[str, ...]:
    """Ids that nearly match: the same name under another organisation first, then the nearest spellings."""
    wanted = name.lower().rpartition("/")[2].replace("_", "-")
    by_last: dict[str, list[str]] = {}
    for known in names():
        by_last.setdefault(known.lower().rpartition("/")[2], []).append(known)
    exact = by_last.get(wanted, [])
    longer = [k for last, ids in by_last.items() if len(wanted) > 5 and last.startswith(wanted + "-") for k in ids]
    # Other digits are another size or version, not a misspelling.
    alike = [last for last in by_last if _digits(last) == _digits(wanted)]
    near = [k for last in get_close_matches(wanted, alike, n=4, cutoff=0.8) for k in by_last[last]]
    return tuple(dict.fromkeys((*exact, *longer, *near)))[:MAXIMUM_SUGGESTIONS]


def _digits(name: str) -> str:
    return "".join(c for c in name if c.isdigit())


@lru_cache(maxsize=1)
def _index() -> Mapping[str, tuple[str, _Row]]:
    data = files(__name__).joinpath("models.json").read_bytes()
    rows = msgspec.json.decode(data, type=tuple[_Row, ...])
    return {name.lower(): (name, row) for row in rows for name in (*row.chat, *row.base)}


def _entry(name: str, row: _Row) -> Entry:
    return Entry(
        name=name,
        config_json=bytes(row.config).decode(),
        chat=name in row.chat,
        source=row.source,
        tool_parser=row.tool_parser if name in row.chat else None,
        reasoning_parser=row.reasoning_parser if name in row.chat else None,
        gated=row.gated,
        parameters=row.parameters,
        note=row.note,
        compared=row.compared,
    )
