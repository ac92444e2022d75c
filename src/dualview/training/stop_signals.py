"""Ctrl-C, SIGTERM and a closed terminal end a run in order: the step under way is finished and kept, and --resume goes on after it."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from types import FrameType
from typing import Any

from dualview.errors import DualViewError
from dualview.training.lightning import lightning

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_SAID = b"\nstopping after this step; once more to stop at once\n"
_AGAIN = 2.0


class TrainingStoppedError(DualViewError):
    """The run was asked to stop before its last step, and did. `exit_status` is what shells expect of a process so ended."""

    def __init__(self, message: str, number: int | None) -> None:
        """number: of the signal; None for a process beside the first one, whose end must not look like a failure."""
        super().__init__(message)
        self.exit_status = 0 if number is None else 128 + number


class StopOnSignal(lightning().Callback):  # type: ignore[misc]
    """A signal lets the run stop after its present optimiser step, which `Checkpoints`, if it comes later among the callbacks, then
    saves. The same signal again, from `_AGAIN` seconds on, ends the process at once: until then it may be the same wish, by way of
    the process group and of the study. A signal that the process was told to ignore stays ignored.
    """

    def __init__(self) -> None:
        self.number: int | None = None  # of the signal that came, on any process
        # Asked now, before Lightning wraps SIGTERM's handler in its own, which also ends what was told to ignore it.
        self._ignored = {number for number in _SIGNALS if signal.getsignal(number) is signal.SIG_IGN}
        self._before: dict[int, Any] = {}
        self._first: dict[int, float] = {}  # signal -> when it first came, s
        self._step = 0

    def on_train_start(self, trainer: Any, module: Any) -> None:
        """Take the signals over, after Lightning has, which would leave the step without a checkpoint."""
        self._step = trainer.global_step
        if threading.current_thread() is not threading.main_thread():
            return
        for number in _SIGNALS:
            self._before[number] = signal.signal(number, signal.SIG_IGN if number in self._ignored else self._receive)

    def on_train_batch_end(self, trainer: Any, *unused: Any) -> None:
        """Stop, with all processes, where a step is whole: between the batches of one, gradients would be lost."""
        if trainer.global_step == self._step:
            return
        self._step = trainer.global_step
        if trainer.strategy.reduce_boolean_decision(self.number is not None, all=False):
            self.number = self.number or signal.SIGTERM
            trainer.should_stop = True

    def teardown(self, trainer: Any, module: Any, stage: str) -> None:
        """Give the signals back, before Lightning does."""
        while self._before:
            signal.signal(*self._before.popitem())

    def on_exception(self, trainer: Any, module: Any, exception: BaseException) -> None:
        """The same where `teardown` isn't called."""
        self.teardown(trainer, module, "fit")

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.number = number
        if time.monotonic() - self._first.setdefault(number, time.monotonic()) > _AGAIN:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        with contextlib.suppress(OSError):  # Ctrl-C ends the reader of our output (`| tee`) too
            os.write(1, _SAID)  # not `print`, which may be at work just now


def leave_signals_to_the_run(worker: int) -> None:
    """For loaders' worker processes, which signals to the process group reach too: they end with their loader, once the step has its
    data.
    """
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
