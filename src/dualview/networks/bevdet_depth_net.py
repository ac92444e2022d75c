"""The depth network of BEVDet's own BEVDepth (`ViewTransformerLSSBEVDepth`), on which TiG-BEV is built (Huang et al. 2022,
arXiv 2212.13979).

Lighter than BEVDepth's (`depth_net.py`): the context is one 1x1 convolution that the camera's numbers don't gate, the depth
branch has one gate of one linear layer, and a modulated deformable convolution at its end.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dualview.networks.bev_encoder import BevStages
from dualview.networks.depth_net import DeformableConvolution, DepthPrediction
from dualview.networks.weighted_norm import norm_rows

CAMERA_MATRIX_NUMBERS = 33


def camera_matrices(vector: Tensor) -> Tensor:
    """The 33 numbers [..., 33] of this network from the 27 [..., 27] of `depth_net.camera_vector`: intrinsics (9), linear part (9,
    as 3x3) and shift (3) of the image augmentation, rotation (9) and translation (3, m) from camera to the augmented working frame.
    """
    focal_x, focal_y, center_x, center_y = vector[..., :4].unbind(-1)
    image, bev = vector[..., 4:10].unflatten(-1, (2, 3)), vector[..., 10:15]
    pose = vector[..., 15:27].unflatten(-1, (3, 4))
    zero, one = torch.zeros_like(focal_x), torch.ones_like(focal_x)
    intrinsics = torch.stack([focal_x, zero, center_x, zero, focal_y, center_y, zero, zero, one], -1)
    corner = torch.stack([zero, zero, one], -1)
    linear = torch.cat([image[..., 0, :2], zero.unsqueeze(-1), image[..., 1, :2], zero.unsqueeze(-1), corner], -1)
    shift = torch.cat([image[..., 2], zero.unsqueeze(-1)], -1)
    upper = torch.stack([bev[..., 0], bev[..., 1], zero, bev[..., 2], bev[..., 3], zero], -1)
    turn = torch.cat([upper, zero.unsqueeze(-1), zero.unsqueeze(-1), bev[..., 4:5]], -1).unflatten(-1, (3, 3))
    moved = turn @ pose
    return torch.cat([intrinsics, linear, shift, moved[..., :3].flatten(-2), moved[..., 3]], -1)


class BevDetDepthNet(nn.Module):
    """Depth distribution and context for the lift. in_channels of the image features; mid_channels inside; bins = number of depth
    bins D; context_channels C; blocks: residual blocks of the depth branch (published: 3). deformable: the published modulated
    deformable convolution (Zhu et al. 2019, arXiv 1811.11168) with its norm.
    """

    def __init__(
        self,
        in_channels: int,
        mid_channels: int,
        bins: int,
        context_channels: int,
        blocks: int = 3,
        deformable: bool = True,
    ) -> None:
        super().__init__()
        self.context_output = nn.Conv2d(in_channels, context_channels, 1)
        self.reduce = nn.Conv2d(in_channels, mid_channels, 1)
        self.gate = nn.Sequential(
            nn.BatchNorm1d(CAMERA_MATRIX_NUMBERS), nn.Linear(CAMERA_MATRIX_NUMBERS, mid_channels), nn.Sigmoid()
        )
        self.depth_blocks = BevStages(mid_channels, (mid_channels,), (1,), (blocks,))
        self.deformable: nn.Module = nn.Identity()
        if deformable:
            self.deformable = nn.Sequential(
                DeformableConvolution(mid_channels, mid_channels, groups=1, modulated=True), nn.BatchNorm2d(mid_channels)
            )
        self.depth_output = nn.Conv2d(mid_channels, bins, 1)

    def forward(self, features: Tensor, camera: Tensor) -> DepthPrediction:
        """features [M, in_channels, H, W] of M images, camera [M, 27] from `camera_vector`."""
        with torch.autocast(camera.device.type, enabled=False):  # as in `DepthNet`
            numbers = norm_rows(camera_matrices(camera).to(self.depth_output.weight.dtype), self.gate[0])
        gate = self.gate[1:](numbers.to(features.dtype))
        (depth,) = self.depth_blocks(self.reduce(features) * gate[..., None, None])
        return DepthPrediction(self.depth_output(self.deformable(depth)), self.context_output(features))
