"""The drives of a run, of which some have 3D labels and some 2D labels alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from dualview.detectors.detector import Settings
from dualview.errors import ConfigError, DualViewError
from dualview.scene.labels_2d.labels import IGNORE, count_classes
from dualview.scene.rig import Rig, load_rig
from dualview.training.bag_index import find_recordings, index_recordings
from dualview.training.data_module import index_settings, prepare_drives
from dualview.training.drive_store import DriveSummary
from dualview.training.labels_2d_settings import Labels2DSettings
from dualview.training.labels_2d_store import StoredLabels2D, labels_file, store_labels_2d
from dualview.training.offline_depth import depth_store
from dualview.training.recipe import Recipe

_MANY = 0.6  # of the labelled images: if fewer are in frames that are kept, something is set wrongly


def training_drives(
    recipe: Recipe,
    detector: Settings,
    tell: Callable[[str], None] = lambda line: None,
    with_sweeps: bool | None = None,
) -> list[DriveSummary]:
    """All drives of a recipe, those of `data.train` first; built where they are missing.

    Raises ConfigError, with what to do, if a recording is named on both sides or has no 2D labels that can be used, if its depth is
    missing, or if the two sides have other numbers of cameras.
    """
    settings = recipe.labels_2d
    if settings is None:
        return prepare_drives(recipe, detector, tell, with_sweeps)
    paths = find_recordings(settings.train)
    both = sorted({path.name for path in set(paths) & set(find_recordings(recipe.data.train))})
    if both:
        raise ConfigError(
            f"{', '.join(both[:3])} is named in data.train and in labels_2d.train: with its 3D labels (data.train, and "
            "labels_2d.on_source if its 2D labels shall count too) or without them (labels_2d.train)"
        )
    source: list[DriveSummary] = []
    if recipe.data.train or not settings.train:
        source = prepare_drives(recipe, detector, tell, with_sweeps)
    if settings.on_source:
        rig = load_rig(recipe.data.rig)
        found = [labelled_in_2d(drive, rig, detector, settings, on_source=True) for drive in source]
        _say(found, "of data.train", tell)
        source = [one.drive for one in found]
    if not paths:
        return source
    rig = load_rig(settings.rig or recipe.data.rig)
    cache = recipe.data.cache_folder
    sweeps = detector.lidar is not None if with_sweeps is None else with_sweeps
    stored = index_recordings(
        paths, rig, index_settings(detector, recipe.data), cache, recipe.data.broken, tell, sweeps
    )
    found = [labelled_in_2d(drive, rig, detector, settings, on_source=False) for drive in stored]
    _say(found, "of labels_2d.train", tell)
    target = [one.drive for one in found]
    counts = [sorted({drive.cameras for drive in side}) for side in (source, target)]
    if source and counts[0] != counts[1]:
        raise ConfigError(
            f"the drives of data.train have {counts[0]} cameras, those of labels_2d.train {counts[1]}, and they share batches: use rigs "
            "with as many cameras on both sides (leave cameras out of the larger rig's file)"
        )
    return [*source, *target]


@dataclass(frozen=True)
class LabelledDrive:
    """A drive with what 2D labels it has. images: labelled ones; used: those of them that are in frames that are kept; others: classes
    of labels that the detector doesn't know."""

    drive: DriveSummary
    images: int
    used: int
    others: tuple[str, ...]


def labelled_in_2d(
    drive: DriveSummary, rig: Rig, detector: Settings, settings: Labels2DSettings, on_source: bool
) -> LabelledDrive:
    """A stored drive with its 2D labels beside it. on_source: clips go on to walk the frames with 3D labels, and none of the recording's
    images need have 2D ones. Raises ConfigError if nothing can be learned from its 2D labels, or the depth asked for is missing.
    """
    name = Path(drive.source).name
    stored = store_labels_2d(Path(drive.source), rig, drive.folder)
    counts = count_classes(stored.labels)
    known = {*detector.class_names, IGNORE}
    others = tuple(sorted(set(counts) - known))
    in_frames = images_in_frames(drive, rig, stored)
    result = LabelledDrive(
        replace(drive, labels_2d=labels_file(rig)), stored.image_count, int(in_frames.sum()), others
    )
    if not on_source:
        if not stored.image_count:
            topics = ", ".join(str(rig.annotations_2d_topic_of(camera)) for camera in rig.camera_names[:2])
            raise ConfigError(
                f"{name} has no 2D label on any image ({topics}, ...): make some with `dualview label-2d`, or check the "
                f"annotations_2d_topic of rig '{rig.name}'"
            )
        if counts and not set(counts) & known:
            raise ConfigError(
                f"the 2D labels of {name} are of classes {', '.join(others)}, of which {detector.name} knows none: rename them in the "
                f"class_map of rig '{rig.name}' to {', '.join(detector.class_names)}"
            )
        if not in_frames.any():
            raise ConfigError(
                f"none of the {stored.image_count} images of {name} with 2D labels is in a frame that training keeps: raise "
                "data.max_rate to the cameras' rate"
            )
        result = replace(
            result, drive=replace(result.drive, labelled=np.asarray(in_frames.any(1)), only_2d=True)
        )
    if settings.depth is not None and stored.image_count:
        try:
            store = depth_store(drive.source, settings)
            if store.about()["kind"] != "metric":
                store.fits(settings.metric)
        except DualViewError as error:
            raise ConfigError(
                f"labels_2d.depth {settings.depth}: {error}, or set labels_2d.depth to null"
            ) from error
    return result


def images_in_frames(drive: DriveSummary, rig: Rig, stored: StoredLabels2D) -> np.ndarray:
    """bool [F, N]: images of a drive's frames that have 2D labels."""
    with np.load(drive.folder / "drive.npz") as arrays:
        stamps, mask = arrays["camera_stamps"], arrays["camera_mask"]
    labelled = np.zeros_like(mask)
    for index, camera in enumerate(rig.camera_names):
        if camera in stored.calibrations:
            labelled[:, index] = np.isin(
                stamps[:, index], np.array(list(stored.labels.get(camera, {})), np.int64)
            )
    return labelled & mask


def _say(found: Sequence[LabelledDrive], which: str, tell: Callable[[str], None]) -> None:
    images, used = sum(one.images for one in found), sum(one.used for one in found)
    tell(f"{len(found)} drives {which} with {used} images that have 2D labels")
    if used < _MANY * images:
        tell(
            f"  {images - used} more labelled images are in no frame that is kept: raise data.max_rate to use them"
        )
    others = sorted({name for one in found for name in one.others})
    if others:
        tell(f"  2D labels of {', '.join(others)} are left out: the detector has no such classes")
