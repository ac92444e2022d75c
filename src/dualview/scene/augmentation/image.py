"""Image augmentation: resize, crop, flip and rotate as one affine map of pixels, laid onto the intrinsics
too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from torch import Tensor

from dualview.scene.frame import SurroundFrame

_TO_EDGES = np.array(
    [[1.0, 0.0, 0.5], [0.0, 1.0, 0.5], [0.0, 0.0, 1.0]]
)  # whole numbers at pixel centres -> at edges


@dataclass(frozen=True)
class ImageAugmentationSettings:
    """resize: range of the factor on the network's image; rotate: largest angle, degrees; flip: mirror left
    and right half of the time.

    The defaults are Sparse4D's (resize 0.40..0.47 where testing resizes by 0.44). The bottom edge stays the
    bottom edge.
    """

    resize: tuple[float, float] = (0.91, 1.07)
    rotate: float = 5.4
    flip: bool = True

    def __post_init__(self) -> None:
        if not 0 < self.resize[0] <= self.resize[1]:
            raise ValueError(f"resize {self.resize} must be two rising positive factors")
        if self.rotate < 0:
            raise ValueError(f"rotate {self.rotate} must be the largest angle in degrees, not negative")


@dataclass(frozen=True)
class ImageAugmentation:
    """augmented_from_original [3, 3] float64: affine map of homogeneous pixels (edge convention, see
    `SurroundFrame`).
    """

    augmented_from_original: Tensor

    @staticmethod
    def identity() -> ImageAugmentation:
        """Nothing changes."""
        return ImageAugmentation(torch.eye(3, dtype=torch.float64))

    @staticmethod
    def of(
        image_size: tuple[int, int],
        resize: float = 1.0,
        offset: float = 0.5,
        flip: bool = False,
        rotate: float = 0.0,
    ) -> ImageAugmentation:
        """The map that scales by `resize`, cuts (or pads) to image_size (height, width) again, mirrors, then
        turns by `rotate` (rad).

        The bottom is kept; `offset` in 0..1 says where in the spare width the cut begins.
        """
        height, width = image_size
        left, top = offset * (resize - 1.0) * width, (resize - 1.0) * height
        matrix = np.array([[resize, 0.0, -left], [0.0, resize, -top], [0.0, 0.0, 1.0]])
        if flip:
            matrix = np.array([[-1.0, 0.0, width], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]) @ matrix
        cos, sin, center = math.cos(rotate), math.sin(rotate), np.array([width / 2, height / 2])
        turn = np.eye(3)
        turn[:2, :2] = [[cos, sin], [-sin, cos]]
        turn[:2, 2] = center - turn[:2, :2] @ center
        return ImageAugmentation(torch.from_numpy(turn @ matrix))

    @staticmethod
    def draw(
        random: np.random.Generator, image_size: tuple[int, int], settings: ImageAugmentationSettings
    ) -> ImageAugmentation:
        """A random one for images of (height, width)."""
        resize, offset = random.uniform(*settings.resize), random.uniform()
        flip = bool(random.uniform() < 0.5) and settings.flip
        rotate = math.radians(random.uniform(-settings.rotate, settings.rotate))
        return ImageAugmentation.of(image_size, resize, offset, flip, rotate)

    @property
    def mirrors(self) -> bool:
        """Whether left and right change places."""
        return bool(torch.linalg.det(self.augmented_from_original) < 0)

    def mirrored(self, image_size: tuple[int, int]) -> ImageAugmentation:
        """This one, and then left for right, for images of (height, width)."""
        mirror = torch.eye(3, dtype=torch.float64)
        mirror[0, 0], mirror[0, 2] = -1.0, float(image_size[1])
        return ImageAugmentation(mirror @ self.augmented_from_original)

    def pixels(self, points: Tensor) -> Tensor:
        """Where the pixels [..., 2] of the original lie in the augmented image."""
        matrix = self.augmented_from_original.to(points.dtype)
        return points @ matrix[:2, :2].T + matrix[:2, 2]

    def images(self, images: Tensor) -> Tensor:
        """uint8 [N, 3, H, W] -> the same shape; what the original doesn't show is black."""
        if torch.equal(self.augmented_from_original, torch.eye(3, dtype=torch.float64)):
            return images
        centres = np.linalg.inv(_TO_EDGES) @ self.augmented_from_original.numpy() @ _TO_EDGES
        source = np.ascontiguousarray(images.permute(0, 2, 3, 1).numpy())
        result = np.empty_like(source)
        height, width = source.shape[1:3]
        for image, target in zip(source, result, strict=True):
            cv2.warpAffine(image, centres[:2], (width, height), dst=target, flags=cv2.INTER_LINEAR)
        return torch.from_numpy(result).permute(0, 3, 1, 2)

    def apply(self, frame: SurroundFrame) -> SurroundFrame:
        """The frame with augmented pixels and intrinsics; a flip makes their first entry negative, which
        projection doesn't mind.
        """
        intrinsics = (self.augmented_from_original @ frame.intrinsics.double()).to(frame.intrinsics.dtype)
        return replace(frame, images=self.images(frame.images), intrinsics=intrinsics)
