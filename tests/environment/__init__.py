"""Tests of the environment probe: real environments, real interpreters, real libraries."""
