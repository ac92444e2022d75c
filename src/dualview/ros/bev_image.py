"""A picture of a BEV feature map: many channels -> red, green, blue, by a basis that stays the same from frame to frame.

A basis refitted to each frame (PCA) would make colours jump. The checkpoint brings its own (`BevColors`, principal components found when it
was trained): a cell's colour follows from its features alone. For checkpoints without, one is drawn from the checkpoint's name and hash,
so that the same weights always give the same colours; contrast then follows the map's own spread, which is slow.
"""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from torch import Tensor

from dualview.detectors.bev_colors import BevColors
from dualview.detectors.output import BevMap


class BevPainter:
    """Paints BEV maps of one checkpoint. `identity` is any text that is the same for the same weights; colors: the
    checkpoint's own, None if it has none.
    """

    def __init__(self, identity: str, colors: BevColors | None = None) -> None:
        self._colors = colors
        self._seed = int.from_bytes(hashlib.sha256(identity.encode()).digest()[:4], "big")
        self._basis: Tensor | None = None

    def basis(self, channels: int) -> Tensor:
        """Orthonormal float32 [3, channels]."""
        if self._basis is None or self._basis.shape[1] != channels:
            generator = torch.Generator().manual_seed(self._seed)
            random = torch.randn(channels, max(3, min(channels, 3)), generator=generator)
            self._basis = torch.linalg.qr(random).Q.T if channels >= 3 else random.T[:, :channels]
        return self._basis

    def paint(self, bev: BevMap) -> np.ndarray:
        """uint8 RGB [Y, X, 3]: forward (x) to the right and left (y) at the top, as RViz shows the ground from above.

        BEV row 0 is the vehicle's far right, so rows are turned over. Cells that no camera sees are darkened.
        """
        features = bev.features.detach().float().cpu()
        channels, rows, columns = features.shape
        if self._colors is not None and self._colors.channels == channels:
            painted = self._colors.paint(features)
            painted = np.where(bev.valid.cpu().numpy()[..., None], painted, (0.3 * painted).round().astype(np.uint8))
            return np.ascontiguousarray(painted[::-1])
        flat = features.flatten(1)
        flat = (flat - flat.mean(1, keepdim=True)) / flat.std(1, keepdim=True).clamp_min(1e-6)
        colours = self.basis(channels) @ flat  # [3, Y * X]
        colours = colours / colours.std(1, keepdim=True).clamp_min(1e-6)
        colours = torch.sigmoid(1.5 * colours)
        colours = torch.where(bev.valid.cpu().flatten(), colours, 0.3 * colours)
        picture = (255 * colours).round().to(torch.uint8).reshape(3, rows, columns)
        return picture.flip(1).permute(1, 2, 0).contiguous().numpy()
