"""Everything that makes a detector what it is; it travels as JSON beside the weights."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch

from dualview.detectors.detector import CameraMap
from dualview.detectors.greedy_tracker import GreedyTrackingConfig
from dualview.detectors.json_config import from_dict
from dualview.detectors.oracle import OracleConfig
from dualview.detectors.settings_base import IDENTITY, BackboneConfig, CameraSettings, Matrix4
from dualview.errors import ConfigError
from dualview.geometry.bev_grid import BevGrid
from dualview.networks.bev_branch import BevBranchConfig
from dualview.networks.center_head import CenterHeadConfig
from dualview.networks.decoder_config import DecoderConfig
from dualview.scene.sweeps import LidarInput

NUSCENES_CLASSES = (
    "car", "truck", "construction_vehicle", "bus", "trailer",
    "barrier", "motorcycle", "bicycle", "pedestrian", "traffic_cone",
)  # fmt: skip
NUSCENES_CAMERAS = (
    "CAM_FRONT", "CAM_FRONT_RIGHT", "CAM_FRONT_LEFT", "CAM_BACK", "CAM_BACK_LEFT", "CAM_BACK_RIGHT",
)  # fmt: skip
ARGOVERSE2_CAMERAS = (
    "ring_front_center", "ring_front_right", "ring_front_left", "ring_side_right", "ring_side_left", "ring_rear_right",
    "ring_rear_left",
)  # fmt: skip


@dataclass(frozen=True)
class DetectorConfig(CameraSettings):
    """A detector, from pixels to tracks.

    name: of the preset that it comes from. image_size: (height, width) px that the network works at. bev
    None: perspective view only. neck_blocks: residual blocks on each pyramid level, fine to coarse.
    dense_depth_levels: pyramid levels with an auxiliary depth output (0 = none). center_head: a dense head
    on the BEV map, an auxiliary task whose peaks may start instances (None = none). class_names: what the
    labels mean. track_threshold: class probability at which an instance with an id is reported. max_tracks:
    the most that are reported. camera_names: the rig that it was trained on, for information. oracle: what
    the BEV map is made of in place of images (None: of images). working_from_ego: the frame inside the
    network, for imported weights that were trained in another frame than the ego frame (rigid, 4x4). tracking: None lets
    instances carry their ids, as published, which takes long training; else ids come from CenterPoint's greedy tracker, which
    asks for good velocities only.
    """

    name: str
    image_size: tuple[int, int] = (256, 704)
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    neck_blocks: tuple[int, ...] = ()
    bev: BevBranchConfig | None = field(default_factory=BevBranchConfig)
    oracle: OracleConfig | None = None
    dense_depth_levels: int = 3
    center_head: CenterHeadConfig | None = None
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    class_names: tuple[str, ...] = NUSCENES_CLASSES
    track_threshold: float = 0.2
    max_tracks: int = 300
    tracking: GreedyTrackingConfig | None = None
    camera_names: tuple[str, ...] = ()
    working_from_ego: Matrix4 = IDENTITY
    format: Literal["dualview-detector-1"] = "dualview-detector-1"
    score_keys: ClassVar[tuple[str, ...]] = ("track_threshold", "decoder.id_threshold")

    def __post_init__(self) -> None:
        largest = max(self.backbone.strides)
        if any(edge % largest for edge in self.image_size):
            raise ValueError(
                f"image_size {self.image_size} must be a multiple of the backbone's largest stride {largest}"
            )
        if self.decoder.num_levels != len(self.backbone.strides):
            raise ValueError(
                f"decoder.num_levels is {self.decoder.num_levels} "
                f"but the backbone has {len(self.backbone.strides)} strides"
            )
        if self.decoder.class_count != len(self.class_names):
            raise ValueError(
                f"decoder.class_count is {self.decoder.class_count} for {len(self.class_names)} class_names"
            )
        if self.decoder.use_bev != (self.bev is not None):
            raise ValueError("decoder.use_bev must be true with a bev section and false without")
        if self.center_head is not None:
            if self.bev is None:
                raise ValueError("center_head needs a BEV map: it can't stand without a bev section")
            if self.center_head.proposals >= self.decoder.num_anchors:
                raise ValueError(
                    f"center_head.proposals {self.center_head.proposals} must be fewer than decoder.num_anchors "
                    f"{self.decoder.num_anchors}: some anchors are learned"
                )
            labels = {label for task in self.center_head.tasks for label in task}
            if not labels <= set(range(len(self.class_names))):
                raise ValueError(
                    f"center_head.tasks names class {max(labels)} of {len(self.class_names)} classes"
                )
            if self.center_head.evidence and len(labels) < len(self.class_names):
                raise ValueError(
                    f"center_head.evidence needs a heatmap of every class: center_head.tasks holds {len(labels)} of "
                    f"{len(self.class_names)}"
                )
        if self.bev is not None and self.bev.image_stride not in self.backbone.strides:
            raise ValueError(
                f"bev.image_stride {self.bev.image_stride} is none of the strides {self.backbone.strides}"
            )
        if not 0 <= self.dense_depth_levels <= len(self.backbone.strides):
            raise ValueError(f"dense_depth_levels must lie between 0 and {len(self.backbone.strides)}")
        matrix = self.working_from_ego_matrix
        if not torch.allclose(matrix[:3, :3] @ matrix[:3, :3].T, torch.eye(3, dtype=matrix.dtype), atol=1e-4):
            raise ValueError("working_from_ego must be a rigid transform: its rotation is not orthonormal")
        if self.oracle is not None and self.bev is None:
            raise ValueError("oracle stands for the BEV map of the cameras: it needs a bev section")
        if self.bev is not None and self.working_from_ego != IDENTITY:
            raise ValueError(
                "a BEV map lies in the ego frame: working_from_ego must be the identity with a bev section"
            )

    # What any detector's settings tell (see detector.py).

    @property
    def bev_grid(self) -> BevGrid | None:
        """The grid of the BEV map."""
        return None if self.bev is None else self.bev.grid

    @property
    def lift(self) -> BevBranchConfig | None:
        """Where depth is predicted for the lift, to be supervised."""
        return self.bev if self.oracle is None else None

    @property
    def lidar(self) -> LidarInput | None:
        """Cameras only, but for oracles."""
        return None if self.oracle is None else self.oracle.lidar

    @property
    def camera_map(self) -> CameraMap | None:
        """The BEV map; an oracle's isn't made of images."""
        if self.bev is None or self.oracle is not None:
            return None
        return CameraMap(self.bev.grid, self.decoder.embed_dims, self.bev)

    @staticmethod
    def from_json(text: str) -> DetectorConfig:
        """The config that `to_json` wrote. Raises ConfigError, naming the wrong key and the one that was
        likely meant.
        """
        try:
            values = json.loads(text)
        except json.JSONDecodeError as error:
            raise ConfigError(f"a detector's config isn't JSON: {error}") from error
        return from_dict(DetectorConfig, values)
