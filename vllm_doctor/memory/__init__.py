"""The memory plan: what a launch of vLLM takes on every GPU, by arithmetic alone, before any weight is loaded."""
