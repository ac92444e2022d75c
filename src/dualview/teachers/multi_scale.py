"""Features of an image, averaged over overlapping crops at several scales.

At scale s the image is cut into windows of 1/s of its size that overlap by half; each is enlarged to the size
of the whole, so that the teacher sees more detail, and its features are laid back where the window was. (The
procedure of PASTEL, Vödisch et al. 2024, applied to features.)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional


class FeatureNetwork(Protocol):
    """What the ensemble needs of a teacher: normalised images [B, 3, H, W] -> [B, channels, H / stride, W / stride]."""

    channels: int
    stride: int

    def __call__(self, images: Tensor, /) -> Tensor: ...


@dataclass(frozen=True)
class EnsembleSettings:
    """scales: 1 is the whole image, 2 gives 9 windows, 3 gives 25. oversample: output cells a teacher's patch
    and axis. batch: crops that go through the teacher at once.
    """

    scales: tuple[int, ...] = (1, 2, 3)
    oversample: int = 2
    batch: int = 1

    def __post_init__(self) -> None:
        if not self.scales or min(self.scales) < 1 or any(a >= b for a, b in pairwise(self.scales)):
            raise ValueError(f"scales {self.scales} must be rising whole numbers from 1, such as 1 2 3")
        if self.oversample < 1 or self.batch < 1:
            raise ValueError("oversample and batch must be 1 or more")

    def passes(self) -> int:
        """Crops per image."""
        return sum(len(window_starts(3600, s)) ** 2 for s in self.scales)


def window_starts(length: int, scale: int) -> list[int]:
    """Where the windows of ceil(length / scale) begin along an axis, half a window apart (rounded up).

    The axis is padded by the same amount on both sides until the windows fit, so the first may begin before 0.
    """
    window = math.ceil(length / scale)
    step = math.ceil(window / 2)
    count = math.ceil((length - window) / step) + 1
    padding = (count - 1) * step + window - length
    return [i * step - padding // 2 for i in range(count)]


def ensemble_features(teacher: FeatureNetwork, image: Tensor, settings: EnsembleSettings) -> Tensor:
    """Mean over the scales of the mean over the crops: [C, rows, columns], `oversample` cells a patch and axis.

    image [3, H, W]: normalised, H and W multiples of the teacher's stride; what sticks out over its edge is
    zero. Each output cell reads the crop's features at its own centre (bilinear), which keeps crops of any
    size exactly in place. Raises ValueError for an image that patches don't tile.
    """
    height, width = image.shape[-2:]
    if height % teacher.stride or width % teacher.stride:
        raise ValueError(f"an image of {height}x{width} can't be cut into patches of {teacher.stride}")
    cell = teacher.stride / settings.oversample
    rows, columns = round(height / cell), round(width / cell)
    total = image.new_zeros(teacher.channels, rows, columns)
    for scale in settings.scales:
        window = (math.ceil(height / scale), math.ceil(width / scale))
        places = [(top, left) for top in window_starts(height, scale) for left in window_starts(width, scale)]
        sums, hits = torch.zeros_like(total), image.new_zeros(rows, columns)
        for first in range(0, len(places), settings.batch):
            batch = places[first : first + settings.batch]
            crops = torch.stack([_cut(image, place, window) for place in batch])
            if scale > 1:
                crops = functional.interpolate(crops, (height, width), mode="bilinear", align_corners=False)
            for place, features in zip(batch, teacher(crops), strict=True):
                (r0, r1), y = _centres(place[0], window[0], cell, rows, image)
                (c0, c1), x = _centres(place[1], window[1], cell, columns, image)
                location = torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], -1)
                sums[:, r0:r1, c0:c1] += functional.grid_sample(
                    features[None], location[None], padding_mode="border", align_corners=False
                )[0]
                hits[r0:r1, c0:c1] += 1
        total += sums / hits
    return total / len(settings.scales)


def _centres(start: int, size: int, cell: float, count: int, like: Tensor) -> tuple[tuple[int, int], Tensor]:
    """Which output cells have their centre in a window along an axis, and where in it (-1..1)."""
    first = max(math.ceil(start / cell - 0.5), 0)
    end = min(math.ceil((start + size) / cell - 0.5), count)
    centres = (torch.arange(first, end, device=like.device, dtype=like.dtype) + 0.5) * cell
    return (first, end), (centres - start) / size * 2 - 1


def _cut(image: Tensor, place: tuple[int, int], window: tuple[int, int]) -> Tensor:
    (top, left), (height, width) = place, window
    y0, x0 = max(top, 0), max(left, 0)
    y1, x1 = min(top + height, image.shape[1]), min(left + width, image.shape[2])
    padding = (x0 - left, left + width - x1, y0 - top, top + height - y1)
    return functional.pad(image[:, y0:y1, x0:x1], padding)
