"""Feature pyramid: every level sees the coarser ones (Lin et al. 2017, figure 3)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from dualview.networks.bev_encoder import ResidualBlock


class FeaturePyramid(nn.Module):
    """1x1 lateral convolutions, a top-down path with nearest upsampling, and a 3x3 convolution on each level.

    in_channels: of the backbone's maps, fine to coarse. All outputs have `out_channels`. No norm and no
    activation, with biases, as in the common detectors. outputs: how many of the finest levels are given (None:
    all). blocks: residual blocks on each of them, fine to coarse, none on those left out; for a backbone that stays
    frozen, which needs a neck that can learn (arXiv 2204.00484).
    """

    def __init__(
        self, in_channels: tuple[int, ...], out_channels: int, outputs: int | None = None, blocks: tuple[int, ...] = ()
    ) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(channels, out_channels, 1) for channels in in_channels)
        self.output = nn.ModuleList(nn.Conv2d(out_channels, out_channels, 3, padding=1) for _ in in_channels[:outputs])
        for layer in (*self.lateral, *self.output):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
        self.blocks = nn.ModuleList(
            nn.Sequential(*(ResidualBlock(out_channels, out_channels) for _ in range(count)))
            for count, _ in zip(blocks, self.output, strict=False)
        )
        for block in self.blocks.modules():
            if isinstance(block, ResidualBlock):
                nn.init.zeros_(block.bn2.weight)  # it begins as the identity

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """Maps [M, in_channels[i], h_i, w_i], fine to coarse -> maps [M, out_channels, h_i, w_i]."""
        merged = [lateral(feature) for lateral, feature in zip(self.lateral, features, strict=True)]
        for level in range(len(merged) - 2, -1, -1):
            coarser = functional.interpolate(merged[level + 1], size=merged[level].shape[-2:], mode="nearest")
            merged[level] = merged[level] + coarser
        finished = [output(feature) for output, feature in zip(self.output, merged, strict=False)]
        for level, block in enumerate(self.blocks):
            finished[level] = block(finished[level])
        return finished
