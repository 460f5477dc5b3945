"""The doctor against hostile input: bounded time and memory, nothing executed, nothing leaked."""
