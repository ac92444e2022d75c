"""What detectors' settings tell alike (see `Settings` in detector.py); a detector's own say the rest."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dualview.detectors.detector import CameraMap
from dualview.detectors.json_config import to_dict
from dualview.scene.sweeps import LidarInput

Matrix4 = tuple[
    tuple[float, float, float, float],
    tuple[float, float, float, float],
    tuple[float, float, float, float],
    tuple[float, float, float, float],
]
IDENTITY: Matrix4 = ((1.0, 0.0, 0.0, 0.0), (0.0, 1.0, 0.0, 0.0), (0.0, 0.0, 1.0, 0.0), (0.0, 0.0, 0.0, 1.0))


class SettingsBase:
    """Of a detector that works in the ego frame, takes no LiDAR and makes no map, unless its own settings say otherwise."""

    working_from_ego: Matrix4 = IDENTITY

    @property
    def working_from_ego_matrix(self) -> Tensor:
        """working_from_ego as float64 [4, 4], on the CPU whatever the default device."""
        return torch.tensor(self.working_from_ego, dtype=torch.float64, device="cpu")

    @property
    def lidar(self) -> LidarInput | None:
        """Cameras only."""
        return None

    @property
    def camera_map(self) -> CameraMap | None:
        """No BEV map is made of images."""
        return None

    def to_json(self) -> str:
        """All fields, also those at their defaults: a checkpoint must not change its meaning when a default does."""
        settings: Any = self
        return json.dumps(to_dict(settings), indent=1)


@dataclass(frozen=True)
class BackboneConfig:
    """name: a timm model. strides: feature maps that enter the pyramid; the decoder reads them all. widths
    (stem, first stage): a ResNet of another width. recompute: less memory, more time in training.
    """

    name: str = "resnet50"
    strides: tuple[int, ...] = (4, 8, 16, 32)
    widths: tuple[int, int] | None = None
    recompute: bool = False


class CameraSettings(SettingsBase):
    """Of a detector with an image backbone."""

    backbone: BackboneConfig

    @property
    def image_backbone_name(self) -> str | None:
        """timm's name of the image backbone."""
        return self.backbone.name

    @property
    def pyramid_strides(self) -> tuple[int, ...]:
        """Strides of the image feature maps."""
        return self.backbone.strides
