"""What the cache of a plan holds: in words, and how many requests at once by their length."""

from typing import NamedTuple

from msgspec.structs import replace

from vllm_doctor.memory.defaults import NEWEST
from vllm_doctor.memory.estimate import gib
from vllm_doctor.memory.facts import Architecture, LaunchSettings, Release
from vllm_doctor.memory.kv_cache import kv_layout
from vllm_doctor.memory.kv_cache.specs import takes_fp8_cache
from vllm_doctor.memory.plan import Plan, Verdict

_LENGTHS = (2048, 4096, 8192, 16384, 32768, 65536, 131072, 262144, 524288, 1048576, 4194304, 10485760)
_ROWS = 8

# FP8 caches run from this compute capability on (Triton, FlashInfer).
_FP8_CAPABILITY = 80


class Row(NamedTuple):
    """Requests of that length: how many at once under each heading, None where not one fits; `asked` for."""

    length: int
    asked: bool
    times: tuple[float | None, ...]


class Capacities(NamedTuple):
    """A table: its headings, and a row for each length."""

    headings: tuple[str, ...]
    rows: tuple[Row, ...]


def sentence(plan: Plan) -> str:
    """The size of the cache as vLLM would log it, and the longest context."""
    length = f"max_model_len {plan.max_model_len:,}"
    if not plan.bytes_per_token and plan.kv_cache.typical == 0:
        return f"No KV cache: its layers keep nothing from one step to the next ({length})."
    if plan.tokens:
        held = f"KV cache: {plan.tokens:,} tokens, {plan.max_concurrency:.2f} requests of {length} at once"
    else:
        held = f"KV cache: one request of {length} needs {gib(plan.needed_bytes)} a GPU"
    each = f"{plan.bytes_per_token / 1024:.0f} KiB a token and GPU" if plan.bytes_per_token else "none kept per token"
    return f"{held}; {_longest(plan)} ({each})."


def _longest(plan: Plan) -> str:
    if plan.largest_max_model_len:
        return f"longest context that starts: {plan.largest_max_model_len:,} tokens"
    return "no context is short enough to start"


def capacities(
    plan: Plan,
    architecture: Architecture,
    settings: LaunchSettings,
    release: Release | None,
    draft: Architecture | None = None,
) -> Capacities:
    """How many requests fit at once, by their length: with this cache, and with an FP8 one; no row without a cache."""
    kinds = [("as launched", settings)]
    if plan.kv_cache.typical <= 0 or plan.verdict is Verdict.OOM_WEIGHTS:
        return Capacities((), ())
    newer = (plan.device.capability or 0) >= _FP8_CAPABILITY
    attends = not architecture.is_attention_free and takes_fp8_cache(architecture)
    if settings.kv_cache_dtype == "auto" and attends and newer:
        kinds.append(("FP8 KV cache", replace(settings, kv_cache_dtype="fp8")))
    rows = []
    for length in _lengths(plan, architecture):
        times = tuple(_times(plan, length, one, architecture, release, draft) for _, one in kinds)
        rows.append(Row(length, length == plan.max_model_len, times))
    if all(len(set(row.times)) == 1 for row in rows):
        # A cache that is stored in 8 bits in any case.
        kinds, rows = kinds[:1], [row._replace(times=row.times[:1]) for row in rows]
    return Capacities(tuple(name for name, _ in kinds), tuple(rows))


def times_in_words(number: float | None) -> str:
    """`2.4 at once`."""
    if number is None:
        return "does not fit"
    return f"{number:,.0f} at once" if number >= 10 else f"{number:.1f} at once"


def _lengths(plan: Plan, architecture: Architecture) -> tuple[int, ...]:
    asked = plan.max_model_len
    if plan.verdict is Verdict.MAX_LEN_OVER_MODEL and plan.allowed_max_model_len is not None:
        asked = plan.allowed_max_model_len
    most = max(architecture.native_max_model_len or 0, asked)
    return tuple(sorted({length for length in _LENGTHS if length <= most} | {asked})[-_ROWS:])


def _times(
    plan: Plan,
    length: int,
    settings: LaunchSettings,
    architecture: Architecture,
    release: Release | None,
    draft: Architecture | None,
) -> float | None:
    tokens = plan.defaults.max_num_batched_tokens
    layout = kv_layout(architecture, settings, release or NEWEST, plan.device, tokens, length, draft)
    if not layout.fits(plan.kv_cache.typical, length):
        return None
    return layout.capacity(plan.kv_cache.typical, length).max_concurrency
