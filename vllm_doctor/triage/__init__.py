"""Text to root cause: signatures as data, a linear-time matcher, the stage of the start, and a ranking."""

from vllm_doctor.triage.explain import Explanation, explain_stream, explain_text

__all__ = ["Explanation", "explain_stream", "explain_text"]
