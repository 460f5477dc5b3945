"""Launches a server, proves that it serves, and takes it down without a trace."""
