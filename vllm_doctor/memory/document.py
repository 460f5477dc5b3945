"""The plan as JSON values, schema `vllm-doctor/plan/1`: public API, built key by key."""

from typing import Any

from vllm_doctor.memory.estimate import Estimate
from vllm_doctor.memory.plan import Plan

SCHEMA = "vllm-doctor/plan/1"


def document(plan: Plan, model: str, given: str, corrected: str | None) -> dict[str, Any]:
    """The keys of the contract; beside them `certainty`, `margin_bytes`, `error` and the `bands` of the estimates."""
    starts = plan.tokens > 0 or plan.blocks > 0
    return {
        "schema": SCHEMA,
        "model": model,
        "gpu": {"name": plan.device.name, "count": plan.device.count, "memory_bytes": plan.device.total_bytes},
        "verdict": plan.verdict.value,
        "confidence": "exact" if plan.exact else "estimated",
        "parameters": plan.weights.parameters,
        "weights_bytes_total": plan.weights.total_bytes,
        "per_gpu": {
            "budget_bytes": plan.budget.requested_bytes,
            "weights_bytes": plan.weights.per_gpu_bytes,
            "activation_bytes": plan.activation.typical,
            "cudagraph_bytes": plan.graphs.typical,
            "other_bytes": plan.other.typical,
            "kv_cache_bytes": max(0, plan.kv_cache.typical),
        },
        "kv": {
            "bytes_per_token_per_gpu": round(plan.bytes_per_token),
            "block_size": plan.block_size,
            "blocks": plan.blocks if starts else 0,
            "tokens": plan.tokens,
            "max_concurrency": round(plan.max_concurrency, 2),
        },
        "max_model_len": plan.max_model_len,
        "largest_max_model_len": plan.largest_max_model_len,
        "launch": {"given": given, "corrected": corrected},
        "certainty": plan.certainty.value,
        "margin_bytes": plan.margin_bytes,
        "error": plan.error if not plan.fits else None,
        "bands": {
            "activation_bytes": _band(plan.activation),
            "cudagraph_bytes": _band(plan.graphs),
            "cudagraph_captured_bytes": _band(plan.graphs_captured),
            "other_bytes": _band(plan.other),
            "kv_cache_bytes": _band(plan.kv_cache),
        },
        "approximations": list(plan.approximations),
        "calibrated": plan.measured.told if plan.measured is not None else None,
    }


def _band(estimate: Estimate) -> list[int]:
    return [max(0, estimate.low), max(0, estimate.high)]
