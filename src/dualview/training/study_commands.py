"""The processes of a study: each run is trained and scored by `dualview` commands of its own, which write their logs beside it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from dualview.errors import DualViewError


class StudyError(DualViewError):
    """A run of a study failed."""


class StudyCommands:
    """Runs commands, from several threads at once if need be, on `threads` cores each; `stop` ends those that run."""

    def __init__(self, threads: int) -> None:
        self._environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE"}
        self._running: set[subprocess.Popen[bytes]] = set()
        self._stopped = False
        self._lock = threading.Lock()

    def run(self, arguments: Sequence[str], folder: Path) -> None:
        """`dualview <arguments>`, its words in a log in `folder`. Raises StudyError with the last of them if it fails."""
        log = folder / f"{arguments[0]}.log"
        with log.open("ab") as output:
            with self._lock:
                if self._stopped:
                    raise StudyError(f"{folder.name}: not begun any more")
                process = subprocess.Popen(
                    [sys.executable, "-m", "dualview", *arguments], stdout=output, stderr=subprocess.STDOUT, env=self._environment
                )
                self._running.add(process)
            code = process.wait()
            with self._lock:
                self._running.discard(process)
        if code:
            last = log.read_text(errors="replace").strip().splitlines()[-1:]
            raise StudyError(f"{folder.name}: dualview {arguments[0]} failed ({' '.join(last)}); see {log}")

    def stop(self) -> None:
        """Ask what runs to end in order, which a training does after its step, and begin nothing more."""
        with self._lock:
            self._stopped = True
            for process in self._running:
                process.terminate()
