"""Presets of the BEVDet family: BEVDet, BEVDet4D, BEVDepth, BEVDepth4D, each for a CPU and as published."""

from __future__ import annotations

from dataclasses import replace

from dualview.detectors.bevdet_config import BevDetConfig
from dualview.detectors.center_decoding import CenterDecodingConfig
from dualview.detectors.config import NUSCENES_CAMERAS, BackboneConfig
from dualview.geometry.bev_grid import BevGrid
from dualview.networks.bev_history import BevHistoryConfig
from dualview.networks.bevdet_branch import BevDetBranchConfig
from dualview.networks.center_head import CenterHeadConfig
from dualview.networks.lift_splat import DepthBins

_LAST_FRAME = BevHistoryConfig(frames=1, interval=0.0, scales=2)
# Half a second back, as in training on keyframes, at any rate of the cameras: its age varies by 0.08 s and a frame.
_LAST_KEYFRAME = BevHistoryConfig(frames=1, interval=0.45, scales=2, kept_per_interval=6)


def bevdet_tiny() -> BevDetConfig:
    """For CPUs; an EfficientNet-Lite0 at stride 16 and 32."""
    return BevDetConfig(
        name="bevdet-tiny",
        image_size=(128, 352),
        backbone=BackboneConfig("tf_efficientnet_lite0", (16, 32)),
        neck_channels=128,
        bev=BevDetBranchConfig(
            grid=BevGrid.centered(51.2, 0.8, -10.0, 10.0),
            depth_bins=DepthBins(1.0, 55.0, 1.0),
            depth_channels=64,
            depth_blocks=1,
            pooled_context=False,
            deformable=False,
            context_channels=48,
            encoder_channels=(48, 96, 128),
            encoder_blocks=(1, 1, 1),
            out_channels=96,
        ),
        center_head=CenterHeadConfig(shared_channels=48, branch_channels=32),
        decoding=CenterDecodingConfig("circle"),
        camera_names=NUSCENES_CAMERAS,
    )


def bevdet_r50() -> BevDetConfig:
    """BEVDet as published with a ResNet-50: exact geometry instead of its rounding."""
    return BevDetConfig(name="bevdet-r50", max_tracks=500, camera_names=NUSCENES_CAMERAS)


def bevdepth_r50() -> BevDetConfig:
    """BEVDepth's depth network, bins (2 to 58 m), height (-5 to 3 m) and suppression by distance, with BEVDet's encoder."""
    config = bevdet_r50()
    lift = replace(
        config.bev, camera_aware=True, depth_bins=DepthBins(2.0, 58.0, 0.5), context_channels=80,
        grid=BevGrid.centered(51.2, 0.8, -5.0, 3.0),
    )  # fmt: skip
    return replace(config, name="bevdepth-r50", bev=lift, decoding=CenterDecodingConfig("circle"))


def with_camera(config: BevDetConfig, name: str) -> BevDetConfig:
    """The same with a depth network that knows the camera, supervised by LiDAR."""
    return replace(config, name=name, bev=replace(config.bev, camera_aware=True))


def with_history(
    config: BevDetConfig, name: str, history: BevHistoryConfig, blocks: int, tell_interval: bool
) -> BevDetConfig:
    """The same with the previous map beside the present one."""
    bev = replace(config.bev, history=history, prepare_blocks=blocks, interval_channel=tell_interval)
    return replace(config, name=name, bev=bev)


def bevdet4d_tiny() -> BevDetConfig:
    """The last frame's map, whenever it was; its age is told."""
    return with_history(bevdet_tiny(), "bevdet4d-tiny", _LAST_FRAME, 1, True)


def bevdet4d_r50() -> BevDetConfig:
    """The last keyframe's map, half a second back."""
    return with_history(bevdet_r50(), "bevdet4d-r50", _LAST_KEYFRAME, 2, False)


def bevdepth_tiny() -> BevDetConfig:
    """BEVDet-tiny with a camera-aware depth network."""
    return with_camera(bevdet_tiny(), "bevdepth-tiny")


def bevdepth4d_tiny() -> BevDetConfig:
    """Both."""
    return with_history(bevdepth_tiny(), "bevdepth4d-tiny", _LAST_FRAME, 1, True)


def bevdepth4d_r50() -> BevDetConfig:
    """BEVDepth with two keyframes, whose maps meet as they were lifted."""
    return with_history(bevdepth_r50(), "bevdepth4d-r50", _LAST_KEYFRAME, 0, False)
