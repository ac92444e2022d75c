"""Learning from label maps: the features of a foundation model on the ground plane, distilled into the BEV map
(DualViewDistill, arXiv 2510.10287), for any detector that has one.

The detector stays what it is: the linear head between its channels and the teacher's lives here. It is kept with the
run (last.ckpt) and in no detector's weights.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from dualview.detectors.checkpoint import DISTILLATION_PREFIX
from dualview.detectors.detector import Settings
from dualview.detectors.inputs import DetectorInputs
from dualview.detectors.prediction import Prediction
from dualview.detectors.systems import bev_channels
from dualview.errors import ConfigError
from dualview.geometry.bev_grid import BevGrid
from dualview.supervision.detection_loss import average_count
from dualview.supervision.map_distillation import map_distillation_loss
from dualview.teachers.bev_pooling import BevLabel
from dualview.teachers.label_store import LabelMaps, open_label_maps
from dualview.training.bag_index import find_recordings
from dualview.training.objectives import Objective, SampleNeeds
from dualview.training.recipe import Recipe
from dualview.training.samples import FrameView, TrainingBatch

EXTRA = "label_maps"
LAST = "last.ckpt"  # of a run's folder
_TRIED = 50  # batches from the start after which it is said what share of the frames has a label
_ENOUGH = 0.9  # of the frames; at the ends of a recording some may lack one


@dataclass(frozen=True)
class LabelMapReader:
    """The occupied cells of a sample's label map in its augmented working frame; None if there is no label within 5 ms of
    the frame's stamp.
    """

    maps: LabelMaps

    def __call__(self, view: FrameView) -> BevLabel | None:
        working_from_ego = view.draw.bev.homogeneous @ view.working_from_ego
        return self.maps.sparse(view.drive.source, view.labelled.frame.stamp_ns, working_from_ego)


class _Coverage:
    """Counts the frames of the first batches that have a label, and reports once if those without are many."""

    def __init__(self, report: Callable[[str], None]) -> None:
        self._report = report
        self._batches = self._frames = self._labelled = 0

    def count(self, batch: TrainingBatch) -> None:
        if self._batches == _TRIED:
            return
        labels = batch.extras[EXTRA]
        self._batches += 1
        self._frames += len(labels)
        self._labelled += sum(label is not None for label in labels)
        if self._batches == _TRIED and self._labelled < _ENOUGH * self._frames:
            self._report(
                f"map_distillation: {self._labelled} of the first {self._frames} frames have a label map (last: {batch.sources[0]}): "
                "were the maps made of all drives with the same rig, and at a rate like data.max_rate?"
            )


class MapDistillation(Objective):
    """The cosine loss between the BEV map, through a linear head, and the labels."""

    def __init__(
        self, maps: LabelMaps, channels: int, weight: float, tell: Callable[[str], None] = lambda line: None
    ) -> None:
        """channels: of the BEV map. tell: where it is said that nothing has a label."""
        super().__init__()
        self.distillation_head = nn.Linear(channels, maps.channels)
        self._maps, self._weight = maps, weight
        self._coverage = _Coverage(tell)

    @property
    def needs(self) -> SampleNeeds:
        """The label of every sample."""
        return SampleNeeds(readers=((EXTRA, LabelMapReader(self._maps)),))

    def losses(self, prediction: Prediction, batch: TrainingBatch) -> dict[str, Tensor]:
        """Term "maps/cosine"; frames without a label and cells without one teach nothing."""
        assert prediction.bev is not None
        features = prediction.bev.features
        target, mask = stacked_labels(
            batch.extras[EXTRA], self._maps.grid, self._maps.channels, features.device
        )
        self._coverage.count(batch)
        loss = map_distillation_loss(features, self.distillation_head, target, mask)
        # On average over processes the mean over the labelled cells of all of them.
        share = mask.sum() / average_count(mask.sum())
        return {"maps/cosine": self._weight * share * loss}


class LabelMapInput(Objective):
    """No objective but an input: label maps for a detector that reads them in place of the cameras' map (the oracle)."""

    def __init__(self, maps: LabelMaps) -> None:
        super().__init__()
        self._maps = maps
        self._coverage = _Coverage(_refuse)

    @property
    def needs(self) -> SampleNeeds:
        """The label of every sample."""
        return SampleNeeds(readers=((EXTRA, LabelMapReader(self._maps)),))

    def complete(self, inputs: DetectorInputs, batch: TrainingBatch) -> DetectorInputs:
        """`inputs.label_map`; all zero for frames without a label. Raises ConfigError when those have been many."""
        self._coverage.count(batch)
        labels, grid = batch.extras[EXTRA], self._maps.grid
        shape = (len(labels), self._maps.channels, grid.rows * grid.columns)
        maps = torch.zeros(shape, dtype=torch.float16, device=inputs.images.device)
        for one, label in zip(maps, labels, strict=True):
            if label is not None:
                one[:, label.cells] = label.features.half().T
        return replace(inputs, label_map=maps.unflatten(2, (grid.rows, grid.columns)))

    def losses(self, prediction: Prediction, batch: TrainingBatch) -> dict[str, Tensor]:
        """None."""
        return {}


def _refuse(reason: str) -> None:
    raise ConfigError(f"{reason} To the oracle the others are empty")


def stacked_labels(
    labels: list[BevLabel | None], grid: BevGrid, channels: int, device: torch.device | str = "cpu"
) -> tuple[Tensor, Tensor]:
    """Labels of a batch as `map_distillation_loss` takes them: target [K, channels], mask bool [B, Y, X]."""
    mask = torch.zeros(len(labels), grid.rows * grid.columns, dtype=torch.bool, device=device)
    found = []
    for row, label in zip(mask, labels, strict=True):
        if label is not None:
            row[label.cells] = True
            found.append(label.features)  # cells rise, as the mask's do
    target = torch.cat(found) if found else torch.zeros(0, channels, device=device)
    return target, mask.view(-1, grid.rows, grid.columns)


def build_map_objective(
    recipe: Recipe, detector: Settings, tell: Callable[[str], None]
) -> MapDistillation | LabelMapInput | None:
    """What `recipe.map_distillation` asks for. Raises ConfigError, saying what to change, if the folder holds no maps,
    maps on another grid, or maps of none of the training drives, or if the detector has no BEV map.
    """
    section, oracle = recipe.map_distillation, getattr(detector, "oracle", None)
    wanted = 0 if oracle is None else oracle.map_channels
    if section is None:
        if wanted:
            raise ConfigError(
                f"{detector.name} reads label maps: name their folder (map_distillation: {{labels: DIR, weight: 0}})"
            )
        return None
    channels, grid = bev_channels(detector), detector.bev_grid
    if channels is None or grid is None:
        raise ConfigError(
            f"map_distillation: {detector.name} has no bird's-eye-view map to teach: choose another model, or leave the "
            "section out"
        )
    if not wanted and not section.weight:
        tell("map_distillation: the weight is 0, label maps aren't read")
        return None
    maps = open_label_maps(section.labels, grid)
    _tell_coverage(maps, recipe, tell)
    if wanted:
        if wanted != maps.channels:
            raise ConfigError(
                f"{detector.name} reads label maps of {wanted} channels, those in {maps.directory} have {maps.channels}: set "
                f"overrides.oracle.map_channels to {maps.channels}"
            )
        if section.weight:
            raise ConfigError(
                f"map_distillation: {detector.name} reads the label maps, it can't be taught them too: set weight to 0"
            )
        return LabelMapInput(maps)
    with torch.random.fork_rng(devices=[]):  # the detector's own weights stay those of its base
        torch.manual_seed(recipe.seed)
        return MapDistillation(maps, channels, section.weight, tell)


def load_distillation_head(folder: Path) -> nn.Linear:
    """The head that a run trained beside its detector, from its last.ckpt. Raises ConfigError if there is none."""
    path = folder / LAST
    if not path.is_file():
        raise ConfigError(
            f"{folder} holds no {LAST}: name the folder of a training run, which keeps the distillation head"
        )
    kept = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    own = {
        name.split(DISTILLATION_PREFIX)[1]: v for name, v in kept.items() if f".{DISTILLATION_PREFIX}" in name
    }
    if set(own) != {"weight", "bias"}:
        raise ConfigError(f"{path} holds no distillation head: its recipe had no map_distillation")
    head = nn.Linear(own["weight"].shape[1], own["weight"].shape[0])
    head.load_state_dict(own)
    return head.eval().requires_grad_(False)


def _tell_coverage(maps: LabelMaps, recipe: Recipe, tell: Callable[[str], None]) -> None:
    """Say how many of the training drives have maps. Raises ConfigError if none has."""
    recordings = find_recordings(recipe.data.train)
    without = [path.name for path in recordings if not len(maps.stamps(path))]
    if recordings and len(without) == len(recordings):
        raise ConfigError(
            f"{maps.directory} holds label maps of none of the {len(recordings)} training drives ({', '.join(without[:3])}"
            f"{', ...' if len(without) > 3 else ''}): make them with `dualview label-maps BAG... --out {maps.directory}`"
        )
    line = f"label maps of {len(recordings) - len(without)} of {len(recordings)} drives, {maps.channels} channels"
    if without:
        line += f"; without: {', '.join(without[:5])}{', ...' if len(without) > 5 else ''}"
    tell(line)
