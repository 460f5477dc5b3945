"""A line of a log without its prefixes: who wrote it, how loudly, and what it says."""

import re

from msgspec import Struct

# A line longer than this is looked at around what was found in it.
MAXIMUM_LINE_BYTES = 4096

# The prefixes stand within so many bytes of a line.
MAXIMUM_HEAD_BYTES = 512

# No log of a deployment has more prefixes in front of one line (journald, compose, CRI, API server, engine, level).
MAXIMUM_PREFIXES = 9

# Colours as terminals get them, as syslog, JSON and editors write them, and as a paste leaves them without the escape
# itself; the tags that a terminal's export makes of them.
_ESCAPES = re.compile(
    r"\x1b\[[0-9;?]{0,16}[ -/]{0,2}[@-~]"
    r"|(?:#033|\\u001b|\\x1b|\\033|\^\[|\u241b)\[[0-9;]{0,16}m|#015"
    r"|\[(?:\d{1,2}(?:;\d{1,3}){1,4}|0|1|3\d|9\d)m"
    r"|</?(?:font|span|b)(?: [^<>]{0,60})?>"
    r"|[\x00-\x08\x0b-\x1f\x7f]"
)

_TIME = r"\d{2}:\d{2}:\d{2}(?:[.,]\d{1,9})?"
_DATE = r"(?:\d{4}[-/]\d{2}[-/]\d{2}|\d{2}-\d{2})"
_LEVEL = r"(?P<level>INFO|DEBUG|WARNING|WARN|ERROR|CRITICAL|FATAL|TRACE)"
_PREFIXES = re.compile(
    r"\s{0,8}(?:"
    # (EngineCore_DP0 pid=68), (APIServer pid=1), (RayWorkerWrapper pid=3, ip=10.0.0.2), (VllmWorker rank=1 pid=70)
    r"\((?P<process>[A-Za-z][\w.:\-]{0,60})(?: rank=\d{1,6}| TP\d{1,3})?,? (?:pid=\d{1,9}|ip=[\w.:]{1,40})[^()]{0,60}\)"
    r"|\[(?:rank|Rank |default)?\d{1,4}\]:"
    # Others who pass lines on: CloudWatch, mpirun, kubectl, Google Cloud, Unsloth, docker's files; srun, stern and
    # collectors of logs, before what vLLM itself writes.
    r"|\d{10,13},\"{0,2}"
    r"|\[\d{1,4},\d{1,4}\]<std(?:out|err)>:"
    r"|\[pod/[\w.\-/]{1,160}\]"
    r"|\[resource\.labels\.\w{1,40}: [\w.\-/]{1,160}\]"
    r"|vLLM STD(?:OUT|ERR):"
    r"|\{\"log\":\""
    r"|(?:[a-z0-9][\w.\-]{0,80}(?: [a-z0-9][\w.\-]{0,60})?:? {1,4}|\{\"(?:message|msg|textPayload|line)\": ?\")"
    rf"(?=(?:INFO|DEBUG|WARNING|ERROR) {_DATE} {_TIME}|\([A-Z][\w.:\-]{{0,60}}(?: rank=\d{{1,6}}| TP\d)? pid=\d)"
    # What Python's logging, logfmt and klog make of a level; Triton tells of a backend's end at klog's lowest.
    rf"|{_LEVEL.replace('level', 'named')}:[\w.]{{1,80}}:"
    r"|time=\"?[^\" ]{10,40}\"? level=(?P<format>\w{4,8}) msg="
    rf"|(?P<klog>I)\d{{4}} {_TIME} {{1,8}}\d{{1,8}} (?!pb_stub\.cc)[\w./\-]{{1,80}}:\d{{1,6}}\]"
    # ERROR 01-20 13:03:50 [core.py:12], INFO 08-05 12:39:06 serving_chat.py:118], ERROR 2025-01-20 13:03:50,123 ...
    rf"|{_LEVEL}:? {{1,5}}(?:{_DATE}[ T])?{_TIME}Z?(?: \[?[\w./\-]{{1,80}}:\d{{1,6}}\])?"
    rf"|\[?{_DATE}[ T]{_TIME}(?:Z|[+-]\d{{2}}:?\d{{2}})?\]?(?: ?[-|:])?"
    # journald: Jun 30 13:53:19 host vllm[123]:
    rf"|[A-Z][a-z]{{2}} [ \d]\d {_TIME} [\w.\-]{{1,64}} [\w.@\-/]{{1,64}}(?:\[\d{{1,9}}\])?:"
    r"|(?:stdout|stderr) [FP] "
    r"|[a-z0-9][\w.\-]{0,60} {0,20}\| "
    r"|[|\u2502\u2503]\s{1,8}"
    r"|(?:>\s{0,2}){1,4}"
    rf"|(?:\[(?i:{_LEVEL.replace('level', 'bracketed')})\]:?|(?i:{_LEVEL.replace('level', 'word')}):(?= )"
    rf"|{_LEVEL.replace('level', 'bare')}(?= ))"
    r"\s{0,6}(?:\[[\w./\-]{1,80}:\d{1,6}\])?(?=\s|$)"
    r"|\[[\w./\-]{1,80}:\d{1,6}\]"
    r"|[a-z][\w.]{0,80} - (?=[A-Z]{4,8} - )"
    r"|- (?=[A-Z]{4,8} - )"
    r")\s{0,2}"
)
_GROUPS = ("level", "bracketed", "word", "bare", "named", "format", "klog")

# The level of a log line that is one JSON object.
_JSON_LEVEL = re.compile(
    r'"(?:level|levelname|log_?level|severity)": ?"(INFO|DEBUG|WARN(?:ING)?|TRACE)"', re.IGNORECASE
)

# vLLM warns of what it goes on with; a message that ends something although it is a warning says so in its signature.
_QUIET = frozenset({"INFO", "DEBUG", "TRACE", "WARNING", "WARN", "I"})

# NCCL tells of every network it does not find at this level.
_NCCL_INFORMATION = "NCCL INFO"

_ENTITIES = {"&quot;": '"', "&#39;": "'", "&#x27;": "'", "&lt;": "<", "&gt;": ">", "&amp;": "&"}
_TYPOGRAPHIC = str.maketrans({"’": "'", "‘": "'", "“": '"', "”": '"', "\u00a0": " ", "\u200b": ""})  # noqa: RUF001
_UNICODE_ESCAPES = {"\\u0027": "'", "\\u0022": '"', "\\u003c": "<", "\\u003e": ">", "\\u0026": "&", "\\u2019": "'"}


class CleanLine(Struct, frozen=True):
    """What a line says: `process` as vLLM names it ("" where the line does not tell), `quiet` for WARNING and below."""

    process: str
    quiet: bool
    text: str


def clean(raw: bytes, head: bytes = b"") -> CleanLine:
    """The line without prefixes and terminal escapes, JSON and HTML escapes undone.

    `head` is the beginning of the line where `raw` is from its middle: who wrote it, and how loudly, stands there.
    """
    if head:
        process, level, _ = _prefixes(_plain(head[:MAXIMUM_HEAD_BYTES]))
        start, text = 0, _plain(raw)
    else:
        text = _plain(raw)
        process, level, start = _prefixes(text)
    quiet = level in _QUIET or _NCCL_INFORMATION in text or _is_quiet_json(text)
    return CleanLine(process, quiet, unescape(text[start:]).strip())


def _plain(raw: bytes) -> str:
    return _ESCAPES.sub("", raw[:MAXIMUM_LINE_BYTES].decode("utf-8", "replace"))


def _is_quiet_json(text: str) -> bool:
    return text.startswith("{") and _JSON_LEVEL.search(text) is not None


def _prefixes(text: str) -> tuple[str, str, int]:
    """The process, the level and where the message begins."""
    process, level, start = "", "", 0
    for _ in range(MAXIMUM_PREFIXES):
        found = _PREFIXES.match(text, start)
        if found is None or found.end() == start:
            break
        process = found["process"] or process
        level = next((found[group] for group in _GROUPS if found[group]), level).upper()
        start = found.end()
    return process, level, start


def unescape(text: str) -> str:
    """The text with JSON escapes (also twice escaped), HTML entities and typographic quotes undone."""
    if "\\" in text:
        for escaped, plain in _UNICODE_ESCAPES.items():
            text = text.replace(escaped, plain)
        while "\\\\" in text:
            text = text.replace("\\\\", "\\")
        text = text.replace("\\n", " ").replace('\\"', '"').replace("\\'", "'").replace("\\/", "/").replace("\\t", " ")
    if "&" in text:
        for entity, plain in _ENTITIES.items():
            text = text.replace(entity, plain)
    return text if text.isascii() else text.translate(_TYPOGRAPHIC)


def rank_of(process: str) -> int:
    """Worker before engine core before API server: nearer to the root cause comes first."""
    name = process.lower()
    if "worker" in name:
        return 0
    if "engine" in name or name.startswith("core"):
        return 1
    return 2 if "api" in name else 1
