"""Files and folders that a recipe names, looked for before anything slow begins."""

from __future__ import annotations

import os
from pathlib import Path

from dualview.detectors.backbone_weights import PACKAGED
from dualview.detectors.checkpoint import close_checkpoint, find_checkpoint
from dualview.errors import DualViewError
from dualview.training.bag_index import find_recordings
from dualview.training.labels_2d_settings import Labels2DSettings
from dualview.training.lidar_teacher import TRAIN_ONE
from dualview.training.offline_depth import depth_store
from dualview.training.recipe import Recipe

_TEACHER = "lidar_distillation.teacher"


def missing_files(recipe: Recipe) -> list[str]:
    """What `recipe` names and isn't there, a sentence each, with its key; `start_from` was read with the recipe."""
    lidar, maps = recipe.lidar_distillation, recipe.map_distillation
    checkpoints = {
        "backbone_weights": recipe.backbone_weights,
        "neck_weights": recipe.neck_weights,
        _TEACHER: lidar.teacher if lidar is not None and lidar.settings.needs_teacher else None,
    }
    missing = [
        f"{key}: there is no checkpoint '{name}'{_unset(name)}{_meant(name, TRAIN_ONE if key == _TEACHER else '')}"
        for key, name in checkpoints.items()
        if name is not None and not PACKAGED.fullmatch(name) and not find_checkpoint(name).exists()
    ]
    if maps is not None and not Path(os.path.expandvars(maps.labels)).expanduser().is_dir():
        missing.append(f"map_distillation.labels: there is no folder '{maps.labels}'{_unset(maps.labels)}")
    if recipe.anchors not in ("preset", "k-means") and not Path(recipe.anchors).expanduser().is_file():
        missing.append(f"anchors: there is no file '{recipe.anchors}': make it with `dualview anchors`")
    return missing + (_missing_depth(recipe.labels_2d) if recipe.labels_2d is not None else [])


def _missing_depth(settings: Labels2DSettings) -> list[str]:
    """The first recording with 2D labels that isn't there, or has no depth maps where they are asked for."""
    try:
        for recording in find_recordings(settings.train):
            if settings.depth is not None:
                depth_store(str(recording), settings).about()
    except DualViewError as error:
        return [f"labels_2d: {error}"]
    return []


def _meant(name: str, otherwise: str) -> str:
    meant = close_checkpoint(name, otherwise=otherwise)
    return f": {meant}" if meant else ""


def _unset(name: str) -> str:
    """What is wrong with a name in which a variable isn't filled in."""
    left = [part for part in Path(os.path.expandvars(name)).parts if part.startswith("$")]
    return f": the environment variable {left[0].strip('${}')} isn't set" if left else ""
