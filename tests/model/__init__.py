"""Tests of the model probe and of the checks over what it reads."""
