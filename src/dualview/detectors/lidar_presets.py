"""Presets of LiDAR detectors: CenterPoint with pillars or voxels, and a small one that a CPU trains."""

from __future__ import annotations

from dualview.detectors.center_decoding import CenterDecodingConfig
from dualview.detectors.centerpoint_config import CenterPointConfig
from dualview.detectors.config import NUSCENES_CAMERAS
from dualview.geometry.bev_grid import POINT_HEIGHTS, BevGrid
from dualview.networks.center_head import CenterHeadConfig
from dualview.networks.lidar_branch import LidarBranchConfig
from dualview.scene.sweeps import LidarInput


def centerpoint_tiny() -> CenterPointConfig:
    """Pillars of 0.4 m, five sweeps, half the width."""
    # A little over half a second, so that of a LiDAR at 2 Hz the sweep before the present one counts whatever its jitter.
    return CenterPointConfig(
        name="centerpoint-tiny",
        sweeps=LidarInput(5, 0.55),
        branch=LidarBranchConfig(
            grid=BevGrid.centered(51.2, 0.8, *POINT_HEIGHTS),
            voxel=0.4,
            max_points=32,  # pillars of 0.4 m hold more than the published 20 of 0.2 m
            max_voxels=(16000, 20000),
            features=(32,),
            channels=(32, 64, 96),
            layers=(2, 3, 3),
            strides=(2, 2, 2),
            pyramid_channels=(48, 48, 48),
        ),
        center_head=CenterHeadConfig(shared_channels=48, branch_channels=32),
        camera_names=NUSCENES_CAMERAS,
    )


def centerpoint_pillar() -> CenterPointConfig:
    """Pillars of 0.2 m as published."""
    return CenterPointConfig(
        name="centerpoint-pillar", image_size=(256, 704), max_tracks=500, camera_names=NUSCENES_CAMERAS
    )


def centerpoint_voxel() -> CenterPointConfig:
    """Voxels of 0.1 m as published: the teacher of TiG-BEV and RayD3D. Needs spconv."""
    return CenterPointConfig(
        name="centerpoint-voxel",
        branch=LidarBranchConfig(
            encoder="voxels",
            voxel=0.1,
            voxel_height=0.2,
            max_points=10,
            max_voxels=(90000, 120000),
            features=(16, 32, 64, 128),
            channels=(128, 256),
            layers=(5, 5),
            strides=(1, 2),
            pyramid_channels=(256, 256),
        ),
        decoding=CenterDecodingConfig("circle"),
        max_tracks=500,
        image_size=(256, 704),
        camera_names=NUSCENES_CAMERAS,
    )
