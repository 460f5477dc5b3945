"""Fit the constants of the memory model to measured start-ups and write vllm_doctor/memory/coefficients.py.

    python scripts/fit_memory.py MEASURED.csv [--check]

The rows are those of one release on one kind of GPU with vLLM's own log values in GiB (the columns of
benchmarks/measured.py). Only the constants are fitted: the form of the model is physics and vLLM's source.
"""

import argparse
import sys
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from statistics import median
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.measured import Row, read_rows
from vllm_doctor.memory import activation, defaults

GIB = 2**30
TARGET = Path(__file__).resolve().parents[1] / "vllm_doctor" / "memory" / "coefficients.py"


class Line(NamedTuple):
    """A straight line through points, by least squares."""

    constant: float
    slope: float


def main() -> int:
    """Fit, and write or compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("csv", type=Path)
    parser.add_argument("--check", action="store_true", help="say whether the file is what a fit would write")
    arguments = parser.parse_args()
    text = rendered(read_rows(arguments.csv))
    if arguments.check:
        return 0 if _body(text) == _body(TARGET.read_text()) else 1
    TARGET.write_text(text)
    return 0


def _body(text: str) -> str:
    return "\n".join(line for line in text.splitlines() if not line.startswith("DATE"))


def rendered(rows: Sequence[Row]) -> str:
    """The data module as text."""
    units, residual = sampler(rows)
    graph, graph_experts = graphs(rows, "cuda_graph_actual_gib")
    estimate, estimate_experts = graphs(rows, "cuda_graph_estimated_gib")
    return TEMPLATE.format(
        date=date.today().isoformat(),
        rows=len(rows),
        units=round(units, 3),
        residual=round(residual, 3),
        multimodal=_bytes(multimodal(rows, units)),
        forward=_bytes(forward(rows)),
        single=_bytes(_median(r.gib("non_torch_forward_gib") for r in rows if r.tp == 1 and r.pp == 1)),
        parallel=_bytes(_median(r.gib("non_torch_forward_gib") for r in rows if r.tp > 1)),
        pipeline=_bytes(pipeline(rows, units)),
        graph=_bytes(graph.constant),
        graph_layer=_bytes(graph.slope),
        graph_experts=_bytes(graph_experts),
        estimate=_bytes(estimate.constant),
        estimate_layer=_bytes(estimate.slope),
        estimate_experts=_bytes(estimate_experts),
        context=_bytes(_median(r.gib("init_non_torch_memory_gib") for r in rows if r.tp == 1 and r.pp == 1)),
        groups=_bytes(_median(r.gib("init_non_torch_memory_gib") for r in rows if r.tp * r.pp > 1)),
    )


def _terms(row: Row) -> tuple[float, float, float, float]:
    """GiB of a row: one sampler unit, what is held beside it, the experts' workspace, the forward pass."""
    taken = defaults.resolve(row.architecture, row.settings, row.device, row.release)
    known = (row.architecture, row.settings, taken)
    return (
        activation.unit_bytes(row.architecture, taken) / GIB,
        activation.held_bytes(*known) / GIB,
        activation.expert_workspace_bytes(*known) / GIB,
        activation.forward_bytes(*known) / GIB,
    )


def sampler(rows: Sequence[Row]) -> tuple[float, float]:
    """Units of the sampler's peak where it dominates, and the largest relative error of a row with it."""
    points = []
    for row in rows:
        unit, held, experts, pass_ = _terms(row)
        peak = row.gib("activation_memory_gib")
        if row.pp == 1 and not row.architecture.is_multimodal and peak > 1.15 * pass_:
            points.append((unit, held + experts, peak))
    units = _median((peak - held) / unit for unit, held, peak in points)
    return units, max(abs(units * unit + held - peak) / peak for unit, held, peak in points)


def multimodal(rows: Sequence[Row], units: float) -> float:
    """GiB beyond the sampler's peak in models that also profile an encoder."""
    over = []
    for row in rows:
        if row.architecture.is_multimodal:
            unit, held, experts, _ = _terms(row)
            over.append(row.gib("activation_memory_gib") - units * unit - held - experts)
    return _median(over)


def forward(rows: Sequence[Row]) -> float:
    """GiB beyond the formula where the forward pass dominates."""
    terms = [(_terms(r), r.gib("activation_memory_gib")) for r in rows if r.pp == 1]
    return _median(peak - pass_ for (_, _, _, pass_), peak in terms if abs(peak - pass_) < 0.05)


def pipeline(rows: Sequence[Row], units: float) -> float:
    """GiB outside of torch on the last stage, from the blocks: the stage with the sampler has fewest."""
    found = []
    for row in rows:
        if row.pp > 1 and row.tp == 1:
            unit, held, _, _ = _terms(row)
            per_block = row.layout().bytes_per_block
            left = int(row.values["kv_cache_blocks"]) * per_block / GIB
            found.append(row.gib("requested_memory_gib") - row.weights_gib() - units * unit - held - left)
    return max(0.05, _median(found))


def graphs(rows: Sequence[Row], column: str) -> tuple[Line, float]:
    """GiB of the graphs over the layers on single-GPU dense models, and what experts add."""
    alone = [r for r in rows if r.tp == 1 and r.pp == 1]
    dense = [(len(r.architecture.layers), r.gib(column)) for r in alone if not r.architecture.experts]
    line = _line(dense)
    experts = [r for r in alone if r.architecture.experts]
    over = [r.gib(column) - line.constant - line.slope * len(r.architecture.layers) for r in experts]
    return line, _median(over)


def _line(points: Sequence[tuple[float, float]]) -> Line:
    mean_x, mean_y = (sum(p[i] for p in points) / len(points) for i in (0, 1))
    slope = sum((x - mean_x) * (y - mean_y) for x, y in points) / sum((x - mean_x) ** 2 for x, _ in points)
    return Line(mean_y - slope * mean_x, slope)


def _median(values: object) -> float:
    return median(list(values))  # type: ignore[call-overload,no-any-return]


def _bytes(size_gib: float) -> int:
    return round(size_gib * GIB)


TEMPLATE = '''"""The fitted constants of the memory model, with the rows that they come from and how far those lie off.

Written by scripts/fit_memory.py; do not edit by hand.
"""

DATE = "{date}"
SOURCE = "{rows} start-ups of vLLM 0.19.0 on H100 80GB (accuracy study of llm-d-planner, Apache-2.0), development rows"

# Sampler peak in units of max_num_seqs x vocabulary x 4 bytes (0.18 to 0.21: Triton top-k/top-p, no sort), and by how
# much of the whole peak a row differs at most.
SAMPLER_UNITS = {units}
SAMPLER_RESIDUAL = {residual}

# What a multimodal model holds beside it in the profile run, and what the forward pass takes beyond its formula.
MULTIMODAL_BYTES = {multimodal}
FORWARD_EXTRA_BYTES = {forward}

# Memory outside of torch's allocator after the profile run: one GPU, tensor parallel ranks, pipeline stages.
NON_TORCH_SINGLE_BYTES = {single}
NON_TORCH_TENSOR_PARALLEL_BYTES = {parallel}
NON_TORCH_PIPELINE_BYTES = {pipeline}

# CUDA graphs in bytes: a constant, per layer, and once more for mixture-of-experts models; then what vLLM estimates.
GRAPH_BYTES = {graph}
GRAPH_LAYER_BYTES = {graph_layer}
GRAPH_EXPERTS_BYTES = {graph_experts}
GRAPH_ESTIMATE_BYTES = {estimate}
GRAPH_ESTIMATE_LAYER_BYTES = {estimate_layer}
GRAPH_ESTIMATE_EXPERTS_BYTES = {estimate_experts}

# What of an idle card is not free at the baseline: the CUDA context, and with NCCL's groups.
CONTEXT_BYTES = {context}
CONTEXT_GROUPS_BYTES = {groups}
'''

if __name__ == "__main__":
    sys.exit(main())
