"""The tests of vllm-doctor."""
