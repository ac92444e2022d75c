"""CenterPoint: LiDAR in, tracked boxes and a bird's-eye-view map out (Yin et al. 2021, arXiv 2006.11275).

    sweeps of half a second --> pillars (or voxels) --> SECOND --> pyramid --> centre head --> boxes --> greedy tracker
                                                                     |
                                                    BEV map: what camera students are taught

It trains, evaluates and draws like any detector; its frames hold a cloud besides the images.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dualview.detectors.center_detector import CenterDetector, CenterState
from dualview.detectors.centerpoint_config import CenterPointConfig
from dualview.detectors.detector import StepClock, seen_by_cameras
from dualview.detectors.inputs import DetectorInputs
from dualview.detectors.output import DetectorOutput, StepTimes
from dualview.detectors.prediction import Prediction
from dualview.detectors.quarter_turn import bev_map_in_ego
from dualview.detectors.state import SlotMemory
from dualview.errors import ConfigError
from dualview.networks.bev_branch import BevPrediction
from dualview.networks.center_head import CenterHead
from dualview.networks.denoising_queries import DenoisingQueries
from dualview.networks.lidar_branch import LidarBranch
from dualview.ops.bev_pool import BevPoolPlan
from dualview.scene.frame import SurroundFrame
from dualview.scene.sweeps import POINT_CHANNELS, moved_cloud


class CenterPoint(CenterDetector):
    """The LiDAR detector that `config` describes."""

    def __init__(self, config: CenterPointConfig) -> None:
        super().__init__(config)
        self.image_backbone = None
        self.bev_branch = None  # of cameras; the LiDAR's is the whole network
        self.lidar_branch = LidarBranch(config.branch, POINT_CHANNELS)
        self.center_head = CenterHead(config.center_head, self.lidar_branch.out_channels)

    def forward(
        self,
        inputs: DetectorInputs,
        memory: SlotMemory,
        denoising: DenoisingQueries | None = None,
        plan: BevPoolPlan | None = None,
        with_instances: bool = True,
    ) -> Prediction:
        """One instant of a batch; nothing is remembered: the sweeps of the last half second come with the inputs.

        Raises ValueError for inputs without points.
        """
        if inputs.points is None:
            raise ValueError("a LiDAR detector needs inputs.points: load drives with their LiDAR sweeps")
        bev = self.encode(inputs.points)
        return Prediction(None, BevPrediction(bev, None), center=self.center_head(bev))

    def encode(self, clouds: Sequence[Tensor]) -> Tensor:
        """B clouds [P, 5] (x, y, z m of the working frame, intensity, age s) -> BEV map [B, C, Y, X]."""
        return self.lidar_branch(clouds)

    @torch.inference_mode()
    def step(
        self, frame: SurroundFrame, state: CenterState, with_bev_map: bool = True
    ) -> tuple[DetectorOutput, CenterState]:
        """One frame of one vehicle: see `Detector.step`. Raises ConfigError for a frame without points."""
        self.check_mode()
        if frame.points is None:
            raise ConfigError(
                f"{self.config.name} reads LiDAR, and the frame holds no points: run it on recordings whose rig names "
                "lidar_topics (`dualview evaluate`, `dualview draw`)"
            )
        clock, config = StepClock(self.device), self.config
        points = moved_cloud(frame.points.to(self.device), config.working_from_ego_matrix)
        clock.tick("inputs")
        clock.tick("image_encoder")  # there is none
        with self.mixed():
            bev = self.encode([points])
            clock.tick("bev")
            center = self.center_head(bev)
        tracked, tracks = self.find_tracks(center, config.branch.grid, frame, state.tracks)
        clock.tick("decoder")
        seen = seen_by_cameras(
            tracked.boxes.center, frame.image_from_ego_anchor(), frame.camera_mask, frame.image_size
        )
        bev_map = None
        if with_bev_map:
            grid = config.branch.grid
            everywhere = torch.ones(grid.rows, grid.columns, dtype=torch.bool)  # LiDAR looks all around
            bev_map = bev_map_in_ego(bev[0].float().cpu(), grid, everywhere, config.working_from_ego_matrix)
        clock.tick("output")
        output = DetectorOutput(tracked.boxes, tracked.age, seen.sum(0), bev_map, StepTimes(**clock.seconds))
        return output, CenterState(None, tracks)
