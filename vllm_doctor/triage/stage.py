"""Where in the life of a server a line stands: from the frames of its traceback, else from the lines before it."""

from collections.abc import Sequence

from vllm_doctor.triage.matcher import Match
from vllm_doctor.triage.signature import Role

# The frames of one traceback stand within so many lines of its last line.
TRACEBACK_LINES = 90
_TRACEBACK = "Traceback (most recent call last)"

# Of the frames of one traceback, the one that says most. The sampler is warmed up by the function that captures, a
# capture runs the model's forward as a profile run does, and the profile run is called from the start of the engine, so
# that the inner ones come first.
FRAME_ORDER = ("warmup", "capture", "profile", "kv", "load", "init", "serving")

# The order in which a start passes its stages. A log above which a line stands, and one that begins with its last line
# (as consoles of clouds show it), got as far as the last of them.
LIFE = ("start", "init", "load", "profile", "kv", "capture", "serving")


class Stages:
    """The stage of any line, from the markers found in the whole text."""

    def __init__(self, matches: Sequence[Match]) -> None:
        markers = [m for m in matches if m.signature.role is Role.MARKER and m.signature.stage]
        self._frames = [m for m in markers if m.signature.stage.startswith("in-")]
        self._said = [m for m in markers if m.signature.stage.startswith("said-")]
        self._passed = [m for m in markers if m.signature.stage in LIFE]

    def at(self, match: Match) -> str:
        """The stage where that match stands, "" where the text does not tell."""
        said = self._of_words()
        if said != "load":
            return self._of_frames(match) or said or self._of_markers(match) or self._of_what_follows(match)
        return self._of_frames(match) or self._of_markers(match) or self._of_what_follows(match) or said

    def _of_words(self) -> str:
        """What a person says of it; "while loading" may mean any part of the start."""
        stages = {m.signature.stage[5:] for m in self._said}
        return next((stage for stage in FRAME_ORDER if stage in stages), "")

    def _of_frames(self, match: Match) -> str:
        first, last = match.number - TRACEBACK_LINES, match.number
        if _TRACEBACK in match.line.text:
            # IPython names the error above its frames.
            first, last = match.number, match.number + TRACEBACK_LINES
        stages = {
            m.signature.stage[3:]
            for m in self._frames
            if first <= m.number <= last
            and (not m.line.process or not match.line.process or m.line.process == match.line.process)
        }
        return next((stage for stage in FRAME_ORDER if stage in stages), "")

    def _of_what_follows(self, match: Match) -> str:
        """Of a line above its log, as an issue's title: the log under it is the one it means."""
        stages = {m.signature.stage[3:] for m in self._frames if match.number < m.number}
        inner = next((stage for stage in FRAME_ORDER if stage in stages), "")
        return inner or max((m.signature.stage for m in self._passed), key=_progress, default="")

    def _of_markers(self, match: Match) -> str:
        before = [m for m in self._passed if m.number <= match.number]
        return before[-1].signature.stage if before else ""


def _progress(stage: str) -> int:
    return LIFE.index(stage) if stage in LIFE else -1
