"""A small ring of cameras and instances around it, for tests."""

import math

import torch

from dualview.networks.perspective_aggregation import CameraViews

BATCH, DIMS, FOCAL = 2, 16, 40.0
IMAGE_SIZE = (48, 80)


def ring_views(cameras: int = 3, seed: int = 0, dims: int = DIMS) -> CameraViews:
    """Cameras at the origin, looking evenly around (the first along +x), with two levels of random features."""
    generator = torch.Generator().manual_seed(seed)
    height, width = IMAGE_SIZE
    intrinsics = torch.tensor([[FOCAL, 0.0, width / 2], [0.0, FOCAL, height / 2], [0.0, 0.0, 1.0]])
    projection = torch.eye(4).repeat(cameras, 1, 1)
    for camera in range(cameras):
        yaw = 2 * math.pi * camera / cameras
        right, down = (math.sin(yaw), -math.cos(yaw), 0.0), (0.0, 0.0, -1.0)
        forward = (math.cos(yaw), math.sin(yaw), 0.0)
        projection[camera, :3, :3] = intrinsics @ torch.tensor([right, down, forward])
    features = [
        torch.randn(BATCH, cameras, dims, height // stride, width // stride, generator=generator)
        for stride in (8, 16)
    ]
    return CameraViews(features, projection.expand(BATCH, -1, -1, -1), IMAGE_SIZE)


def anchors(count: int, seed: int = 3) -> torch.Tensor:
    """Box states [BATCH, count, 11] within 30 m."""
    generator = torch.Generator().manual_seed(seed)
    state = torch.randn(BATCH, count, 11, generator=generator) * 0.3
    state[..., :2] = torch.rand(BATCH, count, 2, generator=generator) * 60 - 30
    return state
