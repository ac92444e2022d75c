"""What detectors with a centre head share: peaks to boxes, boxes to tracks, and the state that takes them along."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor

from dualview.detectors.center_decoding import CenterDecodingConfig, decode_centers
from dualview.detectors.detector import Detector, Settings
from dualview.detectors.greedy_tracker import GreedyTrackingConfig, Tracked, Tracks, track
from dualview.detectors.state import SlotMemory
from dualview.geometry.bev_grid import BevGrid
from dualview.geometry.rigid import invert_rigid
from dualview.networks.center_head import TaskPrediction
from dualview.scene.frame import SurroundFrame


class CenterSettings(Settings, Protocol):
    """Settings of a detector with a centre head."""

    @property
    def decoding(self) -> CenterDecodingConfig: ...
    @property
    def tracking(self) -> GreedyTrackingConfig: ...
    @property
    def max_tracks(self) -> int: ...


@dataclass(frozen=True)
class CenterState:
    """What the network remembers (nothing, for many), and the tracks."""

    memory: SlotMemory = None
    tracks: Tracks = field(default_factory=Tracks)

    @property
    def next_track_id(self) -> int:
        """The first id that was never given; pass it to `initial_state` after a reset so that no id is used
        twice.
        """
        return self.tracks.next_track_id


class CenterDetector(Detector):
    """Base of detectors whose boxes are the peaks of a heatmap, followed by the greedy tracker."""

    def initial_state(self, next_track_id: int = 0) -> CenterState:
        """The state before the first frame, and after any break in time; new ids count from
        `next_track_id`.
        """
        return CenterState(self.initial_memory(), Tracks(next_track_id))

    def find_tracks(
        self, center: list[TaskPrediction], grid: BevGrid, frame: SurroundFrame, tracks: Tracks
    ) -> tuple[Tracked, Tracks]:
        """What is reported of a batch of one, in the ego frame, and the tracks for the next frame."""
        config = self.config
        (boxes,) = decode_centers(
            center,
            config.center_head.tasks,
            grid,
            config.class_names,
            config.decoding,
            config.track_threshold,
        )
        best = boxes.score.argsort(descending=True, stable=True)[: config.max_tracks]
        ego = boxes[best].transformed(invert_rigid(config.working_from_ego_matrix))
        pose: Tensor = frame.world_from_ego_anchor
        return track(tracks, ego, pose, frame.stamp_ns, config.class_names, config.tracking)

    def check_mode(self) -> None:
        """Raises ValueError in training mode."""
        if self.training:
            raise ValueError("step() needs evaluation mode: call detector.eval() first")
