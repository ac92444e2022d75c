"""A frozen LiDAR detector beside a student in training (CenterPoint, as TiG-BEV and RayD3D have it)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dualview.detectors.centerpoint import CenterPoint
from dualview.detectors.centerpoint_config import CenterPointConfig
from dualview.detectors.checkpoint import find_checkpoint, load_checkpoint, sha256_of
from dualview.errors import ConfigError, WeightsError
from dualview.supervision.distillation import TeacherOutputs

_TRAIN_ONE = "train one with `dualview train centerpoint_tiny`, or name another file"


class LidarTeacher:
    """Evaluation mode and no gradient, for good. It is no module on purpose: what holds it neither trains it, nor puts it
    into training mode, nor writes it into its checkpoints.
    """

    def __init__(self, detector: CenterPoint, digest: str = "") -> None:
        """digest: tells this teacher's weights from others'."""
        self.digest = digest
        self._detector = detector.eval().requires_grad_(False)

    @property
    def config(self) -> CenterPointConfig:
        """Sweeps, grid, classes and tasks."""
        return self._detector.config

    @property
    def channels(self) -> int:
        """Of its bird's-eye-view map."""
        return self._detector.lidar_branch.out_channels

    @torch.no_grad()
    def outputs(self, clouds: Sequence[Tensor], with_center: bool) -> TeacherOutputs:
        """What it says of B clouds [P, 5] (m, the student's augmented frame), in float32 where the clouds are.

        with_center: also the centre head's tasks.
        """
        detector = self._detector.to(clouds[0].device)
        bev = detector.encode(clouds)
        return TeacherOutputs(
            bev, detector.config.branch.grid, detector.center_head(bev) if with_center else ()
        )


def load_lidar_teacher(name_or_path: str) -> LidarTeacher:
    """The teacher of a checkpoint by path or by name in models/.

    Raises WeightsError if it isn't there or can't be read, ConfigError if it is no LiDAR detector.
    """
    path = find_checkpoint(name_or_path)
    if not path.is_file():
        raise WeightsError(
            f"lidar_distillation.teacher: there is no checkpoint '{name_or_path}': {_TRAIN_ONE}"
        )
    detector = load_checkpoint(path)
    if not isinstance(detector, CenterPoint):
        raise ConfigError(
            f"lidar_distillation.teacher: '{path}' is '{detector.config.name}', which reads no LiDAR: {_TRAIN_ONE}"
        )
    return LidarTeacher(detector, sha256_of(path))
