"""Presets of BEVFormer: as published, and for a CPU."""

from __future__ import annotations

from dualview.detectors.bevformer_config import BevFormerDetectorConfig
from dualview.detectors.config import NUSCENES_CAMERAS, BackboneConfig
from dualview.geometry.bev_grid import POINT_HEIGHTS, BevGrid
from dualview.networks.bevformer_config import BevFormerConfig


def bevformer_tiny() -> BevFormerDetectorConfig:
    """BEVFormer-tiny's published sizes, in the ego frame and without the published code's faults."""
    network = BevFormerConfig(grid=BevGrid.centered(51.2, 2.048, *POINT_HEIGHTS))  # -5 to 3 m about the LiDAR as published
    return BevFormerDetectorConfig(name="bevformer-tiny", network=network, camera_names=NUSCENES_CAMERAS)


def bevformer_lite() -> BevFormerDetectorConfig:
    """For CPUs: small images, EfficientNet-Lite0 at strides 8 and 16, and no camera embeddings, so that any rig will do."""
    return BevFormerDetectorConfig(
        name="bevformer-lite",
        image_size=(128, 352),
        backbone=BackboneConfig("tf_efficientnet_lite0", (8, 16)),
        network=BevFormerConfig(
            embed_dims=128,
            grid=BevGrid.centered(51.2, 2.56, *POINT_HEIGHTS),
            encoder_layers=2,
            decoder_layers=3,
            feedforward_dims=256,
            num_levels=2,
            num_queries=200,
            camera_count=None,
        ),
        camera_names=NUSCENES_CAMERAS,
    )
