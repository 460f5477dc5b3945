"""Writes the findings as one JSON document: the `json` module would double the child's start-up."""

from __future__ import annotations

try:
    from _json import encode_basestring_ascii as _quoted
except ImportError:  # PyPy has no _json
    from json.encoder import encode_basestring_ascii as _quoted

MAXIMUM_CHARACTERS = 4096


def document(value: object) -> str:
    """The JSON of None, booleans, numbers, strings, lists, tuples and dicts with string keys."""
    if value is None:
        return "null"
    if value is True or value is False:
        return "true" if value else "false"
    if isinstance(value, str):
        return string(value)
    if isinstance(value, dict):
        return "{" + ",".join([f"{string(key)}:{document(member)}" for key, member in value.items()]) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ",".join([document(member) for member in value]) + "]"
    return repr(value)


def string(text: str) -> str:
    """A JSON string, cut to a bounded length; bytes of a path that are no UTF-8 are shown escaped."""
    text = text[:MAXIMUM_CHARACTERS]
    if not text.isascii():
        text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    quoted: str = _quoted(text)
    return quoted
