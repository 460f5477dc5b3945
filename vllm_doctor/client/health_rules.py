"""What the figures of a live server mean: pure rules over one sample or two, each with the knob and its value."""

from collections.abc import Callable, Iterator

from msgspec import Struct

from vllm_doctor.client.metrics import Sample, increase, percentile, rate
from vllm_doctor.finding import Finding, Fix, LaunchEdit, error, info, warning

# From this share on the next request finds no blocks and waits, or pushes another out.
KV_FULL = 0.95

# Requests of which some were preempted or aborted are worth a word from this share on, and with this many requests.
NOTABLE_SHARE = 0.05
FEWEST_REQUESTS = 20

# A first token that takes longer than this at the 95th percentile is waiting, not computing.
SLOW_FIRST_TOKEN_SECONDS = 10.0

# Two samples further apart than this tell a stall from a long step (a prefill step of a large model takes under 10 s).
STALL_SECONDS = 10.0


class Absent(Exception):
    """A metric that the rule needs is not there."""


class Window(Struct, frozen=True):
    """One sample, or two of them with the time between; `first` None: figures since the server's start."""

    last: Sample
    first: Sample | None = None

    def gauge(self, *names: str) -> float:
        """The gauge now, the largest over engines; raises Absent."""
        return _there(self.last.largest(*names), names[0])

    def count(self, *names: str, **labels: str) -> float:
        """The counter's increase in the window, or since the start; raises Absent.

        Of a counter that is there, a row with other labels appears when it is first counted: until then it is 0.
        """
        _there(self.last.total(*names), names[0])
        new = self.last.total(*names, **labels) or 0.0
        old = self.first.total(*names, **labels) if self.first is not None else 0.0
        return new - old if old is not None and old <= new else new

    @property
    def seconds(self) -> float:
        """The length of the window; 0 for a single sample."""
        return 0.0 if self.first is None else self.last.at - self.first.at

    @property
    def span(self) -> str:
        """In words."""
        return f"in {self.seconds:.0f} s" if self.first is not None else "since the server's start"

    def percentile(self, name: str, share: float) -> float | None:
        """Of a histogram in the window; raises Absent where there is no such histogram."""
        if not self.last.histogram(name):
            raise Absent(name)
        return percentile(increase(self.first, self.last, name), share)


def _there(value: float | None, name: str) -> float:
    if value is None:
        raise Absent(name)
    return value


KV_USAGE = ("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc")
RUNNING, WAITING = "vllm:num_requests_running", "vllm:num_requests_waiting"

# What the rules read, without the endings that prometheus_client appends; a sample that holds these is judged alike.
METRICS = frozenset(
    {
        *KV_USAGE,
        RUNNING,
        WAITING,
        "vllm:cache_config_info",
        "vllm:generation_tokens",
        "vllm:num_preemptions",
        "vllm:prompt_tokens",
        "vllm:request_queue_time_seconds",
        "vllm:request_success",
        "vllm:time_to_first_token_seconds",
    }
)


def kv_pressure(window: Window) -> Iterator[Finding]:
    """The KV cache is full while requests wait."""
    usage, waiting, running = window.gauge(*KV_USAGE), window.gauge(WAITING), window.gauge(RUNNING)
    if usage < KV_FULL or waiting < 1:
        return
    evidence = (f"{KV_USAGE[0]} {usage:.2f}", f"{RUNNING} {running:.0f}, {WAITING} {waiting:.0f}", *_cache(window))
    yield warning(
        "oom-kv", "The KV cache is full, and requests wait for it", evidence=evidence, fixes=_more_cache(window)
    )


def preemptions(window: Window) -> Iterator[Finding]:
    """Requests are pushed out of the KV cache and computed again."""
    pushed = window.count("vllm:num_preemptions")
    finished = window.count("vllm:request_success")
    if window.first is None and pushed < max(NOTABLE_SHARE * finished, 1):
        return
    if pushed < 1:
        return
    evidence = (
        f"vllm:num_preemptions grew by {pushed:.0f} {window.span}",
        f"{finished:.0f} requests ended",
        *_cache(window),
    )
    fixes = (_fewer_at_once(window), *_more_cache(window))
    title = "Requests are preempted: the KV cache is too small for as many at once"
    yield warning("oom-kv", title, evidence=evidence, fixes=fixes)


def queue(window: Window) -> Iterator[Finding]:
    """Requests wait although the KV cache has room: the limit of sequences is reached."""
    usage, waiting, running = window.gauge(*KV_USAGE), window.gauge(WAITING), window.gauge(RUNNING)
    before = window.first.largest(WAITING) if window.first is not None else waiting
    if waiting < 1 or not before or waiting < running or usage >= KV_FULL:
        return
    evidence = (f"{WAITING} {waiting:.0f}, {RUNNING} {running:.0f}", f"{KV_USAGE[0]} {usage:.2f}")
    fixes = [Fix(title="Run more replicas (--data-parallel-size, or a second server behind a load balancer)")]
    if usage < 0.5 and running >= 1:
        # As many as wait, and no more than the KV cache would hold of the size of those that run.
        room = min(running + waiting, running * KV_FULL / max(usage, 0.01))
        edit = LaunchEdit(set={"--max-num-seqs": str(int(room))})
        fixes.insert(0, Fix(title="Let more sequences run at once: the KV cache has room", launch=edit))
    title = f"{waiting:.0f} requests wait, more than the {running:.0f} that run"
    yield warning("connection-timeout", title, evidence=evidence, fixes=tuple(fixes))


def first_token(window: Window) -> Iterator[Finding]:
    """The first token comes late: requests queue, or prefills stand in each other's way."""
    late = window.percentile("vllm:time_to_first_token_seconds", 0.95)
    if late is None or late < SLOW_FIRST_TOKEN_SECONDS:
        return
    queued = window.percentile("vllm:request_queue_time_seconds", 0.95)
    evidence = [f"time to the first token, 95th percentile {window.span}: {late:.1f} s"]
    if queued is not None:
        evidence.append(f"of it in the queue, 95th percentile: {queued:.1f} s")
    if queued is not None and queued > late / 2:
        fix = Fix(title="The queue is the cause: more replicas, or a larger --max-num-seqs if the KV cache has room")
    else:
        edit = LaunchEdit(set={"--max-num-batched-tokens": "8192"})
        fix = Fix(title="Prefill is the cause: more tokens a step, or shorter prompts", launch=edit)
    title = f"Every twentieth request waits {late:.0f} s and more for its first token"
    yield warning("connection-timeout", title, evidence=tuple(evidence), fixes=(fix,))


def aborted(window: Window) -> Iterator[Finding]:
    """Clients hang up before the answer is there."""
    finished = window.count("vllm:request_success")
    gone = window.count("vllm:request_success", finished_reason="abort")
    if finished < FEWEST_REQUESTS or gone < NOTABLE_SHARE * finished:
        return
    evidence = (f"{gone:.0f} of {finished:.0f} requests ended as abort {window.span}",)
    fixes = (
        Fix(title="Raise the time limits of clients and proxies, or stream the answers"),
        Fix(title="See the latencies above: clients hang up on what is too slow"),
    )
    title = f"{100 * gone / finished:.0f} % of the requests are aborted: clients or proxies hang up"
    yield warning("connection-timeout", title, evidence=evidence, fixes=fixes)


def failing(window: Window) -> Iterator[Finding]:
    """Requests end in an error inside the engine."""
    broken = window.count("vllm:request_success", finished_reason="error")
    if broken < 1:
        return
    evidence = (f"{broken:.0f} requests ended as error {window.span}",)
    fix = Fix(title="Read the server's log from its first error on (`vllm-doctor explain LOG`)")
    yield warning("engine-dead", "Requests end in an error inside the engine", evidence=evidence, fixes=(fix,))


def prefix_cache(window: Window) -> Iterator[Finding]:
    """Prefix caching is off, and prompts are long."""
    enabled = window.last.labels("vllm:cache_config_info").get("enable_prefix_caching")
    if enabled is None:
        raise Absent("vllm:cache_config_info")
    tokens = window.count("vllm:prompt_tokens")
    if enabled != "False" or tokens < 1e6:
        return
    edit = LaunchEdit(set={"--enable-prefix-caching": None}, unset=("--no-enable-prefix-caching",))
    evidence = ("vllm:cache_config_info: enable_prefix_caching False", f"{tokens:.0f} prompt tokens {window.span}")
    fix = Fix(title="Switch prefix caching on: system prompts and earlier turns are then computed once", launch=edit)
    yield info("connection-timeout", "Prefix caching is off", evidence=evidence, fixes=(fix,))


def stalled(window: Window) -> Iterator[Finding]:
    """Requests run and no token comes: the engine hangs."""
    if window.first is None:
        raise Absent("a second sample (--watch SECONDS)")
    running = min(_there(s.largest(RUNNING), RUNNING) for s in (window.first, window.last))
    made = rate(window.first, window.last, "vllm:generation_tokens")
    read = rate(window.first, window.last, "vllm:prompt_tokens")
    if made is None or read is None:
        raise Absent("vllm:generation_tokens")
    if window.seconds < STALL_SECONDS or running < 1 or made > 0 or read > 0:
        return
    evidence = (
        f"{RUNNING} {running:.0f} at both ends of {window.seconds:.0f} s",
        "no prompt or answer token in between",
    )
    fix = Fix(title="Look at the engine's processes and GPUs (nvidia-smi, py-spy dump), then start the server anew")
    yield error("engine-hang", "Requests run and no token comes", evidence=evidence, fixes=(fix,))


def _cache(window: Window) -> tuple[str, ...]:
    config = window.last.labels("vllm:cache_config_info")
    names = ("num_gpu_blocks", "block_size", "gpu_memory_utilization", "cache_dtype")
    seen = [f"{name} {config[name]}" for name in names if config.get(name, "None") != "None"]
    return (f"cache: {', '.join(seen)}",) if seen else ()


def _fewer_at_once(window: Window) -> Fix:
    running = window.last.largest(RUNNING)
    if running is None or running < 2:
        return Fix(title="Let fewer sequences run at once: a smaller --max-num-seqs")
    edit = LaunchEdit(set={"--max-num-seqs": str(max(1, int(running * 0.8)))})
    return Fix(title="Let fewer sequences run at once, so that none is pushed out", launch=edit)


def _more_cache(window: Window) -> tuple[Fix, ...]:
    config = window.last.labels("vllm:cache_config_info")
    fixes = []
    blocks, fixed = (config.get(name, "None") for name in ("num_gpu_blocks_override", "kv_cache_memory_bytes"))
    share = _share(config.get("gpu_memory_utilization"))
    if blocks != "None":
        edit = LaunchEdit(unset=("--num-gpu-blocks-override",))
        fixes.append(Fix(title=f"Drop --num-gpu-blocks-override {blocks}: it alone limits the KV cache", launch=edit))
    elif fixed != "None":
        # vllm/config/cache.py: it overrides gpu_memory_utilization; on a CPU it is VLLM_CPU_KVCACHE_SPACE in bytes.
        fixes.append(
            Fix(title="Raise --kv-cache-memory-bytes (on a CPU: VLLM_CPU_KVCACHE_SPACE), which fixes its size")
        )
    elif share is not None and share < 0.93:
        edit = LaunchEdit(set={"--gpu-memory-utilization": f"{min(0.95, share + 0.03):.2f}"})
        fixes.append(Fix(title="Give vLLM more of the GPU's memory, if nothing else needs it", launch=edit))
    if config.get("cache_dtype") in ("auto", "bfloat16", "float16"):
        edit = LaunchEdit(set={"--kv-cache-dtype": "fp8"})
        fixes.append(
            Fix(
                title="Store the KV cache in 8 bits (GPUs from compute capability 8.9 on): twice the tokens",
                launch=edit,
            )
        )
    fixes.append(Fix(title="A smaller --max-model-len, more GPUs (--tensor-parallel-size), or more replicas"))
    return tuple(fixes)


def _share(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if 0 < value <= 1 else None


RULES: tuple[tuple[str, Callable[[Window], Iterator[Finding]]], ...] = (
    ("engine-stalled", stalled),
    ("kv-cache-pressure", kv_pressure),
    ("preemptions", preemptions),
    ("queue", queue),
    ("first-token", first_token),
    ("aborted-requests", aborted),
    ("failing-requests", failing),
    ("prefix-cache", prefix_cache),
)


def judge(window: Window) -> tuple[tuple[Finding, ...], dict[str, str]]:
    """The findings of every rule, and the rules that could not be evaluated with the metric that is absent."""
    found: list[Finding] = []
    absent: dict[str, str] = {}
    for name, rule in RULES:
        try:
            found += rule(window)
        except Absent as metric:  # noqa: PERF203 - one rule's lack must not silence the others
            absent[name] = str(metric)
    return tuple(found), absent
