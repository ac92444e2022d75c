"""The settings of a BEVFormer, from pixels to tracks; they travel as JSON beside the weights."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from dualview.detectors.config import NUSCENES_CLASSES, BackboneConfig
from dualview.detectors.detector import CameraMap
from dualview.detectors.greedy_tracker import GreedyTrackingConfig
from dualview.detectors.quarter_turn import check_working_frame
from dualview.detectors.settings_base import IDENTITY, CameraSettings, Matrix4
from dualview.geometry.bev_grid import BevGrid
from dualview.networks.bev_branch import BevBranchConfig
from dualview.networks.bevformer_config import BevFormerConfig
from dualview.networks.center_head import CenterHeadConfig
from dualview.networks.decoder_config import DecoderConfig


@dataclass(frozen=True)
class BevFormerDetectorConfig(CameraSettings):
    """A BEVFormer; the defaults are BEVFormer-tiny's.

    name: of the preset that it comes from. image_size: (height, width) px of its images, which are padded
    with zeros below and to the right to multiples of `pad_to`. network: the transformer. class_names: what
    the labels mean. tracking: of the boxes that are reported. track_threshold: class probability at which a
    box is reported; max_tracks: the most that are. center_range: |x|, |y|, |z| (m, working frame) beyond
    which boxes are dropped. camera_names: the rig that it was trained on, in the order of the camera
    embeddings. working_from_ego: the frame inside the network (4x4; quarter turns about z and shifts only, so
    that the BEV map stays a grid of the ego frame).
    """

    name: str
    image_size: tuple[int, int] = (450, 800)
    pad_to: int = 32
    backbone: BackboneConfig = field(default_factory=lambda: BackboneConfig("resnet50", (32,)))
    network: BevFormerConfig = field(default_factory=BevFormerConfig)
    class_names: tuple[str, ...] = NUSCENES_CLASSES
    tracking: GreedyTrackingConfig = field(default_factory=GreedyTrackingConfig)
    track_threshold: float = 0.2
    max_tracks: int = 300
    center_range: tuple[float, float, float] = (61.2, 61.2, 10.0)
    camera_names: tuple[str, ...] = ()
    working_from_ego: Matrix4 = IDENTITY
    format: Literal["dualview-bevformer-1"] = "dualview-bevformer-1"
    score_keys: ClassVar[tuple[str, ...]] = ("track_threshold",)

    def __post_init__(self) -> None:
        if self.network.num_levels != len(self.backbone.strides):
            raise ValueError(
                f"network.num_levels is {self.network.num_levels} but the backbone has {len(self.backbone.strides)} strides"
            )
        if self.network.class_count != len(self.class_names):
            raise ValueError(
                f"network.class_count is {self.network.class_count} for {len(self.class_names)} class_names"
            )
        if self.pad_to % max(self.backbone.strides):
            raise ValueError(
                f"pad_to {self.pad_to} must be a multiple of the largest stride {max(self.backbone.strides)}"
            )
        check_working_frame(self.working_from_ego_matrix)

    @property
    def padded_size(self) -> tuple[int, int]:
        """(height, width) px of the padded images."""
        height, width = (-(-edge // self.pad_to) * self.pad_to for edge in self.image_size)
        return height, width

    # What any detector's settings tell (see detector.py).

    @property
    def decoder(self) -> DecoderConfig | None:
        """It has no anchors and no instance memory."""
        return None

    @property
    def center_head(self) -> CenterHeadConfig | None:
        """It has none."""
        return None

    @property
    def bev_grid(self) -> BevGrid | None:
        """The grid of the BEV map, in the working frame."""
        return self.network.grid

    @property
    def lift(self) -> BevBranchConfig | None:
        """Nothing is lifted: no depth is predicted."""
        return None

    @property
    def camera_map(self) -> CameraMap:
        """The BEV map."""
        return CameraMap(self.network.grid, self.network.embed_dims, None)
