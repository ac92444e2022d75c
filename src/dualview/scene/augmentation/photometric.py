"""Photometric distortion: brightness, contrast, saturation and hue as cameras differ in them (SSD: Liu et al.
2016, section 2.2).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor

_LEVELS = np.arange(256, dtype=np.float32)
_HUE_STEPS = 180  # OpenCV keeps hue in steps of two degrees


@dataclass(frozen=True)
class PhotometricSettings:
    """Each change is made with `probability`. brightness: largest shift (0..255); contrast, saturation:
    ranges of factors; hue: largest turn, degrees.
    """

    probability: float = 0.5
    brightness: float = 32.0
    contrast: tuple[float, float] = (0.5, 1.5)
    saturation: tuple[float, float] = (0.5, 1.5)
    hue: float = 18.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.probability <= 1.0:
            raise ValueError(f"probability {self.probability} must lie in 0..1")


@dataclass(frozen=True)
class Photometric:
    """One camera's look: (value + brightness) * contrast, then saturation (factor) and hue (degrees)."""

    brightness: float = 0.0
    contrast: float = 1.0
    saturation: float = 1.0
    hue: float = 0.0

    @staticmethod
    def draw(random: np.random.Generator, settings: PhotometricSettings) -> Photometric:
        """A random look."""
        shifts = random.uniform(-1.0, 1.0, 2)
        factors = random.uniform(
            [settings.contrast[0], settings.saturation[0]], [settings.contrast[1], settings.saturation[1]]
        )
        use = random.uniform(size=4) < settings.probability
        return Photometric(
            brightness=settings.brightness * shifts[0] if use[0] else 0.0,
            contrast=factors[0] if use[1] else 1.0,
            saturation=factors[1] if use[2] else 1.0,
            hue=settings.hue * shifts[1] if use[3] else 0.0,
        )

    def apply(self, image: np.ndarray) -> np.ndarray:
        """uint8 [H, W, 3] RGB -> a new image of the same kind."""
        tone = np.clip((_LEVELS + self.brightness) * self.contrast, 0, 255).astype(np.uint8)
        image = cv2.LUT(image, tone)
        if self.saturation == 1.0 and self.hue == 0.0:
            return image
        table = np.empty((256, 1, 3), np.uint8)
        table[:, 0, 0] = (_LEVELS + round(self.hue / 2)) % _HUE_STEPS
        table[:, 0, 1] = np.clip(_LEVELS * self.saturation, 0, 255)
        table[:, 0, 2] = _LEVELS
        return cv2.cvtColor(cv2.LUT(cv2.cvtColor(image, cv2.COLOR_RGB2HSV), table), cv2.COLOR_HSV2RGB)


def distort(images: Tensor, looks: list[Photometric]) -> Tensor:
    """uint8 [N, 3, H, W] with one look a camera -> the same shape."""
    source = np.ascontiguousarray(images.permute(0, 2, 3, 1).numpy())
    changed = np.stack([look.apply(image) for image, look in zip(source, looks, strict=True)])
    return torch.from_numpy(changed).permute(0, 3, 1, 2)
