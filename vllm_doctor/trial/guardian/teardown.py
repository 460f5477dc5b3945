"""Taking a job down: SIGTERM to the leader, a bounded wait, then SIGKILL to whatever is left of it."""

import signal
import time

from vllm_doctor.trial.guardian import ours

# How long a process may take to die of SIGKILL; one in the midst of a driver call takes as long as that call.
KILL_SECONDS = 10.0

# How long the others may take once the leader is gone: vLLM's are gone before it.
CHILDREN_SECONDS = 1.0

# Python's resource trackers remove shared memory once all other processes are gone; so long is that waited for.
TRACKER_SECONDS = 2.0

_LOOK_SECONDS = 0.05


class Job:
    """What is taken down: how to see its processes, and how to wait."""

    def members(self) -> "list[ours.Process]":
        """The processes that there are now."""
        raise NotImplementedError

    def pause(self, seconds: float) -> bool:
        """Wait a moment; True where the end is wanted at once."""
        raise NotImplementedError


def ask(job: Job, leader: ours.Process, grace_seconds: float) -> None:
    """SIGTERM to the leader, and wait until all are gone, for so long at most; its children for a moment only."""
    ours.send(leader, signal.SIGTERM)
    end = time.monotonic() + grace_seconds
    while time.monotonic() < end:
        living = [process.identity for process in job.members() if not process.ended]
        if leader.identity not in living:
            end = min(end, time.monotonic() + CHILDREN_SECONDS)
        if not living or job.pause(_LOOK_SECONDS):
            return


def kill(job: Job) -> int:
    """SIGKILL to all members until none lives, or for a while: how many there were.

    Resource trackers come last, and are given time to remove what the others left.
    """
    killed: set[tuple[int, int]] = set()
    end = time.monotonic() + KILL_SECONDS
    trackers_end = time.monotonic() + TRACKER_SECONDS
    while (living := [process for process in job.members() if not process.ended]) and time.monotonic() < end:
        others = [process for process in living if not ours.is_tracker(process.pid)]
        if others:
            trackers_end = time.monotonic() + TRACKER_SECONDS
        for process in living if time.monotonic() > trackers_end else others:
            if ours.send(process, signal.SIGKILL):
                killed.add(process.identity)
        job.pause(_LOOK_SECONDS)
    return len(killed)
