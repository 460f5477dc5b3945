"""Tests of the command line as its users call it: whole processes."""
