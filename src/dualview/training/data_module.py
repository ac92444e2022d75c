"""Recordings, drives and loaders of a training run, as Lightning asks for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils.data import DataLoader

from dualview.detectors.detector import Settings
from dualview.errors import ConfigError
from dualview.scene.rig import load_rig
from dualview.training.bag_index import IndexSettings, find_recordings, index_recordings
from dualview.training.clips import ClipSampler
from dualview.training.drive_store import DriveSummary
from dualview.training.lightning import lightning
from dualview.training.objectives import SampleNeeds
from dualview.training.offline_depth import MapDepthReader
from dualview.training.recipe import Recipe
from dualview.training.recipe_settings import DataSettings
from dualview.training.samples import FrameDataset, collate
from dualview.training.stop_signals import leave_signals_to_the_run


def index_settings(detector: Settings, data: DataSettings) -> IndexSettings:
    """How drives must be kept for a detector."""
    return IndexSettings(
        detector.image_size, detector.class_names, data.max_rate, data.interpolate, data.max_gap
    )


def prepare_drives(
    recipe: Recipe,
    detector: Settings,
    tell: Callable[[str], None] = lambda line: None,
    with_sweeps: bool | None = None,
) -> list[DriveSummary]:
    """The training drives of a recipe, built where they are missing. with_sweeps: store LiDAR sweeps too (None: if the
    detector takes them). Raises ConfigError if the recipe names no recordings.
    """
    if not recipe.data.train:
        raise ConfigError("the recipe names no recordings: set data.train, or give them with --bags")
    sweeps = detector.lidar is not None if with_sweeps is None else with_sweeps
    cache = recipe.data.cache_folder
    return index_recordings(
        find_recordings(recipe.data.train), load_rig(recipe.data.rig), index_settings(detector, recipe.data), cache,
        recipe.data.broken, tell, sweeps,
    )  # fmt: skip


class StreamingData(lightning().LightningDataModule):  # type: ignore[misc]
    """The training clips. `start` is the batch that comes first: set from the checkpoint when a run goes on."""

    def __init__(
        self, recipe: Recipe, detector: Settings, drives: list[DriveSummary], needs: SampleNeeds | None = None
    ) -> None:
        """needs: what samples must bring beside what the detector takes."""
        super().__init__()
        self.recipe, self.detector, self.drives = recipe, detector, drives
        self.needs = needs or SampleNeeds(detector.lidar)
        self.start = 0
        self._loader: StreamingLoader | None = None

    def train_dataloader(self) -> DataLoader:
        """Batches of `TrainingBatch` from batch `start` on, in an order that nothing but the recipe decides."""
        recipe, trainer, labels = self.recipe, self.trainer, self.recipe.labels_2d
        rank = trainer.global_rank if trainer is not None else 0
        world = trainer.world_size if trainer is not None else 1
        sampler = ClipSampler(
            self.drives, recipe.clips, recipe.seed, recipe.batch_size, recipe.steps * recipe.accumulate,
            self.start, rank, world, 0.5 if labels is None else labels.share,
        )  # fmt: skip
        matrix = self.detector.working_from_ego_matrix
        dataset = FrameDataset(
            self.drives, recipe.augmentation, recipe.data, matrix, self.needs.lidar, self.needs.readers,
            labels is not None and labels.own_depth == "lidar",
            MapDepthReader(labels, self.detector.image_size) if labels and labels.own_depth == "maps" else None,
            self.detector.lidar is not None and self.detector.image_backbone_name is None,
        )  # fmt: skip
        self._loader = make_loader(dataset, sampler, recipe.data.workers)
        return self._loader

    def close(self) -> None:
        """End the loader's workers, which nothing else ends if the run failed: they don't listen to signals."""
        if self._loader is not None:
            self._loader.close()

    def state_dict(self) -> dict[str, Any]:
        """What the checkpoint keeps: the number of batches that were consumed."""
        return {"start": self.trainer.lightning_module.batches_seen}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on after the batches of the checkpoint."""
        self.start = int(state_dict["start"])


class StreamingLoader(DataLoader):
    """A loader whose sampler starts at the right batch by itself (see `StreamingData`): it has no state of
    its own to keep.
    """

    def __iter__(self) -> Any:
        """As any loader, but remembered for `close`."""
        self._latest = super().__iter__()
        return self._latest

    def close(self) -> None:
        """End the workers, if they still live."""
        latest = self.__dict__.pop("_latest", None)
        if hasattr(latest, "_shutdown_workers"):
            latest._shutdown_workers()
            for worker in latest._workers:
                if worker.is_alive():
                    worker.kill()

    def state_dict(self) -> dict[str, Any]:
        """Nothing; its presence tells Lightning that a run may go on in the middle."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Nothing to load."""


def make_loader(dataset: FrameDataset, sampler: ClipSampler, workers: int) -> StreamingLoader:
    """A loader whose workers stay one batch ahead each; they run on one thread so that the network keeps its
    cores.
    """
    return StreamingLoader(
        dataset, batch_sampler=sampler, num_workers=workers, collate_fn=collate,  # type: ignore[arg-type]
        prefetch_factor=3 if workers else None, pin_memory=torch.cuda.is_available(), persistent_workers=False,
        worker_init_fn=leave_signals_to_the_run,
    )  # fmt: skip
