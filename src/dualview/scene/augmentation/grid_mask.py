"""GridMask: a grid of blacked-out squares, so that no small patch decides alone (Chen et al. 2020, arXiv
2001.04086).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class GridMaskSettings:
    """probability that a frame is masked; ratio: side of a masked square as a fraction of the grid's period
    (Sparse4D: 0.5).
    """

    probability: float = 0.7
    ratio: float = 0.5

    def __post_init__(self) -> None:
        if not (0.0 <= self.probability <= 1.0 and 0.0 < self.ratio < 1.0):
            raise ValueError(
                f"probability {self.probability} must lie in 0..1 and ratio {self.ratio} between 0 and 1"
            )


def draw_grid(
    random: np.random.Generator, image_size: tuple[int, int], settings: GridMaskSettings
) -> Tensor | None:
    """A mask bool [H, W], True = visible, for images of (height, width); None if this frame isn't masked."""
    chosen, spacing, shift_y, shift_x = random.uniform(size=4)
    if chosen >= settings.probability:
        return None
    height, width = image_size
    period = 2 + int(spacing * (min(height, width) - 2))
    length = min(max(round(period * settings.ratio), 1), period - 1)
    rows = (np.arange(height) + int(shift_y * period)) % period < length
    columns = (np.arange(width) + int(shift_x * period)) % period < length
    return torch.from_numpy(~(rows[:, None] & columns[None, :]))


def mask_images(images: Tensor, visible: Tensor) -> Tensor:
    """Images uint8 [N, 3, H, W], black where `visible` [H, W] is False."""
    return images * visible.to(images.dtype)
