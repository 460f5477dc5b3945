"""The check of flags that exclude or need each other."""

import json
from collections.abc import Callable, Iterator

from msgspec import Struct

from vllm_doctor.check import check
from vllm_doctor.facts import FlagUse, Launch
from vllm_doctor.finding import Confidence, Finding, Fix, LaunchEdit, error, warning
from vllm_doctor.releases import Release
from vllm_doctor.snapshot import Snapshot
from vllm_doctor_checks.launching import numbers, parser_of_family, planned_release, switched


class Rule(Struct, frozen=True, kw_only=True):
    """A conflict: what is wrong, which flags show it, and the way out.

    `certain_from` is the first release whose source was read to raise for it; in earlier ones it is likely.
    """

    applies: Callable[[Launch], bool]
    title: str
    flags: tuple[str, ...]
    why: str
    fixes: tuple[Fix, ...]
    certain_from: tuple[int, int] = (0, 32)


def _parser_fix(launch: Launch, release: Release) -> tuple[Fix, ...]:
    """The parser of the model's family, where the model's name tells it."""
    if (known := parser_of_family(launch, release)) is None:
        return ()
    edit = LaunchEdit(set={"--tool-call-parser": known[1]})
    return (Fix(title=f"Add --tool-call-parser {known[1]}, which {known[0]} takes", launch=edit, automatic=True),)


def _below(first: str, second: str) -> Callable[[Launch], bool]:
    """Whether both numbers are given and the first is smaller."""

    def applies(launch: Launch) -> bool:
        one, other = launch.number(first), launch.number(second)
        return one is not None and other is not None and one < other

    return applies


def _not_below(first: str, second: str) -> Callable[[Launch], bool]:
    """Whether both numbers are given and the first is not smaller."""
    return lambda n: n.number(first) is not None and n.number(second) is not None and not _below(first, second)(n)


def _on(launch: Launch, name: str) -> bool:
    return switched(launch, name) is True


def _drop(title: str, *names: str) -> Fix:
    return Fix(title=title, launch=LaunchEdit(unset=names), automatic=True)


def _add(title: str, automatic: bool = True, **flags: str | None) -> Fix:
    edit = LaunchEdit(set={f"--{name.replace('_', '-')}": value for name, value in flags.items()})
    return Fix(title=title, launch=edit, automatic=automatic)


def _chunked_off(launch: Launch) -> bool:
    return switched(launch, "enable-chunked-prefill") is False


def _data_parallel_modes(launch: Launch) -> int:
    external = _on(launch, "data-parallel-external-lb") or launch.has("--data-parallel-rank")
    hybrid = _on(launch, "data-parallel-hybrid-lb") or launch.has("--data-parallel-start-rank")
    return external + hybrid + launch.has("--data-parallel-multi-port-external-lb")


def _undivided_context(launch: Launch) -> bool:
    contexts = launch.number("--decode-context-parallel-size") or 1
    tensor = launch.number("--tensor-parallel-size") or 1
    return not launch.has("--prefill-context-parallel-size") and tensor % contexts != 0


def _configured(launch: Launch, flag: str, key: str) -> object:
    """The value of one key of a JSON flag, as `--flag.key value` or inside of the JSON; None where it is not given."""
    if (dotted := launch.value(f"{flag}.{key}")) is not None:
        return dotted
    try:
        document = json.loads((launch.value(flag) or "null")[:100_000])
    except (ValueError, RecursionError):
        return None
    return document.get(key) if isinstance(document, dict) else None


# SOURCE: vllm/entrypoints/launchers/cli_args.py (`validate_parsed_serve_args`, `validate_grpc_port_arg`), cli/serve.py,
# vllm/config/scheduler.py (`verify_max_model_len`), lora.py, parallel.py, vllm/engine/arg_utils.py, all of 0.32.0.
# The tool and scheduler rules have stood since 0.6: vllm/entrypoints/openai/cli_args.py and vllm/config.py there.
RULES = (
    Rule(
        applies=lambda n: _on(n, "enable-auto-tool-choice") and not n.has("--tool-call-parser"),
        title="--enable-auto-tool-choice needs --tool-call-parser",
        flags=("--enable-auto-tool-choice",),
        why="vLLM ends with `--enable-auto-tool-choice requires --tool-call-parser`",
        fixes=(
            Fix(title="Add --tool-call-parser with the parser of this model's family (for Qwen2.5: hermes)"),
            _drop("Or drop --enable-auto-tool-choice, if no client sends tools", "--enable-auto-tool-choice"),
        ),
        certain_from=(0, 6),
    ),
    Rule(
        applies=lambda n: _chunked_off(n) and _below("--max-num-batched-tokens", "--max-model-len")(n),
        title="Without chunked prefill --max-num-batched-tokens must be at least --max-model-len",
        flags=(
            "--max-num-batched-tokens",
            "--max-model-len",
            "--no-enable-chunked-prefill",
            "--enable-chunked-prefill",
        ),
        why="a prompt of max_model_len tokens would never fit into one step, and vLLM refuses to start",
        fixes=(_drop("Leave chunked prefill on", "--no-enable-chunked-prefill", "--enable-chunked-prefill"),),
        certain_from=(0, 4),
    ),
    Rule(
        applies=_below("--max-num-batched-tokens", "--max-num-seqs"),
        title="--max-num-batched-tokens must be at least --max-num-seqs",
        flags=("--max-num-batched-tokens", "--max-num-seqs"),
        why="each running sequence takes at least one token per step",
        fixes=(_drop("Leave --max-num-batched-tokens to vLLM", "--max-num-batched-tokens"),),
        certain_from=(0, 4),
    ),
    Rule(
        applies=_below("--max-num-seqs", "--max-num-active-seqs"),
        title="--max-num-active-seqs must not be over --max-num-seqs",
        flags=("--max-num-active-seqs", "--max-num-seqs"),
        why="vLLM refuses the scheduler configuration",
        fixes=(_drop("Leave --max-num-active-seqs out", "--max-num-active-seqs"),),
    ),
    Rule(
        applies=_below("--max-model-len", "--long-prefill-token-threshold"),
        title="--long-prefill-token-threshold must not be over --max-model-len",
        flags=("--long-prefill-token-threshold", "--max-model-len"),
        why="vLLM refuses the scheduler configuration",
        fixes=(_drop("Leave --long-prefill-token-threshold out", "--long-prefill-token-threshold"),),
        certain_from=(0, 9),
    ),
    Rule(
        applies=lambda n: _on(n, "enable-lora") and _below("--max-cpu-loras", "--max-loras")(n),
        title="--max-cpu-loras must be at least --max-loras",
        flags=("--max-cpu-loras", "--max-loras"),
        why="vLLM refuses the LoRA configuration",
        fixes=(_drop("Leave --max-cpu-loras out: it is then as --max-loras", "--max-cpu-loras"),),
        certain_from=(0, 4),
    ),
    Rule(
        applies=_below("--data-parallel-size", "--data-parallel-size-local"),
        title="--data-parallel-size-local must not be over --data-parallel-size",
        flags=("--data-parallel-size-local", "--data-parallel-size"),
        why="vLLM refuses the parallel configuration",
        fixes=(_drop("Leave --data-parallel-size-local out", "--data-parallel-size-local"),),
    ),
    Rule(
        applies=lambda n: _data_parallel_modes(n) > 1,
        title="More than one way of data parallel load balancing is asked for",
        flags=(
            "--data-parallel-external-lb",
            "--data-parallel-hybrid-lb",
            "--data-parallel-multi-port-external-lb",
            "--data-parallel-rank",
            "--data-parallel-start-rank",
        ),
        why="vLLM takes one of external, hybrid and multi-port external",
        fixes=(Fix(title="Keep one of the flags named"),),
    ),
    Rule(
        applies=lambda n: (
            _on(n, "data-parallel-external-lb") and not n.has("--data-parallel-rank") and not n.has("--nnodes")
        ),
        title="--data-parallel-external-lb needs --data-parallel-rank",
        flags=("--data-parallel-external-lb",),
        why="each server must know which rank it is",
        fixes=(Fix(title="Add --data-parallel-rank with this server's rank, counted from 0"),),
    ),
    Rule(
        applies=lambda n: _on(n, "data-parallel-hybrid-lb") and not n.has("--data-parallel-size-local"),
        title="--data-parallel-hybrid-lb needs --data-parallel-size-local",
        flags=("--data-parallel-hybrid-lb",),
        why="vLLM must know how many of the ranks are on this node",
        fixes=(Fix(title="Add --data-parallel-size-local with the number of ranks on this node"),),
    ),
    Rule(
        applies=lambda n: (n.number("--node-rank") or 0) >= max(1, n.number("--nnodes") or 1),
        title="--node-rank must be below --nnodes: ranks are counted from 0",
        flags=("--node-rank", "--nnodes"),
        why="vLLM refuses the launch options",
        fixes=(Fix(title="Give the node's rank, from 0 to the number of nodes less one"),),
    ),
    Rule(
        applies=_not_below("--data-parallel-rank", "--data-parallel-size"),
        title="--data-parallel-rank must be below --data-parallel-size: ranks are counted from 0",
        flags=("--data-parallel-rank", "--data-parallel-size"),
        why="vLLM refuses the parallel configuration",
        fixes=(Fix(title="Give the rank, from 0 to --data-parallel-size less one"),),
        certain_from=(0, 9),
    ),
    Rule(
        applies=_undivided_context,
        title="--tensor-parallel-size must be divisible by --decode-context-parallel-size",
        flags=("--decode-context-parallel-size", "--tensor-parallel-size"),
        why="decode context parallelism reuses the ranks of tensor parallelism",
        fixes=(_drop("Leave --decode-context-parallel-size out", "--decode-context-parallel-size"),),
    ),
    Rule(
        applies=lambda n: _on(n, "enable-log-outputs") and not _on(n, "enable-log-requests"),
        title="--enable-log-outputs needs --enable-log-requests",
        flags=("--enable-log-outputs",),
        why="vLLM ends with `--enable-log-outputs requires --enable-log-requests`",
        fixes=(_add("Add --enable-log-requests", enable_log_requests=None),),
        certain_from=(0, 11),
    ),
    Rule(
        applies=lambda n: _on(n, "enable-per-request-metrics") and n.has("--disable-log-stats"),
        title="--enable-per-request-metrics excludes --disable-log-stats",
        flags=("--enable-per-request-metrics", "--disable-log-stats"),
        why="the metrics come from the statistics that are switched off",
        fixes=(_drop("Drop --disable-log-stats", "--disable-log-stats"),),
    ),
    Rule(
        applies=lambda n: n.has("--grpc") and n.has("--grpc-port"),
        title="--grpc excludes --grpc-port",
        flags=("--grpc", "--grpc-port"),
        why="--grpc serves on --port, --grpc-port belongs to the other front end",
        fixes=(_drop("Drop --grpc-port", "--grpc-port"),),
    ),
    Rule(
        applies=lambda n: _on(n, "enable-eplb") and not _on(n, "enable-expert-parallel"),
        title="--enable-eplb needs --enable-expert-parallel",
        flags=("--enable-eplb",),
        why="expert load balancing works on experts that are spread over GPUs",
        fixes=(_add("Add --enable-expert-parallel", enable_expert_parallel=None),),
        certain_from=(0, 9),
    ),
    Rule(
        applies=lambda n: n.has("--headless") and (n.number("--api-server-count") or 0) > 0,
        title="--headless excludes --api-server-count",
        flags=("--headless", "--api-server-count"),
        why="a headless node starts no API server",
        fixes=(_drop("Drop --api-server-count", "--api-server-count"),),
        certain_from=(0, 10),
    ),
    Rule(
        applies=lambda n: (n.has("--numa-bind-nodes") or n.has("--numa-bind-cpus")) and not _on(n, "numa-bind"),
        title="--numa-bind-nodes and --numa-bind-cpus need --numa-bind",
        flags=("--numa-bind-nodes", "--numa-bind-cpus"),
        why="vLLM refuses the parallel configuration",
        fixes=(_add("Add --numa-bind", numa_bind=None),),
    ),
    Rule(
        applies=lambda n: n.has("--attention-backend") and _configured(n, "--attention-config", "backend") is not None,
        title="--attention-backend excludes --attention-config.backend",
        flags=("--attention-backend", "--attention-config", "--attention-config.backend"),
        why="`attention_backend and attention_config.backend are mutually exclusive`",
        fixes=(_drop("Keep the one in --attention-config", "--attention-backend"),),
        certain_from=(0, 13),
    ),
    Rule(
        applies=lambda n: (
            n.has("--cudagraph-capture-sizes")
            and _configured(n, "--compilation-config", "cudagraph_capture_sizes") is not None
        ),
        title="--cudagraph-capture-sizes is given twice, as a flag and in --compilation-config",
        flags=(
            "--cudagraph-capture-sizes",
            "--compilation-config",
            "--compilation-config.cudagraph_capture_sizes",
        ),
        why="vLLM calls the two mutually exclusive",
        fixes=(_drop("Keep those in --compilation-config", "--cudagraph-capture-sizes"),),
        certain_from=(0, 12),
    ),
    Rule(
        applies=lambda n: (
            _on(n, "async-scheduling")
            and _configured(n, "--speculative-config", "method") in ("ngram", "suffix", "medusa", "mlp_speculator")
        ),
        title="--async-scheduling does not go with this kind of speculative decoding",
        flags=("--async-scheduling", "--speculative-config", "--speculative-config.method"),
        why="`async scheduling is only supported with EAGLE/MTP/Draft Model/NGram GPU/DSpark/DFlash`",
        fixes=(_drop("Drop --async-scheduling", "--async-scheduling"),),
    ),
    Rule(
        applies=lambda n: n.value("--runner") == "generate" and n.value("--convert") in ("embed", "classify"),
        title="--convert makes a pooling model, and --runner generate asks for a generating one",
        flags=("--runner", "--convert"),
        why="the worker ends with an AssertionError after the model is loaded",
        fixes=(
            _add("Write --runner pooling", runner="pooling"),
            _drop("Or drop both, to generate text", "--runner", "--convert"),
        ),
    ),
)


@check("flag-conflict", causes=("flag-conflict",), needs=("launch",))
def flag_conflict(snapshot: Snapshot) -> Iterator[Finding]:
    """Flags that exclude each other, or that need another one.

    Each flag is legal by itself; together they describe a server that vLLM refuses to start.

    Why: vLLM checks its configuration as a whole, partly only after the model's files have been read.
    Fix: the evidence names the flags; change or drop one of them.
    """
    launch = snapshot.launch
    assert launch is not None
    hits = [rule for rule in RULES if rule.applies(launch)]
    if hits or launch.flags:
        release = planned_release(snapshot)
        for rule in hits:
            if all(use.name.partition(".")[0].replace("--no-", "--") in release.flags for use in _uses(launch, rule)):
                named = _parser_fix(launch, release) if rule is RULES[0] else ()
                yield _finding(launch, rule, numbers(release.version)[:2] >= rule.certain_from, named)


def _uses(launch: Launch, rule: Rule) -> list[FlagUse]:
    return [use for use in launch.flags if use.name in rule.flags]


def _finding(launch: Launch, rule: Rule, certain: bool, named: tuple[Fix, ...]) -> Finding:
    evidence = (*(f"{u.spelled} {' '.join(u.values)}".strip() for u in _uses(launch, rule)), rule.why)
    # A fix that names the parser says more than the one that tells to look for it.
    fixes = (*named, *rule.fixes[len(named) :])
    if certain:
        return error("flag-conflict", rule.title, evidence=evidence, fixes=fixes)
    return warning("flag-conflict", rule.title, evidence=evidence, fixes=fixes, confidence=Confidence.LIKELY)
