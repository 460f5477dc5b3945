"""A launched server from its start to the proof that nothing of it is left."""
