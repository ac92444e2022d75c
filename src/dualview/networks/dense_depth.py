"""Dense depth from image features: Sparse4D's auxiliary task, used in training only (Sparse4D v2, section
3.4).
"""

from __future__ import annotations

from torch import Tensor, nn

REFERENCE_FOCAL_LENGTH = (
    100.0  # px; the depth that the convolution predicts is that of a camera with this focal length
)


class DenseDepth(nn.Module):
    """One 1x1 convolution a level; depth = exp(output) * focal length / 100 px."""

    def __init__(self, channels: int, levels: int = 3) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d(channels, 1, 1) for _ in range(levels))

    def forward(self, features: list[Tensor], focal_length: Tensor | None = None) -> list[Tensor]:
        """features: maps [B, N, C, h_i, w_i], fine to coarse (further levels are left alone); focal_length
        [B, N] in px of the network's image, None for cameras of the reference focal length.

        Returns depth in m [B, N, h_i, w_i] for each level.
        """
        depths = []
        for layer, feature in zip(self.layers, features, strict=False):
            depth = layer(feature.flatten(0, 1).float()).exp().squeeze(1).unflatten(0, feature.shape[:2])
            if focal_length is not None:
                depth = depth * (focal_length / REFERENCE_FOCAL_LENGTH)[..., None, None].to(depth)
            depths.append(depth)
        return depths
