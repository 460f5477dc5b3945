"""A doctor in small: starts the job that its words name, waits until it serves, and says on each line what it sees.

`python driver.py NOTES PORT ACT...`; the test ends it in whatever way it likes.
"""

import os
import sys
from pathlib import Path

from tests.trial.jobs import words
from vllm_doctor.trial.interruption import interruptible
from vllm_doctor.trial.job import start
from vllm_doctor.trial.progress import Stage, wait_ready


def say(*what: object) -> None:
    """One line, whole; the reader may be gone."""
    try:
        os.write(1, (" ".join(map(str, what)) + "\n").encode())
    except OSError:
        return


def tell(stage: Stage) -> None:
    """The stage with its counter."""
    say("stage", stage.name, stage.detail)


def main() -> int:
    """130 when it was interrupted, as the command line answers."""
    notes, port = Path(sys.argv[1]), int(sys.argv[2])
    argv = words(notes, port, *sys.argv[3:]) if sys.argv[3] != "--" else sys.argv[4:]
    job = None
    try:
        with interruptible():
            job = start(argv, environment=os.environ, folder=notes, port=port)
            with job:
                say("job", job.pid, job.guardian_pid, job.folder)
                say(type(wait_ready(job, f"http://127.0.0.1:{port}/v1", tell=tell)).__name__)
                sys.stdin.read()
    except KeyboardInterrupt:
        say("left", job is not None and job.stop().nothing)
        return 130
    say("left", job.stop().nothing)
    return 0


if __name__ == "__main__":
    sys.exit(main())
