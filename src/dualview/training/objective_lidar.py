"""Learning from a LiDAR teacher: TiG-BEV and RayD3D for any student with a bird's-eye-view map.

The teacher looks at the sample's sweeps in the student's augmented frame. The student stays what it is: the layers between
the two maps live here, and the teacher is in no checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dualview.detectors.detector import CameraMap, Settings
from dualview.detectors.prediction import Prediction
from dualview.errors import ConfigError
from dualview.networks.distillation_adapter import resample_bev
from dualview.scene.rig import load_rig
from dualview.supervision.distillation import (
    DistillationSettings,
    StudentOutputs,
    TeacherOutputs,
    distillation_losses,
    object_depth_losses,
)
from dualview.supervision.ground_truth import GroundTruth
from dualview.supervision.ray_layout import CameraView
from dualview.supervision.tig_targets import object_depth_of_map
from dualview.training.lidar_teacher import LidarTeacher, load_lidar_teacher
from dualview.training.objectives import Objective, SampleNeeds
from dualview.training.recipe import Recipe
from dualview.training.samples import TrainingBatch

TEACHER_MAPS = ".teacher_maps"  # folder beside the drives


class LidarObjective(Objective):
    """TiG-BEV's and RayD3D's losses of one student and one teacher."""

    def __init__(
        self,
        settings: DistillationSettings,
        student: CameraMap,
        teacher: LidarTeacher | None,
        tell: Callable[[str], None] = lambda line: None,
    ) -> None:
        """teacher None: for settings with depth losses only. tell: where a batch without any LiDAR is named, once."""
        super().__init__()
        self.settings, self._student, self._teacher, self._tell = settings, student, teacher, tell
        self._told = False
        self.adapters = None if teacher is None else settings.adapters(student.channels, teacher.channels)

    @property
    def needs(self) -> SampleNeeds:
        """The teacher's sweeps; depth losses take the depth that every sample has."""
        return SampleNeeds() if self._teacher is None else SampleNeeds(self._teacher.config.sweeps)

    def get_extra_state(self) -> Any:
        """Which teacher it is, for checkpoints; its weights aren't in them."""
        return "" if self._teacher is None else self._teacher.digest

    def set_extra_state(self, state: Any) -> None:
        """Raises ConfigError if a run would go on with another teacher than it began with."""
        if state != self.get_extra_state():
            raise ConfigError(
                "the LiDAR teacher's weights have changed since this run began: put the old file back, or begin a new run"
            )

    def losses(self, prediction: Prediction, batch: TrainingBatch) -> dict[str, Tensor]:
        """Terms "tig/...", "ray/..." and "response" (see `distillation_losses`).

        Boxes past the detector's range count as well: they are on the map, and no background. The teacher teaches nothing
        about samples in which it sees no LiDAR point, nor about those without 3D labels, whose background isn't known;
        depths are learnt from every sample that has any.
        """
        truths = [truth.joined(beyond) for truth, beyond in zip(batch.truths, batch.beyond, strict=True)]
        losses = self._depths(prediction, batch, truths)
        if self._teacher is None:
            self._tell_without(batch, [bool(d.any()) for d in batch.depth])
            return losses
        clouds = batch.inputs.points
        assert clouds is not None
        seen = [self._teacher.sees(cloud) for cloud in clouds]
        self._tell_without(batch, seen)
        boxed = batch.boxed or (True,) * len(seen)
        taught = [i for i, (has, known) in enumerate(zip(seen, boxed, strict=True)) if has and known]
        # With nothing to teach in the batch: all terms and all gradients are there, and are zero.
        weight, chosen = (1.0, taught) if taught else (0.0, list(range(len(seen))))
        teacher = self._teacher.outputs([clouds[i] for i in chosen], self.settings.response is not None)
        found = self._compare(prediction, batch, chosen, teacher, [truths[i] for i in chosen])
        return losses | {name: weight * value for name, value in found.items()}

    def _tell_without(self, batch: TrainingBatch, seen: list[bool]) -> None:
        if not any(seen) and not self._told:
            self._told = True
            where = "" if self._teacher is None else " where the teacher looks"
            self._tell(f"no LiDAR{where} in any of {'; '.join(batch.sources)}: nothing is taught there")

    def _depths(
        self, prediction: Prediction, batch: TrainingBatch, truths: list[GroundTruth]
    ) -> dict[str, Tensor]:
        bev, lift = prediction.bev, self._student.lift
        if not self.settings.needs_object_depth or lift is None:
            return {}
        assert bev is not None and bev.depth_logits is not None
        # Means are over the samples of which any depth is known: what was left out on purpose doesn't thin the others.
        known = [i for i, depth in enumerate(batch.depth) if bool(depth.any())] or list(range(len(batch.depth)))
        index = torch.tensor(known, device=batch.depth.device)
        target = object_depth_of_map(
            batch.depth[index], batch.inputs.image_from_working[index], [truths[i] for i in known], lift.image_stride,
            lift.depth_bins, self.settings.depth_pixels,
        )  # fmt: skip
        return object_depth_losses(bev.depth_logits[index], lift.depth_bins, target, self.settings)

    def _compare(
        self,
        prediction: Prediction,
        batch: TrainingBatch,
        chosen: list[int],
        teacher: TeacherOutputs,
        truths: list[GroundTruth],
    ) -> dict[str, Tensor]:
        bev, inputs = prediction.bev, batch.inputs
        assert bev is not None
        index = torch.tensor(chosen, device=inputs.images.device)
        center = []
        if self.settings.response is not None:
            center = [
                replace(task, **{name: value[index] for name, value in vars(task).items()})
                for task in prediction.center
            ]
        # The layers between the maps are in float32, the student's map may not be.
        student = StudentOutputs(bev.features[index].float(), self._student.grid, center=center)
        cameras = CameraView(inputs.image_from_working[index], inputs.camera_mask[index], inputs.image_size)
        return distillation_losses(student, teacher, truths, self.settings, self.adapters, cameras)


def build_lidar_objective(
    recipe: Recipe, detector: Settings, tell: Callable[[str], None]
) -> LidarObjective | None:
    """What `recipe.lidar_distillation` asks for. Raises ConfigError, saying what to change, where student, teacher and
    rig don't go together, and WeightsError if the teacher can't be read.
    """
    section = recipe.lidar_distillation
    if section is None:
        return None
    settings, student = section.settings, detector.camera_map
    if student is None:
        raise ConfigError(
            f"lidar_distillation: {detector.name} has no bird's-eye-view map of cameras to teach: choose another model"
        )
    if settings.needs_object_depth and student.lift is None:
        raise ConfigError(
            f"lidar_distillation: {detector.name} predicts no depth, so it can't learn from depth losses: set overrides "
            "{absolute_depth: 0, inner_depth: null}"
        )
    if not load_rig(recipe.data.rig).lidar_topics:
        raise ConfigError(
            f"lidar_distillation needs LiDAR, but the rig '{recipe.data.rig}' names none: set lidar_topics in the rig file"
        )
    teacher = None
    if settings.needs_teacher:
        assert section.teacher is not None
        teacher = load_lidar_teacher(section.teacher, _teacher_cache(recipe))
        settings = _fitting(settings, student, detector, teacher.config, section.asks_for("response"), tell)
        tell(f"{section.method} with the teacher {section.teacher}")
    if settings.absolute_depth and detector.lift is not None and recipe.losses.lift_depth:
        tell(
            "the lift's depth is supervised twice: set losses.lift_depth or absolute_depth to 0 for one of the two"
        )
    with torch.random.fork_rng(devices=[]):  # the student's own weights stay those of its base
        torch.manual_seed(recipe.seed)
        return LidarObjective(settings, student, teacher, tell)


def _teacher_cache(recipe: Recipe) -> Path | None:
    """Where the teacher's maps are kept, if frames come again just as they were and the recipe asks to make use of that."""
    return recipe.data.cache_folder / TEACHER_MAPS if recipe.cache_features and recipe.augmentation.bev is None else None


def _fitting(
    settings: DistillationSettings,
    student: CameraMap,
    detector: Settings,
    teacher: Settings,
    response_asked: bool,
    tell: Callable[[str], None],
) -> DistillationSettings:
    """The settings, without the response where the heads can't be compared. Raises ConfigError if frames or ranges don't
    go together.
    """
    if not torch.allclose(detector.working_from_ego_matrix, teacher.working_from_ego_matrix):
        raise ConfigError(
            f"lidar_distillation: {detector.name} and its teacher work in different frames: give both the same working_from_ego "
            f"(the student's overrides.working_from_ego; the teacher's is {teacher.working_from_ego_matrix.tolist()})"
        )
    grid = teacher.bev_grid
    assert grid is not None
    if settings.rays is not None:
        try:
            resample_bev(torch.zeros(1, 1, student.grid.rows, student.grid.columns), student.grid, grid)
        except ValueError as error:
            raise ConfigError(f"lidar_distillation: {error}") from error
    if settings.response is None:
        return settings
    ours, theirs = detector.center_head, teacher.center_head
    reasons = []
    if ours is None or theirs is None:
        reasons.append("the student has no centre head")
    elif ours.tasks != theirs.tasks or detector.class_names != teacher.class_names:
        reasons.append("the two centre heads have other classes or tasks")
    if not student.grid.same_cells(grid):  # heights may differ: what is lifted isn't what LiDAR sees
        reasons.append(f"the maps are on other grids ({student.grid} and {grid})")
    if not reasons:
        return settings
    if response_asked:
        raise ConfigError(
            f"lidar_distillation: responses can't be compared: {' and '.join(reasons)}; set overrides {{response: null}}"
        )
    left = replace(settings, response=None)
    if not left.needs_teacher:
        raise ConfigError(
            f"lidar_distillation: responses can't be compared ({' and '.join(reasons)}), and nothing else asks the teacher: turn "
            "on rays or inner_feature in overrides, or leave the teacher out"
        )
    tell(f"responses aren't distilled: {' and '.join(reasons)}")
    return left
