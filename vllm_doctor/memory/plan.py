"""The plan of one launch: what takes the memory, whether it fits, and what vLLM would say if not."""

from collections.abc import Sequence
from enum import Enum
from typing import NamedTuple

from msgspec.structs import replace

from vllm_doctor.facts import WeightFile
from vllm_doctor.facts.base import Facts
from vllm_doctor.memory import activation, cudagraph, overhead, parallelism
from vllm_doctor.memory.budget import Budget, budget
from vllm_doctor.memory.defaults import NEWEST, Defaults, resolve
from vllm_doctor.memory.eras import as_of
from vllm_doctor.memory.estimate import Estimate
from vllm_doctor.memory.facts import Architecture, Device, LaunchSettings, Release, Weights
from vllm_doctor.memory.families.pooling import without_words
from vllm_doctor.memory.kv_cache import KvLayout, kv_layout
from vllm_doctor.memory.measured import Measured, mended, shape_of
from vllm_doctor.memory.refusals import context_refusal
from vllm_doctor.memory.weights import weights as weigh

# The share of the weights by which a repacked or approximated checkpoint may differ (kernels' padding, Marlin).
_WEIGHTS_BAND, _APPROXIMATE_BAND = 0.005, 0.05

# A card fragments: below this room an allocation of the profile run or the capture may fail although the sum fits.
_FRAGMENTS_BYTES = 128 * 2**20


# vLLM's own estimate of the graphs, which is in the budget from 0.20 on, falls short of the capture by at most half.
_ESTIMATE_MISSES = 0.5


class Verdict(str, Enum):
    """What happens at the start; the causes have the ids of causes.md.

    Memory decides the first five but `fits`; by the others vLLM ends before it has taken any.
    """

    FITS = "fits"
    OOM_WEIGHTS = "oom-weights"
    OOM_KV = "oom-kv"
    OOM_ACTIVATION = "oom-activation"
    OOM_CUDAGRAPH = "oom-cudagraph"
    GPU_BUSY = "gpu-busy"
    GPU_COUNT = "gpu-count"
    TP_DIVISIBILITY = "tp-divisibility"
    MAX_LEN_OVER_MODEL = "max-len-over-model"
    BAD_FLAG = "bad-flag"
    MODEL_ARCH_UNSUPPORTED = "model-arch-unsupported"
    ARCH_UNSUPPORTED = "arch-unsupported"


# By these a launch ends before its memory counts: no size of a band makes them less certain.
REFUSED = frozenset(
    {
        Verdict.GPU_COUNT,
        Verdict.TP_DIVISIBILITY,
        Verdict.MAX_LEN_OVER_MODEL,
        Verdict.BAD_FLAG,
        Verdict.MODEL_ARCH_UNSUPPORTED,
        Verdict.ARCH_UNSUPPORTED,
    }
)


class Certainty(str, Enum):
    """Whether the verdict holds within the whole error band, or the launch is too close to call."""

    CERTAIN = "certain"
    CLOSE = "close"


class Extras(Facts, frozen=True):
    """What is at hand beside the config: the files, a speculative model's config, what a start measured."""

    weight_files: Sequence[WeightFile] = ()
    draft: Architecture | None = None
    measured: Measured | None = None


NO_EXTRAS = Extras()


class Outcome(NamedTuple):
    """What one size of the estimates leads to: the verdict, vLLM's words, and by how many bytes it holds or fails."""

    verdict: Verdict
    error: str | None
    margin_bytes: int


class Plan(Facts, frozen=True):
    """The plan; bytes are per GPU, of the fullest rank.

    `kv_cache` is what is left for the cache. `margin_bytes`: by how much the verdict holds (positive) or fails.
    `tokens` and `max_concurrency` are what vLLM would log; they and `blocks` are 0 where it does not come that far.
    `largest_max_model_len` is the longest that would start, `safe_max_model_len` the longest that starts for certain;
    `allowed_max_model_len` is what the model's config allows, where it names a limit.
    `exact`: no estimate moved a number of the KV cache. `measured` is the start that mended the estimates, if one did.
    """

    verdict: Verdict
    certainty: Certainty
    error: str | None
    margin_bytes: int
    device: Device
    budget: Budget
    defaults: Defaults
    weights: Weights
    activation: Estimate
    graphs: Estimate
    graphs_captured: Estimate
    other: Estimate
    kv_cache: Estimate
    bytes_per_token: float
    block_size: int
    blocks: int
    tokens: int
    max_concurrency: float
    needed_bytes: int
    max_model_len: int
    largest_max_model_len: int
    safe_max_model_len: int
    gpus_needed: int
    exact: bool
    allowed_max_model_len: int | None = None
    pessimistic: Verdict = Verdict.FITS
    approximations: tuple[str, ...] = ()
    measured: Measured | None = None

    @property
    def fits(self) -> bool:
        """Whether it starts for certain."""
        return self.verdict is Verdict.FITS and self.certainty is Certainty.CERTAIN

    @property
    def fails(self) -> bool:
        """Whether it will not start, for certain."""
        return self.verdict is not Verdict.FITS and self.certainty is Certainty.CERTAIN


def plan(
    architecture: Architecture,
    settings: LaunchSettings,
    device: Device,
    release: Release | None = None,
    extras: Extras = NO_EXTRAS,
) -> Plan:
    """Plan a launch of the model on `device.count` GPUs of that kind.

    Raises DoctorError where the config or a setting makes no sense. `release` None: the newest whose sources were read.
    """
    return _Planner(architecture, settings, device, release, extras).plan()


class _Planner:
    """One launch: the terms that do not depend on the scenario, then the three scenarios."""

    def __init__(
        self,
        architecture: Architecture,
        settings: LaunchSettings,
        device: Device,
        release: Release | None,
        extras: Extras,
    ) -> None:
        self.settings, self.device = settings, device
        self.release = release or NEWEST
        if settings.pooling and not architecture.is_pooling:
            architecture = without_words(architecture)
        self.architecture = architecture = as_of(architecture, self.release)
        self.defaults = resolve(architecture, settings, device, release)
        self.budget = budget(settings, self.defaults, device, release)
        self.shape = _shape(settings)
        self.draft = extras.draft
        self.weights = weigh(
            architecture, self.shape, self.release, extras.weight_files, extras.draft, device.capability
        )
        self.activation = activation.activation_peak(architecture, settings, self.defaults, release)
        self.warm_up = activation.sampler_peak(architecture, settings, self.defaults, release)
        self.graphs = cudagraph.budgeted(architecture, settings, self.defaults, release)
        self.captured = cudagraph.captured(architecture, self.defaults, release)
        self.other = overhead.non_torch(settings, device, release)
        self.others_bytes = overhead.counted_of_others(device, release)
        self.measured = extras.measured
        if self.measured is not None and self.measured.shape == shape_of(settings, self.defaults):
            terms = (self.activation, self.graphs, self.other)
            self.activation, self.graphs, self.other = mended(self.measured, terms)
        else:
            self.measured = None
        self.auto = settings.max_model_len == -1

    def plan(self) -> Plan:
        layout = self._layout()
        optimistic, typical, pessimistic = (self._outcome(layout, which) for which in ("low", "typical", "high"))
        certainty = _certainty(optimistic, typical, pessimistic)
        if self.weights.uncounted is not None and typical.verdict is Verdict.FITS:
            certainty = Certainty.CLOSE
        kv = Estimate(self._left("high"), self._left("typical"), self._left("low"))
        most = self._longest()
        loads = typical.verdict is not Verdict.OOM_WEIGHTS
        largest = layout.largest_max_model_len(kv.typical, most) if loads else 0
        length = min(self.defaults.max_model_len, largest) if self.auto and largest else self.defaults.max_model_len
        starts = typical.verdict is Verdict.FITS
        capacity = layout.capacity(max(0, kv.typical), length)
        return Plan(
            verdict=typical.verdict,
            certainty=certainty,
            error=typical.error or pessimistic.error,
            margin_bytes=pessimistic.margin_bytes if starts else optimistic.margin_bytes,
            device=self.device,
            budget=self.budget,
            defaults=self.defaults,
            weights=self.weights,
            activation=self.activation,
            graphs=self.graphs,
            graphs_captured=self.captured,
            other=self.other,
            kv_cache=kv,
            bytes_per_token=layout.bytes_per_token_per_gpu,
            block_size=layout.block_size,
            blocks=capacity.blocks if starts else 0,
            tokens=capacity.tokens if starts else 0,
            max_concurrency=capacity.max_concurrency if starts else 0.0,
            needed_bytes=capacity.needed_bytes,
            max_model_len=length,
            largest_max_model_len=largest,
            safe_max_model_len=layout.largest_max_model_len(kv.low, most) if loads else 0,
            gpus_needed=parallelism.gpus_needed(self.settings),
            allowed_max_model_len=self.architecture.longest_max_model_len,
            exact=self.settings.kv_cache_memory_bytes is not None and self.weights.exact,
            pessimistic=pessimistic.verdict,
            approximations=self.weights.approximations,
            measured=self.measured,
        )

    def _longest(self) -> int:
        """The longest context that is worth a look: the model's own, and one that was asked for within its limit."""
        asked, longest = self.defaults.max_model_len, self.architecture.longest_max_model_len
        if longest is not None and not self.settings.any_max_model_len:
            asked = min(asked, longest)
        return max(self.architecture.native_max_model_len or asked, asked)

    def _layout(self) -> KvLayout:
        defaults = self.defaults
        keeps_states = self.architecture.is_hybrid or self.architecture.is_attention_free
        length = defaults.max_model_len if keeps_states else 0
        tokens = defaults.max_num_batched_tokens
        return kv_layout(self.architecture, self.shape, self.release, self.device, tokens, length, self.draft)

    def _left(self, which: str) -> int:
        """What is left for the KV cache: the budget less everything that is held at the end of the profile run."""
        given = self.settings.kv_cache_memory_bytes
        if self.architecture.keeps_nothing:
            return 0
        if given is not None:
            return given
        taken = self._held(which) + _of(self.activation, which) + _of(self.graphs, which)
        return self.budget.requested_bytes - self.others_bytes - taken

    def _held(self, which: str) -> int:
        return self._weights(which) + _of(self.other, which)

    def _weights(self, which: str) -> int:
        size = self.weights.per_gpu_bytes
        band = _WEIGHTS_BAND if self.weights.exact else _APPROXIMATE_BAND
        return size + round({"low": -band, "typical": 0.0, "high": band}[which] * size)

    def _loading(self, which: str) -> int:
        """The most that the weights take while they are loaded."""
        least, most = self.weights.loading_bytes
        return most if which == "high" else least

    def _outcome(self, layout: KvLayout, which: str) -> Outcome:
        """The first refusal in the order of the start (vllm/v1/worker/gpu_worker.py, v1/core/kv_cache_utils.py)."""
        if (error := context_refusal(self.architecture, self.settings)) is not None:
            return Outcome(Verdict.MAX_LEN_OVER_MODEL, error, 0)
        if (error := parallelism.indivisible(self.architecture, self.settings, self.release)) is not None:
            return Outcome(Verdict.TP_DIVISIBILITY, error, 0)
        if (error := parallelism.too_few(self.settings, self.device)) is not None:
            return Outcome(Verdict.GPU_COUNT, error, 0)
        free = _of(self.budget.free, {"low": "high", "typical": "typical", "high": "low"}[which])
        if (error := self.budget.refusal(free)) is not None:
            return Outcome(Verdict.GPU_BUSY, error, free - self.budget.requested_bytes)
        room = free - self._weights(which)
        loading = free - self._loading(which)
        if min(room, loading) < 0:
            return Outcome(Verdict.OOM_WEIGHTS, self._weights_error(), min(room, loading))
        room -= _of(self.activation, which) + _of(self.other, which)
        if room < 0:
            return Outcome(Verdict.OOM_ACTIVATION, _OUT_OF_MEMORY + " (in the profile run)", room)
        return self._cache_outcome(layout, which, free)

    def _cache_outcome(self, layout: KvLayout, which: str, free: int) -> Outcome:
        if self.architecture.keeps_nothing:
            return self._without_cache(which, free)
        left = self._left(which)
        length = 1 if self.auto else self.defaults.max_model_len
        if (error := layout.error(left, length)) is not None:
            if self.auto:
                error = "Cannot auto-fit max_model_len: not enough GPU memory available to serve even a single token."
            return Outcome(Verdict.OOM_KV, error, left - layout.needed_bytes(length))
        states = layout.largest_max_num_seqs(left)
        spare = left - layout.needed_bytes(length)
        rest = self._rest(which, free)
        if rest < 0:
            return Outcome(Verdict.OOM_CUDAGRAPH, _OUT_OF_MEMORY + " (while capturing CUDA graphs)", rest)
        if states is not None and states < 1:
            return Outcome(Verdict.OOM_KV, error, spare)
        return Outcome(Verdict.FITS, None, min(spare, rest) if self.defaults.graph_sizes else spare)

    def _without_cache(self, which: str, free: int) -> Outcome:
        """Nothing is profiled and no cache allocated (0.32 v1/engine/core.py _initialize_kv_caches)."""
        rest = free - self._held(which) - _of(self.activation, which) - _of(self.captured, which)
        if rest < 0:
            return Outcome(Verdict.OOM_CUDAGRAPH, _OUT_OF_MEMORY + " (while capturing CUDA graphs)", rest)
        return Outcome(Verdict.FITS, None, rest)

    def _rest(self, which: str, free: int) -> int:
        """What is left for the graphs when the cache is allocated.

        The activations' room is free again by then, but the sampler's warm-up after the capture wants its part of it.
        """
        captured = _of(self.captured, which)
        if which != "high":
            return free - self._held(which) - max(0, self._left(which)) - captured
        given = self.settings.kv_cache_memory_bytes
        if given is not None:
            return free - self._held(which) - given - captured - self.warm_up.high - _FRAGMENTS_BYTES
        # What the profile run counted is there again; 0.8 did not count all of the sampler.
        uncounted = max(0, self.warm_up.low - self.activation.low)
        if self.defaults.graphs_in_budget:
            captured = int(self.captured.typical * _ESTIMATE_MISSES)
        return free - self.budget.requested_bytes - captured - uncounted - (_FRAGMENTS_BYTES if captured else 0)

    def _weights_error(self) -> str:
        if self.release < (0, 14, 0):
            return _OUT_OF_MEMORY
        return (
            "Failed to load model - not enough GPU memory. Try lowering --gpu-memory-utilization to free memory for "
            "weights, increasing --tensor-parallel-size, or using --quantization."
        )


_OUT_OF_MEMORY = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate ..."


def _shape(settings: LaunchSettings) -> LaunchSettings:
    """The settings that weights and layout depend on, so that plans of one model that differ in the rest share them."""
    return replace(
        settings,
        gpu_memory_utilization=None,
        kv_cache_memory_bytes=None,
        max_model_len=None,
        any_max_model_len=False,
        max_num_seqs=None,
        max_num_batched_tokens=None,
        enforce_eager=False,
        cudagraph_sizes=None,
    )


def _of(estimate: Estimate, which: str) -> int:
    size = getattr(estimate, which)
    assert isinstance(size, int)
    return size


def _certainty(optimistic: Outcome, typical: Outcome, pessimistic: Outcome) -> Certainty:
    """Certain where both ends of the band agree on whether it starts."""
    starts = {o.verdict is Verdict.FITS for o in (optimistic, typical, pessimistic)}
    return Certainty.CERTAIN if len(starts) == 1 else Certainty.CLOSE
