"""Small detectors of the BEVDet family for the detector tests."""

from __future__ import annotations

from dataclasses import replace

from dualview.detectors.bevdet_config import BevDetConfig
from dualview.detectors.center_decoding import CenterDecodingConfig
from dualview.detectors.config import BackboneConfig
from dualview.geometry.bev_grid import BevGrid
from dualview.networks.bev_history import BevHistoryConfig
from dualview.networks.bevdet_branch import BevDetBranchConfig
from dualview.networks.center_head import CenterHeadConfig
from dualview.networks.lift_splat import DepthBins

HISTORY = BevHistoryConfig(frames=1, interval=0.0, scales=2)


def small_bevdet(camera_aware: bool = False, temporal: bool = False) -> BevDetConfig:
    """A member of the family that steps in a few milliseconds and reports its 20 best boxes, whatever their score."""
    branch = BevDetBranchConfig(
        grid=BevGrid.centered(24.0, 2.0), depth_bins=DepthBins(1.0, 31.0, 2.0), depth_channels=8, depth_blocks=1,
        pooled_context=False, deformable=False, context_channels=8, encoder_channels=(8, 8, 8), encoder_blocks=(1, 1, 1),
        out_channels=8, camera_aware=camera_aware,
    )  # fmt: skip
    if temporal:
        branch = replace(branch, history=HISTORY, prepare_blocks=1, interval_channel=True)
    return BevDetConfig(
        name="small-bevdet", image_size=(64, 96), backbone=BackboneConfig("resnet18", (16, 32), widths=(8, 8)),
        neck_channels=16, bev=branch,
        center_head=CenterHeadConfig(((0, 1), (2,)), shared_channels=8, branch_channels=8),
        decoding=CenterDecodingConfig("circle", candidates=40, per_task=10), class_names=("car", "truck", "pedestrian"),
        track_threshold=0.0,
    )  # fmt: skip


FAMILY = {
    "bevdet": (False, False), "bevdet4d": (False, True), "bevdepth": (True, False), "bevdepth4d": (True, True),
}  # fmt: skip
