"""How near the memory plan comes to measured start-ups of vLLM, against a rule of constants.

    python -m benchmarks.measured MEASURED.csv [-v]

Columns in GiB as vLLM logs them; lines that begin with # are comments. `weights` compares the weights per GPU, `kv` the
memory left for the KV cache, `tokens` the size of the cache. Prints one line of figures, last.
"""

import argparse
import csv
import sys
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from statistics import mean, median

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from vllm_doctor.memory import catalogue
from vllm_doctor.memory.architecture import read_architecture
from vllm_doctor.memory.defaults import resolve
from vllm_doctor.memory.facts import Architecture, Device, LaunchSettings
from vllm_doctor.memory.kv_cache import KvLayout, kv_layout
from vllm_doctor.memory.plan import Plan, plan
from vllm_doctor.memory.weights import weights as weigh

GIB = 2**30
RELEASE = (0, 19, 0)

# The rule of thumb that the model must beat: exact weights, and constants for everything else.
CONSTANT_ACTIVATION_GIB = 2.0
CONSTANT_NON_TORCH_GIB = {False: 0.25, True: 2.1}


class Row:
    """One measured start-up."""

    release = RELEASE

    def __init__(self, values: Mapping[str, str]) -> None:
        self.values = values
        self.tp, self.pp = int(values["tp"]), int(values["pp"])

    def gib(self, column: str) -> float:
        """A value in GiB."""
        return float(self.values[column])

    @cached_property
    def architecture(self) -> Architecture:
        """The model, from the catalogue."""
        entry = catalogue.find(self.values["model"])
        if entry is None:
            raise KeyError(self.values["model"])
        return read_architecture(entry.config_json)

    @cached_property
    def settings(self) -> LaunchSettings:
        """The launch: what the study set, vLLM's defaults elsewhere."""
        values = self.values
        online = values["quantization"] if values["quantization"] == "fp8" else None
        checkpoint = self.architecture.quantization is not None
        return LaunchSettings(
            tensor_parallel_size=self.tp,
            pipeline_parallel_size=self.pp,
            data_parallel_size=int(values["dp"]),
            max_model_len=int(values["max_model_len"]),
            gpu_memory_utilization=float(values["gpu_memory_utilization"]),
            dtype=values["dtype"].removeprefix("torch."),
            quantization=None if checkpoint else online,
            kv_cache_dtype=values["kv_cache_dtype"],
        )

    @cached_property
    def device(self) -> Device:
        """An idle GPU of the measured size."""
        ranks = self.tp * self.pp * int(self.values["dp"])
        total = round(self.gib("init_total_memory_gib") * GIB)
        return Device(name=self.values["gpu"], total_bytes=total, free_bytes=total, capability=90, count=ranks)

    def layout(self) -> KvLayout:
        """The layout of its KV cache."""
        taken = resolve(self.architecture, self.settings, self.device, self.release)
        tokens, length = taken.max_num_batched_tokens, taken.max_model_len
        return kv_layout(self.architecture, self.settings, self.release, self.device, tokens, length)

    def weights_gib(self) -> float:
        """The computed weights of the fullest rank."""
        return weigh(self.architecture, self.settings, self.release).per_gpu_bytes / GIB

    @cached_property
    def plan(self) -> Plan:
        """The plan of the launch."""
        return plan(self.architecture, self.settings, self.device, self.release)

    def stage_gib(self) -> float:
        """The computed weights of the stage that was logged: with pipeline stages, the nearest one."""
        logged = self.gib("weights_memory_gib")
        found = weigh(self.architecture, self.settings, self.release)
        sizes = found.stages if self.pp > 1 else (found.per_gpu_bytes,)
        return min((size / GIB for size in sizes), key=lambda size: abs(size - logged))

    def by_constants(self) -> float:
        """GiB of KV cache by the rule of constants."""
        rest = CONSTANT_ACTIVATION_GIB + CONSTANT_NON_TORCH_GIB[self.tp > 1]
        return self.gib("requested_memory_gib") - self.weights_gib() - rest


def read_rows(path: Path) -> list[Row]:
    """The rows of the file; models that are not in the catalogue are named on standard error and left out."""
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    found = []
    for values in csv.DictReader(lines):
        if catalogue.find(values["model"]) is None:
            sys.stderr.write(f"not in the catalogue: {values['model']}\n")
            continue
        found.append(Row(values))
    return found


def errors(pairs: Sequence[tuple[float, float]]) -> list[float]:
    """Relative errors of (computed, measured)."""
    return [abs(ours - theirs) / theirs for ours, theirs in pairs]


def main() -> int:
    """Compare every row, print the line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("csv", type=Path)
    parser.add_argument("-v", "--verbose", action="store_true")
    arguments = parser.parse_args()
    rows = read_rows(arguments.csv)
    kv, weights, constants, tokens, over = [], [], [], [], 0
    for row in rows:
        found = row.plan
        measured = row.gib("kv_cache_memory_gib")
        kv.append((found.kv_cache.typical / GIB, measured))
        constants.append((row.by_constants(), measured))
        weights.append((row.stage_gib(), row.gib("weights_memory_gib")))
        tokens.append((float(found.tokens), row.gib("kv_cache_tokens")))
        over += found.kv_cache.low / GIB > measured
        if arguments.verbose:
            _show(row, found)
    for name, pairs in (("tokens", tokens), ("constants", constants)):
        sys.stdout.write(f"{name}: mean error {mean(errors(pairs)):.2%}, median {median(errors(pairs)):.2%}\n")
    kv_errors, weight_errors = errors(kv), errors(weights)
    sys.stdout.write(
        f"measured: {len(rows)} runs, kv mean {mean(kv_errors):.2%} median {median(kv_errors):.2%} "
        f"worst {max(kv_errors):.2%}, over the band {over}; weights mean {mean(weight_errors):.2%} "
        f"median {median(weight_errors):.2%}; constants kv mean {mean(errors(constants)):.2%}\n"
    )
    return 0 if mean(kv_errors) <= 0.02 and median(kv_errors) <= 0.005 and not over else 1


def _show(row: Row, found: Plan) -> None:
    values = row.values
    sys.stdout.write(
        f"{values['model'][:44]:44} tp{row.tp} pp{row.pp} {values['dtype'][6:]:9}"
        f" weights {row.weights_gib():6.2f}/{values['weights_memory_gib']:>5}"
        f" activation {found.activation.typical / GIB:5.2f}/{values['activation_memory_gib']:>4}"
        f" other {found.other.typical / GIB:4.2f}/{values['non_torch_forward_gib']:>4}"
        f" graphs {found.graphs_captured.typical / GIB:4.2f}/{values['cuda_graph_actual_gib']:>4}"
        f" kv {found.kv_cache.typical / GIB:6.2f}/{values['kv_cache_memory_gib']:>5}"
        f" tokens {found.tokens}/{values['kv_cache_tokens']} {found.verdict.value} {found.certainty.value}\n"
    )


if __name__ == "__main__":
    sys.exit(main())
