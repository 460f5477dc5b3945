"""Architectures that a release has in its registry, and whose class it cannot build in any launch."""

from collections.abc import Mapping
from typing import NamedTuple


class Unbuildable(NamedTuple):
    """`error`: what the start ends with; `reason`: where in vLLM; `before` and `after`: the releases that build it."""

    error: str
    reason: str
    before: str
    after: str


# Seen by building the class with vLLM 0.32.0 from the published config, and read in the sources of all three releases.
_CASES: Mapping[tuple[str, str], Unbuildable] = {
    ("InternS1ProForConditionalGeneration", "0.32.0"): Unbuildable(
        error="AttributeError: 'InternS1ProForConditionalGeneration' object has no attribute 'model_config'",
        reason="model_executor/models/interns1_pro.py reads self.model_config, which it sets from 0.33.0 on",
        before="0.31.0",
        after="0.33.0",
    ),
}


def unbuildable(architecture: str, version: str) -> Unbuildable | None:
    """Why that release cannot build the architecture; None where nothing of the kind is known."""
    return _CASES.get((architecture, version))
