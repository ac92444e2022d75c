"""The network's own thread: it takes the newest frame that is ready, and what it can't follow is dropped, never queued."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace

from dualview.scene.assembler import ClosedFrame


@dataclass(frozen=True)
class Job:
    """A closed frame with what is known of its arrival.

    age_ms: from the anchor's exposure to the arrival of its last image, by the node's clock; NaN if the two clocks have nothing
    to do with each other. arrived: `time.perf_counter()` then.
    """

    closed: ClosedFrame
    age_ms: float
    arrived: float


class NewestFrameWorker:
    """Calls `work(job)` in one thread, always with the newest job."""

    def __init__(self, work: Callable[[Job], None]) -> None:
        self._work = work
        self._changed = threading.Condition()
        self._waiting: Job | None = None
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="network")
        self._thread.start()

    def submit(self, job: Job) -> Job | None:
        """Hand over a job; returns the one that it took the place of, which is lost.

        A reset that the lost one carried is handed on: the next frame still has to start afresh.
        """
        with self._changed:
            replaced, self._waiting = self._waiting, job
            if replaced is not None and replaced.closed.reset and not job.closed.reset:
                self._waiting = replace(job, closed=replace(job.closed, reset=replaced.closed.reset))
            self._changed.notify()
        return replaced

    def stop(self) -> None:
        """Finish the job in hand, forget the one that waits, and end the thread."""
        with self._changed:
            self._stopping, self._waiting = True, None
            self._changed.notify()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                while self._waiting is None and not self._stopping:
                    self._changed.wait()
                job, self._waiting = self._waiting, None
                if self._stopping or job is None:
                    return
            self._work(job)
