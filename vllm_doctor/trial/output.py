"""What a server has written so far: the stages it tells of, its last lines, and its explanation where it fails."""

import re
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from vllm_doctor import redact
from vllm_doctor.triage.explain import Explanation, Reading
from vllm_doctor.triage.matcher import Matcher
from vllm_doctor.triage.patterns import Patterns
from vllm_doctor.triage.signature import Role, book
from vllm_doctor.trial.guardian.folder import LOG_HEAD_BYTES

# Read at one look while the server starts: a flood is read at this pace, and what is cut meanwhile is never read.
LOOK_BYTES = 128 * 1024

# Read for an explanation: as much as the log may hold before it is cut, and some more that came while it was read.
EXPLAINED_BYTES = 80 * 2**20

# Kept when the folder is gone: of the beginning (what vLLM reports of memory stands there), and of the end.
HEAD_BYTES = 2**20
TAIL_BYTES = 128 * 1024

_BLOCK_BYTES = 64 * 1024

# vllm/model_executor/model_loader/weight_utils.py 0.3 - 0.32: `..checkpoint shards:  50% Completed | 2/4 [00:01<00:01`
_SHARDS = re.compile(rb"checkpoint shards: {0,4}\d{1,3}% Completed \| (\d{1,6})/(\d{1,6}) ")

# tqdm's own form, of the graphs that are captured: `Capturing CUDA graphs (PIECEWISE):  42%|####  | 28/67 [00:05<`.
_GRAPHS = re.compile(rb"Capturing CUDA graphs?[^\r\n|]{0,60}\|[^\r\n|]{0,300}\| {0,4}(\d{1,6})/(\d{1,6}) ")


@lru_cache(maxsize=1)
def _markers() -> Patterns:
    """The signatures that tell of a stage, and no others: the whole book would hold 15 MiB while the doctor waits."""
    told = (each for each in book().values() if each.role is Role.MARKER and not each.stage.startswith("in-"))
    return Patterns(told)


class Output:
    """A log that grows; memory and time at one look are bounded, whatever is written."""

    def __init__(self, path: Path, cut: Callable[[], object]) -> None:
        """`cut` brings another value each time that the guardian has cut the log."""
        self.path = path
        self._cut = cut
        self._last_cut: object = None
        self._matcher = Matcher(_markers())
        self._told = 0
        self._place = 0
        self._counter = ""
        self._head = b""
        self._tail = b""

    def stages(self) -> list[str]:
        """The stages that triage's markers name in the lines that came since the last call, in their order."""
        fresh = self._matcher.matches[self._told :]
        self._told += len(fresh)
        return [match.signature.stage for match in fresh]

    @property
    def counter(self) -> str:
        """How far the shards or graphs are, `3/17`; "" where nothing is counted."""
        return self._counter

    def look(self, maximum_bytes: int = LOOK_BYTES) -> int:
        """Read on; the number of bytes that were new."""
        if (cut := self._cut()) != self._last_cut:
            # What was between the beginning and the end is not there any more.
            self._last_cut, self._place = cut, min(self._place, LOG_HEAD_BYTES)
        start = self._place
        try:
            with self.path.open("rb") as file:
                file.seek(self._place)
                while self._place - start < maximum_bytes and (block := file.read(_BLOCK_BYTES)):
                    self._take(block)
        except OSError:
            return 0
        return self._place - start

    def finish(self) -> None:
        """Read to the end: before the folder goes, or the last lines are shown."""
        self.look(EXPLAINED_BYTES)

    def explanation(self) -> Explanation:
        """What the log says so far; of a log that is gone, its beginning and its end."""
        reading = Reading()
        left = EXPLAINED_BYTES
        try:
            with self.path.open("rb") as file:
                while left > 0 and (block := file.read(_BLOCK_BYTES)):
                    reading.feed(block)
                    left -= len(block)
        except OSError:
            reading.feed(self._kept())
        return reading.explanation()

    def tail(self, lines: int = 20) -> tuple[str, ...]:
        """The last lines, without secrets and escapes."""
        self.finish()
        text = self._tail.decode("utf-8", "replace").replace("\r", "\n")
        shown = (redact.line(line) for line in text.split("\n"))
        return tuple(line for line in shown if line)[-lines:]

    def beginning(self) -> str:
        """The first MiB as it is, secrets and all: to be read for figures, not to be shown."""
        return self._head.decode("utf-8", "replace")

    def _kept(self) -> bytes:
        return self._head if self._place <= HEAD_BYTES else self._head + b"\n" + self._tail

    def _take(self, block: bytes) -> None:
        self._place += len(block)
        self._matcher.feed(block)
        # A stage is told as soon as its line is there: no message of several lines marks one.
        self._matcher.look_at_rest()
        self._head += block[: HEAD_BYTES - len(self._head)]
        self._tail += block
        if len(self._tail) > TAIL_BYTES:
            # A line that lost its beginning may hold half a secret, which nothing would mask.
            self._tail = self._tail[-TAIL_BYTES:].partition(b"\n")[2]
        for pattern in (_SHARDS, _GRAPHS):
            if found := pattern.findall(block):
                self._counter = b"/".join(found[-1]).decode()
