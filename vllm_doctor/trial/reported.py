"""What vLLM's log reports of memory, in the wordings of its releases.

SOURCE: vllm/worker/worker.py and worker/model_runner.py (0.6 to 0.8); v1/worker/gpu_worker.py, gpu_model_runner.py and
v1/core/kv_cache_utils.py (0.8 to 0.33); the logs of users' reports of those releases.
"""

import re
from collections.abc import Iterable

from msgspec import Struct

GIB = 2**30

# A line longer than this holds no figure of these.
MAXIMUM_CHARACTERS = 2000

_NUMBER = r"(\d{1,12}(?:\.\d{1,9})?)"
_COUNT = r"(\d{1,3}(?:,\d{3}){0,5}|\d{1,15})"

# Field -> the wordings, each with one number in GiB (old releases write GB and mean GiB).
_SIZES: tuple[tuple[str, re.Pattern[str]], ...] = tuple(
    (field, re.compile(pattern.replace("N", _NUMBER)))
    for field, pattern in (
        ("weights_bytes", r"[Ll]oading (?:model )?(?:weights )?took N Gi?B"),
        ("weights_bytes", r"model weights take N ?GiB"),
        ("weights_bytes", r"Actual usage is N GiB for weight"),
        ("consumed_bytes", r"Actual usage is N GiB for consumed memory"),
        ("activation_bytes", r"activation peak memory takes N ?GiB"),
        ("activation_bytes", r"N GiB for peak activation"),
        ("non_torch_bytes", r"non_torch_memory takes N ?GiB"),
        ("non_torch_bytes", r"N GiB for non-torch memory"),
        ("graphs_bytes", r"[Gg]raph capturing finished in \d{1,9} secs?, took N GiB"),
        ("graphs_bytes", r"N GiB for CUDAGraph memory"),
        ("kv_cache_bytes", r"Available KV cache memory: N GiB"),
        ("kv_cache_bytes", r"reserved for KV Cache is N ?GiB"),
    )
)
_TOKENS = re.compile(rf"KV cache size: {_COUNT} tokens")
_BLOCKS = re.compile(r"# (?:GPU|CUDA|cuda) blocks: (\d{1,12})")
_CONCURRENCY = re.compile(rf"Maximum concurrency for {_COUNT} tokens per request: {_NUMBER}x")

# Cheap words, one of which every such line holds.
_MARKS = ("GiB", "took", "KV cache size", "blocks:", "concurrency")

# Of several ranks the fullest counts: the most that is held, and the least that is left.
_LEAST = frozenset({"kv_cache_bytes", "tokens", "blocks", "max_concurrency"})


class Reported(Struct, frozen=True, kw_only=True):
    """What one start reported, per GPU, of the fullest rank; None for what it did not say.

    `consumed_bytes` are weights and what lies outside torch together (0.27 and later); `tokens` is the KV cache's size,
    `concurrent_tokens` the context that `max_concurrency` is for. From 0.20 on `activation_bytes` holds the estimate of
    the graphs as well.
    """

    weights_bytes: int | None = None
    consumed_bytes: int | None = None
    activation_bytes: int | None = None
    non_torch_bytes: int | None = None
    graphs_bytes: int | None = None
    kv_cache_bytes: int | None = None
    tokens: int | None = None
    blocks: int | None = None
    max_concurrency: float | None = None
    concurrent_tokens: int | None = None

    @property
    def anything(self) -> bool:
        """Whether the log said anything of memory."""
        return any(getattr(self, name) is not None for name in self.__struct_fields__)


def read(lines: Iterable[str]) -> Reported:
    """The figures of a log, line by line; one that makes no sense is left out."""
    found: dict[str, float] = {}
    for line in lines:
        if any(mark in line for mark in _MARKS):
            for name, value in _figures(line[:MAXIMUM_CHARACTERS]):
                _keep(found, name, value)
    whole = {name: value if name == "max_concurrency" else int(value) for name, value in found.items()}
    return Reported(**whole)  # type: ignore[arg-type]  # int or float as the fields are


def _figures(line: str) -> Iterable[tuple[str, float]]:
    for field, pattern in _SIZES:
        if (match := pattern.search(line)) is not None:
            yield field, round(float(match[1]) * GIB)
    if (match := _TOKENS.search(line)) is not None:
        yield "tokens", int(match[1].replace(",", ""))
    if (match := _BLOCKS.search(line)) is not None:
        yield "blocks", int(match[1])
    if (match := _CONCURRENCY.search(line)) is not None:
        yield "concurrent_tokens", int(match[1].replace(",", ""))
        yield "max_concurrency", float(match[2])


def _keep(found: dict[str, float], name: str, value: float) -> None:
    choose = min if name in _LEAST else max
    found[name] = choose(found[name], value) if name in found else value
