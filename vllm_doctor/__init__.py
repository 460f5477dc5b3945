"""The doctor for vLLM deployments: probes write facts, checks judge them, findings carry the cause and the fix."""

__version__ = "0.1.0"
