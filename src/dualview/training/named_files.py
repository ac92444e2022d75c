"""Files and folders that a recipe names, looked for before anything slow begins."""

from __future__ import annotations

import os
from pathlib import Path

from dualview.detectors.checkpoint import close_checkpoint, find_checkpoint
from dualview.training.recipe import Recipe


def missing_files(recipe: Recipe) -> list[str]:
    """What `recipe` names and isn't there, a sentence each, with its key; `start_from` was read with the recipe."""
    lidar, maps = recipe.lidar_distillation, recipe.map_distillation
    checkpoints = {
        "backbone_weights": recipe.backbone_weights,
        "neck_weights": recipe.neck_weights,
        "lidar_distillation.teacher": lidar.teacher if lidar is not None and lidar.settings.needs_teacher else None,
    }
    missing = [
        f"{key}: there is no checkpoint '{name}'{_unset(name)}{_meant(name)}"
        for key, name in checkpoints.items()
        if name is not None and not find_checkpoint(name).exists()
    ]
    if maps is not None and not Path(os.path.expandvars(maps.labels)).expanduser().is_dir():
        missing.append(f"map_distillation.labels: there is no folder '{maps.labels}'{_unset(maps.labels)}")
    return missing


def _meant(name: str) -> str:
    meant = close_checkpoint(name)
    return f": {meant}" if meant else ""


def _unset(name: str) -> str:
    """What is wrong with a name in which a variable isn't filled in."""
    left = [part for part in Path(os.path.expandvars(name)).parts if part.startswith("$")]
    return f": the environment variable {left[0].strip('${}')} isn't set" if left else ""
