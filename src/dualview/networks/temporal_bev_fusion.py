"""Res2Fusion: bird's-eye-view maps of several moments into one (BEVNeXt: Li et al. 2024, section 3.2).

Maps of neighbouring moments are joined into groups first; then, from the oldest group to the newest, each 3x3
convolution sees its group and what the older ones gave. So what is old, and lies furthest from where it was when things
move, gets the widest field of view, and the present is passed on as it is.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dualview.networks.res2_stages import normed_convolution


class Res2Fusion(nn.Module):
    """frames maps of `channels` each -> one map of `channels`. scales: number of groups. added: what is fused is added to
    the present map and begins as nothing, so that a network which learned without history stays what it was.
    """

    def __init__(self, channels: int, frames: int, scales: int = 3, added: bool = False) -> None:
        super().__init__()
        width = channels * 3 // 8  # half the channels, narrowed by 48/64 as in the paper's network
        if frames % scales or width < 1:
            raise ValueError(
                f"{frames} maps of {channels} channels can't be fused in {scales} groups: frames must be a "
                "multiple of the groups, and channels at least 3"
            )
        self.frames, self.channels, self.width = frames, channels, width
        self.join = normed_convolution(frames * channels, scales * width, 1, groups=scales)
        self.parts = nn.ModuleList(normed_convolution(width, width, 3) for _ in range(scales - 1))
        self.leave = normed_convolution(scales * width, channels, 1)
        self.add = nn.Conv2d(channels, channels, 1) if added else None
        if self.add is not None and self.add.bias is not None:
            nn.init.zeros_(self.add.weight)
            nn.init.zeros_(self.add.bias)

    def forward(self, maps: Tensor) -> Tensor:
        """maps [B, frames, channels, Y, X], the present first, then the latest ... oldest -> [B, channels, Y, X]."""
        newest, *older = self.join(maps.flatten(1, 2)).split(self.width, 1)
        outputs: list[Tensor] = []
        for convolution, group in zip(self.parts, reversed(older), strict=True):
            outputs.append(convolution(group + outputs[-1] if outputs else group))
        fused = self.leave(torch.cat([*outputs, newest], 1))
        return fused if self.add is None else maps[:, 0] + self.add(fused)
