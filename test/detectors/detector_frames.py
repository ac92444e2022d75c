"""Small detectors and frames for the detector tests."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from dualview.detectors.config import BackboneConfig, DetectorConfig
from dualview.geometry.bev_grid import BevGrid
from dualview.networks.anchor_encoder import AnchorEncoderConfig
from dualview.networks.bev_branch import BevBranchConfig
from dualview.networks.decoder_config import DecoderConfig
from dualview.networks.lift_splat import DepthBins
from dualview.scene.frame import SurroundFrame

START_NS = 1_700_000_000_000_000_000


def small_config(**changes) -> DetectorConfig:
    """A complete detector that steps in a few milliseconds and reports every instance, whatever its score."""
    config = DetectorConfig(
        name="small",
        image_size=(64, 96),
        backbone=BackboneConfig("resnet18", (8, 16), widths=(8, 8)),
        bev=BevBranchConfig(
            grid=BevGrid.centered(24.0, 2.0), depth_bins=DepthBins(1.0, 31.0, 2.0), image_stride=16,
            depth_channels=8, depth_blocks=1, pooled_context=False, deformable=False, context_channels=8, preprocess_blocks=0,
            encoder_channels=(8, 8), encoder_strides=(1, 2), encoder_blocks=(1, 1),
        ),
        dense_depth_levels=2,
        decoder=DecoderConfig(
            embed_dims=32, num_groups=4, num_levels=2, num_anchors=24, num_temporal=12, num_layers=3,
            feedforward_dims=32, attention_heads=4, anchor_encoder=AnchorEncoderConfig((16, 4, 4, 8)),
            id_threshold=0.0, class_count=3,
        ),
        class_names=("car", "truck", "pedestrian"),
        track_threshold=0.0,
    )  # fmt: skip
    return replace(config, **changes)


def perspective_only(config: DetectorConfig) -> DetectorConfig:
    return replace(config, bev=None, decoder=replace(config.decoder, use_bev=False))


def bev_only(config: DetectorConfig) -> DetectorConfig:
    return replace(config, decoder=replace(config.decoder, use_perspective=False))


def surround_frame(
    config: DetectorConfig,
    cameras: int = 3,
    seconds: float = 0.0,
    seed: int = 0,
    mask: list[bool] | None = None,
) -> SurroundFrame:
    """Noise images of a level ring of cameras on a vehicle that drives and turns; each camera fires 5 ms
    after the last one.
    """
    height, width = config.image_size
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(cameras, 3, height // 8, width // 8, generator=generator) * 255
    images = torch.nn.functional.interpolate(images, size=(height, width), mode="bilinear").to(torch.uint8)
    focal = width / 2 / math.tan(math.radians(35))
    intrinsics = torch.tensor([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]]).repeat(
        cameras, 1, 1
    )
    extrinsics = torch.stack(
        [ring_camera(2 * math.pi * i / max(cameras, 1)) for i in range(cameras)] or [torch.eye(4)]
    )
    stamp = START_NS + round(seconds * 1e9)
    stamps = stamp + torch.arange(cameras) * 5_000_000
    poses = torch.stack([ego_pose(float(s - START_NS) * 1e-9) for s in stamps] or [ego_pose(0.0)])
    return SurroundFrame(
        stamp, images, stamps, intrinsics, extrinsics[:cameras].float(), poses[:cameras], ego_pose(seconds),
        torch.tensor(mask if mask is not None else [True] * cameras, dtype=torch.bool),
        tuple(f"camera_{i}" for i in range(cameras)),
    )  # fmt: skip


def ring_camera(yaw: float) -> Tensor:
    """ego_from_camera [4, 4] (float64) of a level camera 1 m out of the centre, 1.5 m up, looking along `yaw`
    (rad).
    """
    c, s = math.cos(yaw), math.sin(yaw)
    return torch.tensor([[s, 0, c, c], [-c, 0, s, s], [0, -1, 0, 1.5], [0, 0, 0, 1]], dtype=torch.float64)


def ego_pose(seconds: float) -> Tensor:
    """world_from_ego [4, 4] of a vehicle at 8 m/s that turns by 0.1 rad/s, far from the world's origin."""
    yaw = 0.5 + 0.1 * seconds
    c, s = math.cos(yaw), math.sin(yaw)
    pose = torch.eye(4, dtype=torch.float64)
    pose[:2, :2] = torch.tensor([[c, -s], [s, c]])
    pose[:2, 3] = torch.tensor([4000.0 + 8 * seconds, 1000.0])
    return pose


def seen_from(frame: SurroundFrame, working_from_ego: torch.Tensor) -> SurroundFrame:
    """The same instant of a vehicle whose ego frame is the working frame."""
    ego_from_working = torch.linalg.inv(working_from_ego)
    points = frame.points
    if points is not None:
        homogeneous = torch.cat([points[:, :3].double(), torch.ones(len(points), 1, dtype=torch.float64)], 1)
        points = torch.cat([(homogeneous @ working_from_ego.T)[:, :3].float(), points[:, 3:]], 1)
    return replace(
        frame,
        ego_from_camera=(working_from_ego @ frame.ego_from_camera.double()).float(),
        world_from_ego=frame.world_from_ego @ ego_from_working,
        world_from_ego_anchor=frame.world_from_ego_anchor @ ego_from_working,
        points=points,
    )
