"""A frozen LiDAR detector beside a student in training (CenterPoint, as TiG-BEV and RayD3D have it)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from dualview.detectors.centerpoint import CenterPoint
from dualview.detectors.centerpoint_config import CenterPointConfig
from dualview.detectors.checkpoint import close_checkpoint, find_checkpoint, load_checkpoint, sha256_of
from dualview.detectors.result_cache import ResultCache
from dualview.errors import ConfigError, WeightsError
from dualview.supervision.distillation import TeacherOutputs

TRAIN_ONE = (
    "name a LiDAR detector's .safetensors file, or one of models/ such as centerpoint-coarse, or train one with "
    "`dualview train centerpoint_tiny`"
)


class LidarTeacher:
    """Evaluation mode and no gradient, for good. It is no module on purpose: what holds it neither trains it, nor puts it
    into training mode, nor writes it into its checkpoints.
    """

    def __init__(self, detector: CenterPoint, digest: str = "", cache: Path | None = None) -> None:
        """digest: tells this teacher's weights from others'. cache: folder that keeps its map of each cloud by
        that digest, for clouds that come again just as they were.
        """
        self.digest = digest
        self._detector = detector.eval().requires_grad_(False)
        self._cache = None if cache is None else ResultCache(cache, f"{digest} torch {torch.__version__}")

    @property
    def config(self) -> CenterPointConfig:
        """Sweeps, grid, classes and tasks."""
        return self._detector.config

    @property
    def channels(self) -> int:
        """Of its bird's-eye-view map."""
        return self._detector.lidar_branch.out_channels

    def sees(self, cloud: Tensor) -> bool:
        """Whether any point of a cloud [P, 5] is where the teacher looks; of others its map says nothing."""
        grid = self.config.branch.grid
        low = cloud.new_tensor([grid.x_min, grid.y_min, grid.z_min])
        high = cloud.new_tensor([grid.x_max, grid.y_max, grid.z_max])
        return bool(((cloud[:, :3] >= low) & (cloud[:, :3] < high)).all(1).any())

    @torch.no_grad()
    def outputs(self, clouds: Sequence[Tensor], with_center: bool) -> TeacherOutputs:
        """What it says of B clouds [P, 5] (m, the student's augmented frame), in float32 where the clouds are.

        with_center: also the centre head's tasks.
        """
        detector = self._detector.to(clouds[0].device)
        bev = detector.encode(clouds) if self._cache is None else torch.cat([self._known_map(cloud) for cloud in clouds])
        return TeacherOutputs(
            bev, detector.config.branch.grid, detector.center_head(bev) if with_center else ()
        )

    def _known_map(self, cloud: Tensor) -> Tensor:
        assert self._cache is not None
        (bev,) = self._cache(cloud, lambda: [self._detector.encode([cloud])], cloud.device.type)
        return bev


def load_lidar_teacher(name_or_path: str, cache: Path | None = None) -> LidarTeacher:
    """The teacher of a checkpoint by path or by name in models/; `cache` as in `LidarTeacher`.

    Raises WeightsError if it isn't there or can't be read, ConfigError if it is no LiDAR detector.
    """
    path = find_checkpoint(name_or_path)
    if not path.is_file():
        raise WeightsError(
            f"lidar_distillation.teacher: there is no checkpoint '{name_or_path}': {close_checkpoint(name_or_path, otherwise=TRAIN_ONE)}"
        )
    detector = load_checkpoint(path)
    if not isinstance(detector, CenterPoint):
        raise ConfigError(
            f"lidar_distillation.teacher: '{path}' is '{detector.config.name}', which reads no LiDAR: {TRAIN_ONE}"
        )
    return LidarTeacher(detector, sha256_of(path), cache)
