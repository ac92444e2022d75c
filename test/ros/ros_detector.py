"""The smallest complete detector, for tests of ROS processes: a checkpoint that steps in a few milliseconds."""

from __future__ import annotations

from pathlib import Path

from dualview.detectors.bevdet_config import BevDetConfig
from dualview.detectors.center_decoding import CenterDecodingConfig
from dualview.detectors.checkpoint import build_detector, save_checkpoint
from dualview.detectors.config import BackboneConfig, DetectorConfig
from dualview.geometry.bev_grid import BevGrid
from dualview.networks.anchor_encoder import AnchorEncoderConfig
from dualview.networks.bev_branch import BevBranchConfig
from dualview.networks.bev_history import BevHistoryConfig
from dualview.networks.bevdet_branch import BevDetBranchConfig
from dualview.networks.center_head import CenterHeadConfig
from dualview.networks.decoder_config import DecoderConfig
from dualview.networks.lift_splat import DepthBins


def save_smallest_detector(path: Path, image_size: tuple[int, int] = (64, 128)) -> Path:
    """Random weights; the default thresholds stand, so that tests must lower them by parameter to see tracks."""
    config = DetectorConfig(
        name="smallest",
        image_size=image_size,
        backbone=BackboneConfig("resnet18", (8, 16), widths=(4, 4)),
        bev=BevBranchConfig(
            grid=BevGrid.centered(24.0, 2.0), depth_bins=DepthBins(1.0, 31.0, 2.0), image_stride=16, depth_channels=8,
            depth_blocks=1, pooled_context=False, deformable=False, context_channels=8, preprocess_blocks=0,
            encoder_channels=(8, 8), encoder_strides=(1, 2), encoder_blocks=(1, 1),
        ),
        dense_depth_levels=0,
        decoder=DecoderConfig(
            embed_dims=32, num_groups=4, num_levels=2, num_anchors=24, num_temporal=12, num_layers=2, feedforward_dims=32,
            attention_heads=4, anchor_encoder=AnchorEncoderConfig((16, 4, 4, 8)), class_count=3,
        ),
        class_names=("car", "truck", "pedestrian"),
    )  # fmt: skip
    save_checkpoint(build_detector(config, seed=3), path)
    return path


def save_smallest_student(path: Path, image_size: tuple[int, int] = (64, 128)) -> Path:
    """The smallest BEVDepth4D: another network, another memory and another tracker behind the same doors."""
    config = BevDetConfig(
        name="smallest-student",
        image_size=image_size,
        backbone=BackboneConfig("resnet18", (16, 32), widths=(4, 4)),
        neck_channels=16,
        bev=BevDetBranchConfig(
            grid=BevGrid.centered(24.0, 2.0), depth_bins=DepthBins(1.0, 31.0, 2.0), camera_aware=True, depth_channels=8,
            depth_blocks=1, pooled_context=False, deformable=False, context_channels=8, prepare_blocks=1,
            history=BevHistoryConfig(frames=1, interval=0.0, scales=2), interval_channel=True,
            encoder_channels=(8, 8, 8), encoder_blocks=(1, 1, 1), out_channels=8,
        ),
        center_head=CenterHeadConfig(((0, 1), (2,)), 8, 8),
        decoding=CenterDecodingConfig("circle", candidates=40, per_task=10),
        class_names=("car", "truck", "pedestrian"),
    )  # fmt: skip
    save_checkpoint(build_detector(config, seed=3), path)
    return path
