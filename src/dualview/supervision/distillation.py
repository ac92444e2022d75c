"""What a LiDAR teacher adds to a student's losses: TiG-BEV and RayD3D behind one door.

Any student with a bird's-eye-view map can use it. Each part is off until the settings name it, and asks only for the
inputs that it needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dualview.geometry.bev_grid import BevGrid
from dualview.networks.center_head import TaskPrediction
from dualview.networks.distillation_adapter import DistillationAdapters, resample_bev
from dualview.networks.lift_splat import DepthBins
from dualview.supervision.box_cells import object_cells
from dualview.supervision.ground_truth import GroundTruth
from dualview.supervision.ray_config import RayConfig
from dualview.supervision.ray_contrastive import contrastive_loss, draw_ray_pairs
from dualview.supervision.ray_layout import CameraView, ray_fans, ray_layout
from dualview.supervision.ray_weighted import weighted_loss
from dualview.supervision.response_distillation import ResponseConfig, response_loss
from dualview.supervision.tig_depth import InnerDepthConfig, absolute_depth_loss, inner_depth_loss
from dualview.supervision.tig_features import InnerFeatureConfig, inner_feature_losses
from dualview.supervision.tig_targets import FeaturePixels, ObjectDepth


@dataclass(frozen=True)
class DistillationSettings:
    """Which parts are on. absolute_depth: weight of TiG-BEV's own absolute depth loss (published: 100; 0 = none,
    for students that have a depth loss). depth_pixels: which LiDAR returns a pixel of the lift takes for the two depth losses,
    "floor" or, as published, "round" (see `FeaturePixels`). inner_depth, inner_feature: TiG-BEV. rays: RayD3D's contrastive and
    weighted distillation. response: between centre heads.
    """

    absolute_depth: float = 0.0
    inner_depth: InnerDepthConfig | None = None
    inner_feature: InnerFeatureConfig | None = None
    rays: RayConfig | None = None
    response: ResponseConfig | None = None
    depth_pixels: FeaturePixels = "floor"

    def __post_init__(self) -> None:
        if self.absolute_depth < 0:
            raise ValueError(f"absolute_depth is {self.absolute_depth}: give a weight of 0 (off) or more")

    @staticmethod
    def tig_bev() -> DistillationSettings:
        """TiG-BEV for one frame, with its absolute depth loss."""
        return DistillationSettings(100.0, InnerDepthConfig(), InnerFeatureConfig())

    @staticmethod
    def rayd3d() -> DistillationSettings:
        """RayD3D for a student with a centre head."""
        return DistillationSettings(rays=RayConfig(), response=ResponseConfig())

    @property
    def needs_teacher(self) -> bool:
        """Whether a LiDAR teacher must run; the depth losses need LiDAR points only."""
        return any(part is not None for part in (self.inner_feature, self.rays, self.response))

    @property
    def needs_object_depth(self) -> bool:
        """Whether depth losses need to know the object of each LiDAR return."""
        return self.inner_depth is not None or self.absolute_depth > 0

    def adapters(self, student_channels: int, teacher_channels: int) -> DistillationAdapters:
        """The layers that the parts which are on need, to be trained with the student and dropped after."""
        features = self.inner_feature
        embed = features is not None and features.channel_weight > 0
        return DistillationAdapters(student_channels, teacher_channels, embed, self.rays is not None)


@dataclass(frozen=True)
class StudentOutputs:
    """bev [B, C, Y, X] on `grid`. center: the centre head's tasks, empty without one (then there is no response to distil)."""

    bev: Tensor
    grid: BevGrid
    center: Sequence[TaskPrediction] = ()


@dataclass(frozen=True)
class TeacherOutputs:
    """bev [B, C, Y, X] on `grid`, in the student's frame with the student's BEV augmentation; center: its tasks.
    Nothing here gets a gradient.
    """

    bev: Tensor
    grid: BevGrid
    center: Sequence[TaskPrediction] = ()


def distillation_losses(
    student: StudentOutputs,
    teacher: TeacherOutputs | None,
    truths: Sequence[GroundTruth],
    settings: DistillationSettings,
    adapters: DistillationAdapters | None = None,
    cameras: CameraView | None = None,
    generator: torch.Generator | None = None,
) -> dict[str, Tensor]:
    """Loss terms of two maps and two heads: "tig/inter_channel|inter_keypoint", "ray/contrastive|weighted" and "response",
    weighted, to be summed. Only parts that are on have a term; depths are `object_depth_losses`.

    truths: a batch's boxes, in the frame of the maps. cameras: for rays that start at them. generator: of the drawn
    positions on rays; the global one by default. Raises ValueError, saying what is missing, if a part lacks its
    inputs. A student without centre head has no "response": its other head can't be compared.
    """
    if len(truths) != len(student.bev):
        raise ValueError(
            f"{len(truths)} samples of ground truth for a batch of {len(student.bev)}: give one for each"
        )
    losses: dict[str, Tensor] = {}
    if not settings.needs_teacher:
        return losses
    if teacher is None:
        raise ValueError(
            "feature, ray and response distillation need the teacher's outputs: run the teacher, or switch them off"
        )
    if settings.inner_feature is not None:
        terms = inner_feature_losses(
            student.bev, teacher.bev, truths, student.grid, teacher.grid, settings.inner_feature,
            None if adapters is None else adapters.embed,
        )  # fmt: skip
        losses |= {f"tig/{name}": value for name, value in terms.items()}
    if settings.rays is not None:
        losses |= _ray_losses(student, teacher, truths, settings.rays, adapters, cameras, generator)
    if settings.response is not None and student.center:
        losses["response"] = response_loss(student.center, teacher.center, settings.response)
    return losses


def object_depth_losses(
    depth_logits: Tensor, bins: DepthBins, target: ObjectDepth, settings: DistillationSettings
) -> dict[str, Tensor]:
    """Loss terms "tig/absolute_depth|inner_depth" of a lift's logits [B, N, D, h, w], weighted; they need no teacher.

    target: the depth and object of the LiDAR returns, at the lift's stride (`supervision/tig_targets.py`). Without returns or
    objects a term is zero.
    """
    losses: dict[str, Tensor] = {}
    if settings.absolute_depth > 0:
        losses["tig/absolute_depth"] = absolute_depth_loss(depth_logits, target, bins, settings.absolute_depth)
    if settings.inner_depth is not None:
        losses["tig/inner_depth"] = inner_depth_loss(depth_logits, target, bins, settings.inner_depth)
    return losses


def _ray_losses(
    student: StudentOutputs,
    teacher: TeacherOutputs,
    truths: Sequence[GroundTruth],
    config: RayConfig,
    adapters: DistillationAdapters | None,
    cameras: CameraView | None,
    generator: torch.Generator | None,
) -> dict[str, Tensor]:
    grid = teacher.grid
    ours = resample_bev(student.bev, student.grid, grid)
    if adapters is not None and adapters.imitate is not None:
        ours = adapters.imitate(ours)
    if ours.shape != teacher.bev.shape:
        raise ValueError(
            f"ray distillation compares maps of one shape, but the student's is {tuple(ours.shape)} and the teacher's "
            f"{tuple(teacher.bev.shape)}: give the adapters that DistillationSettings.adapters makes"
        )
    objects = torch.stack([object_cells(truth.boxes.to(ours.device), grid) for truth in truths])
    fans = ray_fans(config, len(truths), cameras, ours.device)
    layout = ray_layout(fans, grid, config.ray_count, config.ray_step)
    losses = {}
    if config.contrastive_weight > 0:
        pairs = draw_ray_pairs(layout, objects, grid, config, generator)
        losses["ray/contrastive"] = contrastive_loss(ours, teacher.bev, pairs, config)
    if config.weighted_weight > 0:
        losses["ray/weighted"] = weighted_loss(ours, teacher.bev, layout, objects, config)
    return losses
