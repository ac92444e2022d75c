"""Child processes of the demo: each with a log, an orderly end, and a sentence when something goes wrong."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from dualview.errors import DualViewError

_TAIL_LINES = 12


class Child:
    """`python -m dualview ARGUMENTS` with its output in a log file."""

    def __init__(
        self, name: str, arguments: Sequence[str], log: Path, environment: Mapping[str, str]
    ) -> None:
        self.name, self.log = name, log
        log.parent.mkdir(parents=True, exist_ok=True)
        self._file: IO[bytes] = log.open("wb")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "dualview", *arguments], env=dict(environment), stdin=subprocess.DEVNULL,
            stdout=self._file, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip

    @property
    def exit_status(self) -> int | None:
        """None while it runs."""
        return self._process.poll()

    def tail(self) -> str:
        """The last lines of its log, for messages."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return "\n".join(f"    {line}" for line in lines[-_TAIL_LINES:]) or "    (it said nothing)"

    def check(self) -> None:
        """Raise DualViewError if it has ended with an error."""
        if self.exit_status not in (None, 0):
            raise DualViewError(
                f"the {self.name} ended with status {self.exit_status}; the end of {self.log}:\n{self.tail()}"
            )

    def stop(self, timeout: float = 20.0) -> int:
        """Ask it to end (SIGINT), insist after `timeout` seconds; returns its exit status."""
        for number, patience in ((signal.SIGINT, timeout), (signal.SIGTERM, 5.0), (signal.SIGKILL, 5.0)):
            if self._process.poll() is not None:
                break
            self._process.send_signal(number)
            try:
                self._process.wait(patience)
            except subprocess.TimeoutExpired:
                continue
        self._file.close()
        return int(self._process.returncode if self._process.returncode is not None else -signal.SIGKILL)


def logs_of(children: Sequence[Child]) -> str:
    """The ends of all their logs, for messages."""
    return "\n".join(f"  {child.name} ({child.log}):\n{child.tail()}" for child in children)


@contextmanager
def ending_all() -> Iterator[list[Child]]:
    """A list for children that are stopped in any case at the end, the last first."""
    children: list[Child] = []
    try:
        yield children
    finally:
        for child in reversed(children):
            child.stop(5.0)  # what ended in order has ended before


def wait_until(
    condition: Callable[[], bool],
    timeout: float,
    what: str,
    children: Sequence[Child],
    step: Callable[[], None] = lambda: time.sleep(0.05),
    explain: Callable[[], str] = str,
) -> None:
    """Call `step` until `condition()`; raises DualViewError that says what was waited for and what the processes said.

    A child that ends with an error ends the waiting at once.
    """
    end = time.monotonic() + timeout
    while not condition():
        for child in children:
            child.check()
        if time.monotonic() > end:
            said = f" The node says: {explain()}." if explain() else ""
            raise DualViewError(f"waited {timeout:.0f} s in vain for {what}.{said}\n{logs_of(children)}")
        step()


def ros_environment(domain: int) -> dict[str, str]:
    """This process's environment for ROS processes that only meet each other: a domain of their own, on this machine only."""
    from dualview.ros.environment import child_environment

    wanted = {
        "ROS_DOMAIN_ID": str(domain),
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
        "PYTHONUNBUFFERED": "1",
    }
    return child_environment({**os.environ, **wanted})
