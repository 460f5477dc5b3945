"""The whole doctor on a real vLLM for CPU and real models, good and broken."""
