"""BEVDet, BEVDet4D, BEVDepth and BEVDepth4D: images lifted to a bird's-eye-view map, and boxes at the peaks of its
heatmap.

    images --> backbone --> pyramid --> depth x context --> splat --> prepare --+--> encoder --> centre head --> boxes
                                          |                                     |
                        BEVDepth: knows the camera,          the previous map, moved by the ego motion:
                        and LiDAR tells it the depth                BEVDet4D, BEVDepth4D

One network; which of the four it is, its configuration says (`bev.camera_aware`, `bev.history`). BEVDet: Huang et al.
2021 (arXiv 2112.11790); BEVDet4D: Huang & Huang 2022 (arXiv 2203.17054); BEVDepth: Li et al. 2023 (arXiv 2206.10092).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dualview.detectors.bevdet_config import BevDetConfig
from dualview.detectors.center_detector import CenterDetector, CenterState
from dualview.detectors.detector import StepClock, cells_seen, seen_by_cameras
from dualview.detectors.inputs import DetectorInputs, inputs_from_frames
from dualview.detectors.output import DetectorOutput, StepTimes
from dualview.detectors.prediction import Prediction
from dualview.detectors.quarter_turn import bev_map_in_ego
from dualview.detectors.state import SlotMemory
from dualview.networks.bev_history import BevHistory
from dualview.networks.bevdet_branch import BevDetBranch, BevDetOutput
from dualview.networks.center_head import CenterHead
from dualview.networks.denoising_queries import DenoisingQueries
from dualview.networks.depth_net import camera_vector
from dualview.networks.feature_pyramid import FeaturePyramid
from dualview.networks.image_backbone import ImageBackbone, backbone_maps
from dualview.networks.lift_splat import plan_lift
from dualview.ops.bev_pool import BevPoolPlan
from dualview.scene.frame import SurroundFrame


class BevDet(CenterDetector):
    """The member of the family that `config` describes."""

    takes_known_features = True

    def __init__(self, config: BevDetConfig) -> None:
        super().__init__(config)
        backbone = config.backbone
        self.image_backbone = ImageBackbone(
            backbone.name, backbone.strides, backbone.widths, backbone.recompute
        )
        self.feature_pyramid = FeaturePyramid(
            self.image_backbone.channels, config.neck_channels, outputs=1, blocks=(config.neck_blocks,)
        )
        self.bev_branch: BevDetBranch = BevDetBranch(config.bev, config.neck_channels)
        self.center_head = CenterHead(config.center_head, config.bev.out_channels)

    def forward(
        self,
        inputs: DetectorInputs,
        memory: SlotMemory,
        denoising: DenoisingQueries | None = None,
        plan: BevPoolPlan | None = None,
        with_instances: bool = True,
    ) -> Prediction:
        """One instant of a batch; `memory` is None or what the last instant's prediction holds."""
        features = self.encode_images(inputs.images, inputs.image_features)
        found = self.encode_bev(features, inputs, memory, plan)
        center = self.center_head(found.prediction.features)
        return Prediction(None, found.prediction, center=center, remembered=found.history)

    def encode_images(self, images: Tensor, known: Sequence[Tensor] | None = None) -> Tensor:
        """Normalised images [B, N, 3, H, W] -> the map that is lifted [B, N, C, h, w]. known: the backbone's maps of them
        [B, N, C_i, h_i, w_i], fine to coarse, if they are known already.
        """
        (finest,) = self.feature_pyramid(backbone_maps(self.image_backbone, images, known))
        return finest.unflatten(0, images.shape[:2])

    def bev_plan(self, inputs: DetectorInputs) -> BevPoolPlan:
        """Where the lift's frustum points fall; the same as long as projection matrices and masks are."""
        height, width = inputs.image_size
        stride = self.config.bev.image_stride
        return plan_lift(
            self.config.bev,
            inputs.image_from_working,
            inputs.camera_mask,
            (height, width),
            (height // stride, width // stride),
        )

    def encode_bev(
        self, features: Tensor, inputs: DetectorInputs, memory: SlotMemory, plan: BevPoolPlan | None = None
    ) -> BevDetOutput:
        """Lift, lay the previous map beside, encode."""
        vector = camera_vector(
            inputs.intrinsics, inputs.working_from_camera, inputs.image_augmentation, inputs.bev_augmentation
        )
        plan = self.bev_plan(inputs) if plan is None else plan
        history = memory if isinstance(memory, BevHistory) else None
        return self.bev_branch(features, vector, plan, inputs.stamps, inputs.world_from_working, history)

    @torch.inference_mode()
    def step(
        self, frame: SurroundFrame, state: CenterState, with_bev_map: bool = True
    ) -> tuple[DetectorOutput, CenterState]:
        """One frame of one vehicle: see `Detector.step`."""
        self.check_mode()
        clock, config = StepClock(self.device), self.config
        working_from_ego = config.working_from_ego_matrix
        inputs = inputs_from_frames([frame], config.image_size, working_from_ego, self.device)
        clock.tick("inputs")
        with self.mixed():
            features = self.encode_images(inputs.images)
            clock.tick("image_encoder")
            found = self.encode_bev(features, inputs, state.memory)
            clock.tick("bev")
            center = self.center_head(found.prediction.features)
        tracked, tracks = self.find_tracks(center, config.bev.grid, frame, state.tracks)
        clock.tick("decoder")
        seen = seen_by_cameras(
            tracked.boxes.transformed(working_from_ego).center,  # where the projections start
            inputs.image_from_working[0].cpu(),
            inputs.camera_mask[0].cpu(),
            frame.image_size,
        )
        bev = None
        if with_bev_map:
            valid = cells_seen(config.bev.grid, inputs, config.bev.depth_bins.stop)
            features = found.prediction.features[0].float().cpu()
            bev = bev_map_in_ego(features, config.bev.grid, valid, working_from_ego)
        clock.tick("output")
        output = DetectorOutput(tracked.boxes, tracked.age, seen.sum(0), bev, StepTimes(**clock.seconds))
        return output, CenterState(found.history, tracks)
