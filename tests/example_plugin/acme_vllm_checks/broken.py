"""A module that cannot be imported."""

raise RuntimeError("acme's licence server does not answer")
