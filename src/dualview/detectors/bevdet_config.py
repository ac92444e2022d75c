"""What a detector of the BEVDet family is made of."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from dualview.detectors.center_decoding import CenterDecodingConfig
from dualview.detectors.config import NUSCENES_CLASSES, BackboneConfig
from dualview.detectors.detector import CameraMap
from dualview.detectors.greedy_tracker import GreedyTrackingConfig
from dualview.detectors.quarter_turn import check_working_frame
from dualview.detectors.settings_base import IDENTITY, CameraSettings, Matrix4
from dualview.geometry.bev_grid import BevGrid
from dualview.networks.bevdet_branch import BevDetBranchConfig
from dualview.networks.center_head import CenterHeadConfig


@dataclass(frozen=True)
class BevDetConfig(CameraSettings):
    """From pixels to tracks.

    backbone: its finest map is lifted, after a pyramid of `neck_channels` over all its maps, and `neck_blocks` residual blocks (none as
    published). bev: depth, history and
    BEV encoder. center_head: the boxes. track_threshold: score at which a box is reported and tracked. working_from_ego: the frame
    of the map and of the boxes that the network sees (4x4; quarter turns about z and shifts only, so that the map stays a grid of the ego
    frame), such as nuScenes' LIDAR_TOP. The rest as in `DetectorConfig`.
    """

    name: str
    image_size: tuple[int, int] = (256, 704)
    backbone: BackboneConfig = field(default_factory=lambda: BackboneConfig("resnet50", (16, 32)))
    neck_channels: int = 512
    neck_blocks: int = 0
    bev: BevDetBranchConfig = field(default_factory=BevDetBranchConfig)
    center_head: CenterHeadConfig = field(default_factory=CenterHeadConfig)
    decoding: CenterDecodingConfig = field(default_factory=lambda: CenterDecodingConfig("rotate"))
    tracking: GreedyTrackingConfig = field(default_factory=GreedyTrackingConfig)
    class_names: tuple[str, ...] = NUSCENES_CLASSES
    track_threshold: float = 0.1
    max_tracks: int = 300
    camera_names: tuple[str, ...] = ()
    working_from_ego: Matrix4 = IDENTITY
    format: Literal["dualview-bevdet-1"] = "dualview-bevdet-1"
    score_keys: ClassVar[tuple[str, ...]] = ("track_threshold",)

    def __post_init__(self) -> None:
        largest = max(self.backbone.strides)
        if any(edge % largest for edge in self.image_size):
            raise ValueError(
                f"image_size {self.image_size} must be a multiple of the backbone's largest stride {largest}"
            )
        if self.bev.image_stride != min(self.backbone.strides):
            raise ValueError(
                f"bev.image_stride {self.bev.image_stride} must be the finest of the strides {self.backbone.strides}"
            )
        check_tasks(self.center_head, self.class_names)
        check_reported(self.track_threshold, self.max_tracks)
        check_working_frame(self.working_from_ego_matrix)

    # What any detector's settings tell (see detector.py).

    @property
    def decoder(self) -> None:
        """There are no instances."""
        return None

    @property
    def bev_grid(self) -> BevGrid | None:
        """The grid of the BEV map."""
        return self.bev.grid

    @property
    def lift(self) -> BevDetBranchConfig | None:
        """Where depth is predicted, if it shall be supervised: plain BEVDet's isn't."""
        return self.bev if self.bev.camera_aware else None

    @property
    def camera_map(self) -> CameraMap:
        """The BEV map; a teacher may supervise plain BEVDet's depth too."""
        return CameraMap(self.bev.grid, self.bev.out_channels, self.bev)


def check_reported(track_threshold: float, max_tracks: int) -> None:
    """Raises ValueError if nothing could ever be reported."""
    if not 0 <= track_threshold < 1:
        raise ValueError(f"track_threshold {track_threshold} must be a score, from 0 to below 1")
    if max_tracks < 1:
        raise ValueError(f"max_tracks {max_tracks} must be at least 1")


def check_tasks(head: CenterHeadConfig, class_names: tuple[str, ...]) -> None:
    """Raises ValueError if the head's tasks don't hold exactly the classes."""
    labels = sorted(label for task in head.tasks for label in task)
    if labels != list(range(len(class_names))):
        raise ValueError(
            f"center_head.tasks {head.tasks} must hold the labels of all {len(class_names)} class_names once each"
        )
    if head.proposals or head.evidence:
        raise ValueError(
            "center_head.proposals and center_head.evidence are for instances, which this detector doesn't have: set them to 0 and false"
        )
