"""Colours of a detector's BEV map: the three strongest directions of its features, found once for a checkpoint and kept
beside its weights, so that colours mean the same in every frame and every run.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dualview.errors import WeightsError

COLORS_KEY = "dualview_bev_colors"  # among a checkpoint's strings
_CONTRAST = 1.5
_MOST = 40000  # vectors are enough


@dataclass(frozen=True)
class BevColors:
    """mean float32 [C]; basis float32 [3, C], orthonormal rows, the strongest first (red, green, blue); spread float32 [3]:
    standard deviation along each.
    """

    mean: Tensor
    basis: Tensor
    spread: Tensor

    @staticmethod
    def fit(features: Tensor) -> BevColors | None:
        """Principal components of feature vectors [P, C]; None if they aren't finite, or all the same.

        The largest entry of each component is positive, so that the same features always give the same colours.
        """
        values = features.detach()[:: max(1, len(features) // _MOST)].double().cpu()
        if not len(values) or not bool(values.isfinite().all()):
            return None
        mean = values.mean(0)
        centered = values - mean
        variance, vectors = torch.linalg.eigh(centered.T @ centered / len(values))
        variance, vectors = variance.flip(0)[:3].clamp(min=0), vectors.flip(1)[:, :3]
        if not float(variance[0]) > 0:
            return None
        largest = vectors.gather(0, vectors.abs().argmax(0, keepdim=True))
        basis = (vectors * torch.where(largest < 0, -1.0, 1.0)).T
        missing = 3 - len(basis)  # maps of fewer than three channels
        basis = torch.cat([basis, basis.new_zeros(missing, basis.shape[1])])
        spread = torch.cat([variance, variance.new_zeros(missing)]).sqrt()
        return BevColors(mean.float(), basis.float(), spread.clamp(min=1e-3 * float(spread[0])).float())

    @property
    def channels(self) -> int:
        """Of the maps that it paints."""
        return len(self.mean)

    def paint(self, features: Tensor) -> np.ndarray:
        """uint8 RGB [Y, X, 3] of a map [C, Y, X]: each cell's colour follows from its own vector alone."""
        flat = features.detach().float().cpu().flatten(1)
        along = (self.basis @ (flat - self.mean[:, None])) / self.spread[:, None]
        colors = (255 * torch.sigmoid(_CONTRAST * along)).round().to(torch.uint8)
        return colors.view(3, *features.shape[1:]).permute(1, 2, 0).contiguous().numpy()

    def to_json(self) -> str:
        """As a string, to be kept beside weights."""
        return json.dumps({name: value.tolist() for name, value in vars(self).items()})

    @staticmethod
    def from_json(text: str) -> BevColors:
        """What `to_json` wrote. Raises WeightsError if it is something else."""
        try:
            read = {name: torch.tensor(value, dtype=torch.float32) for name, value in json.loads(text).items()}
            colors = BevColors(**read)
            fits = colors.basis.shape == (3, colors.channels) and colors.spread.shape == (3,)
        except (AttributeError, TypeError, ValueError) as error:
            raise WeightsError(f"the colours of the BEV map ({COLORS_KEY}) aren't readable: {error}") from error
        if not fits:
            raise WeightsError(f"the colours of the BEV map ({COLORS_KEY}) are of unequal shapes: write them anew")
        return colors
