"""Tests of the core: snapshot, redaction, engine, registry, corrections, settings, command line."""
