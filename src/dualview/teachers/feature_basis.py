"""Fewer channels that keep inner products: an uncentred principal component analysis (as the labels' cosine
loss compares directions from the origin, the mean stays in).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from dualview.errors import ConfigError
from dualview.teachers.feature_cloud import read_file, write_tensors


@dataclass(frozen=True)
class FeatureBasis:
    """matrix float32 [C, D], orthonormal columns, the strongest first; kept float32 [D]: share of the squared
    norm that the first 1, 2, ... components hold.
    """

    matrix: Tensor
    kept: Tensor

    def save(self, path: Path) -> None:
        """Write it."""
        write_tensors(path, {"matrix": self.matrix, "kept": self.kept})

    @staticmethod
    def load(path: Path) -> FeatureBasis:
        """What `save` wrote. Raises BagError if the file is damaged."""
        return FeatureBasis(**read_file(path))


class BasisFit:
    """Collects feature vectors of any number in fixed memory (their second moments)."""

    def __init__(self, channels: int) -> None:
        self._moments = torch.zeros(channels, channels, dtype=torch.float64)
        self.count = 0

    def add(self, features: Tensor) -> None:
        """Features [P, C]."""
        values = features.double()
        self._moments += values.T @ values
        self.count += len(values)

    def basis(self, components: int) -> FeatureBasis:
        """The strongest `components` directions; each one's largest entry is positive, so that the same
        features always give the same basis. Raises ConfigError if there are fewer channels or vectors.
        """
        channels = len(self._moments)
        if not 1 <= components <= channels:
            raise ConfigError(
                f"--pca {components}: the teacher has {channels} channels; choose 1 to {channels}"
            )
        if self.count < components:
            raise ConfigError(
                f"only {self.count} points with features were found, too few for {components} components: do the rig's cameras "
                "and LiDAR belong to these recordings?"
            )
        values, vectors = torch.linalg.eigh(self._moments)
        values, vectors = values.flip(0).clamp(min=0), vectors.flip(1)[:, :components]
        largest = vectors.gather(0, vectors.abs().argmax(0, keepdim=True))
        vectors = vectors * torch.where(largest < 0, -1.0, 1.0)
        return FeatureBasis(vectors.float(), (values.cumsum(0) / values.sum())[:components].float())
