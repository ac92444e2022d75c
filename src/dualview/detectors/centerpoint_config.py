"""What a LiDAR detector is made of."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from dualview.detectors.bevdet_config import check_reported, check_tasks
from dualview.detectors.center_decoding import CenterDecodingConfig
from dualview.detectors.config import NUSCENES_CLASSES
from dualview.detectors.greedy_tracker import GreedyTrackingConfig
from dualview.detectors.quarter_turn import check_working_frame
from dualview.detectors.settings_base import IDENTITY, Matrix4, SettingsBase
from dualview.geometry.bev_grid import BevGrid
from dualview.networks.center_head import CenterHeadConfig
from dualview.networks.lidar_branch import LidarBranchConfig
from dualview.scene.sweeps import LidarInput


@dataclass(frozen=True)
class CenterPointConfig(SettingsBase):
    """From clouds to tracks.

    sweeps: what of the LiDAR is joined. branch: from cloud to BEV map. image_size: (height, width) px at which a frame's
    images are kept; the network doesn't look at them, so it should be that of the cameras' detectors, which then share
    stored drives. The rest as in `BevDetConfig`.
    """

    name: str
    sweeps: LidarInput = field(default_factory=LidarInput)
    branch: LidarBranchConfig = field(default_factory=LidarBranchConfig)
    center_head: CenterHeadConfig = field(default_factory=CenterHeadConfig)
    decoding: CenterDecodingConfig = field(default_factory=CenterDecodingConfig)
    tracking: GreedyTrackingConfig = field(default_factory=GreedyTrackingConfig)
    class_names: tuple[str, ...] = NUSCENES_CLASSES
    track_threshold: float = 0.1
    max_tracks: int = 300
    image_size: tuple[int, int] = (128, 352)
    camera_names: tuple[str, ...] = ()
    working_from_ego: Matrix4 = IDENTITY
    format: Literal["dualview-centerpoint-1"] = "dualview-centerpoint-1"
    score_keys: ClassVar[tuple[str, ...]] = ("track_threshold",)

    def __post_init__(self) -> None:
        check_tasks(self.center_head, self.class_names)
        check_reported(self.track_threshold, self.max_tracks)
        check_working_frame(self.working_from_ego_matrix)

    # What any detector's settings tell (see detector.py).

    @property
    def image_backbone_name(self) -> str | None:
        """Images aren't looked at."""
        return None

    @property
    def pyramid_strides(self) -> tuple[int, ...]:
        """Images aren't looked at."""
        return ()

    @property
    def decoder(self) -> None:
        """There are no instances."""
        return None

    @property
    def bev_grid(self) -> BevGrid | None:
        """The grid of the BEV map."""
        return self.branch.grid

    @property
    def lift(self) -> None:
        """Nothing is lifted."""
        return None

    @property
    def lidar(self) -> LidarInput | None:
        """The sweeps of a frame."""
        return self.sweeps
