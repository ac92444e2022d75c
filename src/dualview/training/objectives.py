"""What a detector can learn from beside its own labels: teachers, label maps, 2D labels.

An objective is a module of the training, never of the detector: it may hold layers that learn with the detector and a
teacher that doesn't, and leaves the detector's checkpoint and its cost untouched. A recipe's section turns it on.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn

from dualview.detectors.detector import Settings
from dualview.detectors.inputs import DetectorInputs
from dualview.detectors.prediction import Prediction
from dualview.scene.sweeps import LidarInput
from dualview.training.recipe import Recipe
from dualview.training.samples import ExtraReader, TrainingBatch


@dataclass(frozen=True)
class SampleNeeds:
    """What an objective asks of every sample: sweeps of LiDAR points (`DetectorInputs.points`), and readers of anything
    else, by the name under which `TrainingBatch.extras` will hold what they read.
    """

    lidar: LidarInput | None = None
    readers: tuple[tuple[str, ExtraReader], ...] = ()


class Objective(nn.Module):
    """Losses on a detector's prediction. Parameters that require gradients are trained with the detector's."""

    @property
    def needs(self) -> SampleNeeds:
        """What the samples must bring; nothing unless said otherwise."""
        return SampleNeeds()

    def complete(self, inputs: DetectorInputs, batch: TrainingBatch) -> DetectorInputs:
        """The detector's inputs with what this objective adds to them (from `batch.extras`); nothing unless said otherwise."""
        return inputs

    @abstractmethod
    def losses(self, prediction: Prediction, batch: TrainingBatch) -> dict[str, Tensor]:
        """Loss terms by name (a prefix of its own), weighted, to be summed. Computed in float32, outside autocast."""


class ObjectiveBuilder(Protocol):
    """From a recipe and the settings of the detector that it trains: an objective, or None where the recipe doesn't ask
    for it. Raises ConfigError where the recipe asks for what the detector hasn't got.
    """

    def __call__(
        self, recipe: Recipe, detector: Settings, tell: Callable[[str], None]
    ) -> Objective | None: ...


def builders() -> tuple[ObjectiveBuilder, ...]:
    """One of each `objective_*` module. They build on this one, so they are imported when they are asked for."""
    from dualview.training.objective_2d import build_image_box_objective
    from dualview.training.objective_colors import build_clean_colors
    from dualview.training.objective_image import build_image_centers
    from dualview.training.objective_lidar import build_lidar_objective
    from dualview.training.objective_maps import build_map_objective

    return (
        build_lidar_objective,
        build_image_box_objective,
        build_map_objective,
        build_image_centers,
        build_clean_colors,
    )


def build_objectives(
    recipe: Recipe, detector: Settings, tell: Callable[[str], None] = lambda line: None
) -> list[Objective]:
    """All objectives that a recipe asks for. Raises ConfigError as their builders do."""
    built = (build(recipe, detector, tell) for build in builders())
    return [objective for objective in built if objective is not None]


def joined_needs(objectives: list[Objective], detector: Settings) -> SampleNeeds:
    """What the samples of a run must bring. Raises ValueError if two ask for different sweeps: clouds are joined once."""
    asked: list[LidarInput] = [] if detector.lidar is None else [detector.lidar]
    readers: dict[str, Any] = {}
    for objective in objectives:
        needs = objective.needs
        if needs.lidar is not None and needs.lidar not in asked:
            asked.append(needs.lidar)
        readers |= dict(needs.readers)
    if len(asked) > 1:
        raise ValueError(f"one run reads LiDAR sweeps one way, but {asked[0]} and {asked[1]} are asked for")
    return SampleNeeds(asked[0] if asked else None, tuple(readers.items()))
