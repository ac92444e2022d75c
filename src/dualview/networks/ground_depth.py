"""Where the ground would be: for every feature pixel the depth at which its ray meets the plane z = 0 of the working frame.

A convolution doesn't know in which row of which camera it stands, but on a road that row nearly is the depth: what touches
the ground there is as far as the ground is. So the depth network is told, by numbers that follow from calibration alone
(extrinsics, focal length, image and BEV augmentation all lie in the projection matrix). An addition of this project to
BEVDepth's network, where the camera's numbers gate channels but are the same for all pixels.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_NEAREST, _FARTHEST = 2.0, 64.0  # m: first and last soft bin of depth
_SCALES = (5.0, 15.0, 40.0, 100.0)  # m: 1 / depth, squashed around such depths, on both sides of the horizon
_LOWEST = 0.2  # m: a camera in the ground would see it nowhere


def inverse_ground_depth(
    image_from_working: Tensor, image_size: tuple[int, int], feature_size: tuple[int, int]
) -> Tensor:
    """1 / (depth along the optical axis of the ground) [..., h, w], 1/m; 0 at the horizon, negative above it.

    image_from_working [..., 4, 4]; sizes (height, width) px. Pixels count from edges: feature pixel (0, 0) lies at half a
    stride.
    """
    height, width = feature_size
    inverse = torch.linalg.inv(image_from_working.double())
    v = (torch.arange(height, dtype=torch.float64, device=inverse.device) + 0.5) * (image_size[0] / height)
    u = (torch.arange(width, dtype=torch.float64, device=inverse.device) + 0.5) * (image_size[1] / width)
    row, camera_height = inverse[..., 2, :3, None, None], inverse[..., 2, 3, None, None].clamp(min=_LOWEST)
    # z = d (row . (u, v, 1)) + camera height = 0
    falling = row[..., 0, :, :] * u + row[..., 1, :, :] * v[:, None] + row[..., 2, :, :]
    return (-falling / camera_height).float()


def ground_features(
    image_from_working: Tensor, image_size: tuple[int, int], feature_size: tuple[int, int], count: int
) -> Tensor:
    """`count` numbers in -1..1 [..., count, h, w] that tell a network the depth of the ground at each feature pixel: soft bins,
    evenly spaced in ln depth, and four squashed multiples of 1 / depth.
    """
    inverse = inverse_ground_depth(image_from_working, image_size, feature_size)
    bins = count - len(_SCALES)
    centers = torch.linspace(math.log(_NEAREST), math.log(_FARTHEST), bins, device=inverse.device)
    width = float(centers[1] - centers[0])
    depth = -inverse.clamp(min=1e-4).log()  # ln m; the sky is very far
    soft = torch.exp(-0.5 * ((depth.unsqueeze(-3) - centers[:, None, None]) / width) ** 2)
    squashed = [torch.tanh(inverse * scale) for scale in _SCALES]
    return torch.cat([soft, torch.stack(squashed, -3)], -3)
