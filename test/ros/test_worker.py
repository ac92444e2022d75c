"""The network's thread takes the newest frame only, and no reset is lost."""

from __future__ import annotations

import threading

import numpy as np

from dualview.ros.worker import Job, NewestFrameWorker
from dualview.scene.assembler import ClosedFrame


def job(number: int, reset: str | None = None) -> Job:
    return Job(ClosedFrame(number, (), np.eye(4), {}, reset), 0.0, 0.0)


class SlowNetwork:
    """Holds each job until released."""

    def __init__(self) -> None:
        self.done: list[Job] = []
        self.entered, self.release = threading.Semaphore(0), threading.Semaphore(0)

    def __call__(self, given: Job) -> None:
        self.entered.release()
        assert self.release.acquire(timeout=10)
        self.done.append(given)


def test_only_the_newest_frame_waits_and_the_replaced_ones_are_told() -> None:
    network = SlowNetwork()
    worker = NewestFrameWorker(network)
    assert worker.submit(job(0)) is None
    assert network.entered.acquire(timeout=10)  # 0 is in the network
    assert worker.submit(job(1)) is None
    assert worker.submit(job(2)).closed.stamp_ns == 1
    assert worker.submit(job(3)).closed.stamp_ns == 2
    network.release.release(2)
    assert network.entered.acquire(timeout=10)
    worker.stop()
    assert [j.closed.stamp_ns for j in network.done] == [0, 3]


def test_a_reset_of_a_replaced_frame_is_handed_on() -> None:
    network = SlowNetwork()
    worker = NewestFrameWorker(network)
    worker.submit(job(0))
    assert network.entered.acquire(timeout=10)
    worker.submit(job(1, "time went back"))
    worker.submit(job(2))
    worker.submit(job(3))
    network.release.release(2)
    assert network.entered.acquire(timeout=10)
    worker.stop()
    assert network.done[-1].closed.stamp_ns == 3 and network.done[-1].closed.reset == "time went back"


def test_stop_finishes_the_frame_in_hand_and_forgets_the_one_that_waits() -> None:
    network = SlowNetwork()
    worker = NewestFrameWorker(network)
    worker.submit(job(0))
    assert network.entered.acquire(timeout=10)
    worker.submit(job(1))
    stopper = threading.Thread(target=worker.stop)
    stopper.start()
    network.release.release(2)
    stopper.join(10)
    assert not stopper.is_alive() and [j.closed.stamp_ns for j in network.done] == [0]
