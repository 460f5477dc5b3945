"""The KV cache, as each release of vLLM lays it out."""

from vllm_doctor.memory.kv_cache.layout import Capacity, KvLayout, in_flight_tokens, kv_layout

__all__ = ["Capacity", "KvLayout", "in_flight_tokens", "kv_layout"]
