"""A detector following one vehicle through time: the loop that the node, replay and evaluation share."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dualview.errors import ImageError
from dualview.scene.assembler import ClosedFrame
from dualview.scene.frame import SurroundFrame
from dualview.scene.preprocess import ImagePreprocessor

if TYPE_CHECKING:
    from dualview.detectors.detector import Detector
    from dualview.detectors.output import DetectorOutput


@dataclass(frozen=True)
class ProcessedFrame:
    """One frame with what the detector saw in it, and the seconds that the two stages took."""

    frame: SurroundFrame
    output: DetectorOutput
    problems: dict[str, str]  # camera name -> why it was masked
    reset: str | None
    preprocess_seconds: float
    network_seconds: float


class TrackingSession:
    """Holds the one value that lives from frame to frame, the detector's state.

    `process` starts from a fresh state when the assembler says that time jumped; track ids go on from where they were.
    """

    def __init__(
        self, detector: Detector, min_cameras: int = 1, decode_workers: int = 1, next_track_id: int = 0
    ) -> None:
        self.detector = detector
        self.preprocessor = ImagePreprocessor(detector.config.image_size, decode_workers)
        self._min_cameras = min_cameras
        self._state = detector.initial_state(next_track_id=next_track_id)
        self._pending_reset: str | None = None

    @property
    def next_track_id(self) -> int:
        """The first id that was never given: a later session of the same node goes on from it."""
        return self._state.next_track_id

    def process(self, closed: ClosedFrame, with_bev_map: bool = True) -> ProcessedFrame:
        """Decode one closed frame and step the detector; see `Detector.step` for `with_bev_map`.

        Raises ImageError if fewer than `min_cameras` of its images could be decoded; the state stays as it was.
        """
        begin = time.perf_counter()
        frame, problems = self.preprocessor.build(closed)
        self._pending_reset = closed.reset or self._pending_reset
        usable = int(frame.camera_mask.sum())
        if usable < max(self._min_cameras, 1):
            named = "; ".join(f"{name}: {why}" for name, why in problems.items())
            raise ImageError(f"{usable} usable images of {self._min_cameras} needed ({named})")
        if self._pending_reset is not None:
            self._state = self.detector.initial_state(next_track_id=self._state.next_track_id)
        reset, self._pending_reset = self._pending_reset, None
        decoded = time.perf_counter()
        output, self._state = self.detector.step(frame, self._state, with_bev_map)
        done = time.perf_counter()
        return ProcessedFrame(frame, output, problems, reset, decoded - begin, done - decoded)

    def reset(self, reason: str) -> None:
        """Forget the past at the next frame; track ids go on."""
        self._pending_reset = reason
