"""Small detectors of every kind, as recipes on the small world, and a small LiDAR teacher beside them."""

from __future__ import annotations

from pathlib import Path

from small_world import CLASSES

from dualview.detectors.checkpoint import build_detector, save_checkpoint
from dualview.training.recipe import recipe_from_dict

GRID = {"x_min": -32.0, "y_min": -32.0, "resolution": 4.0, "columns": 16, "rows": 16}
HEAD = {"tasks": [[0], [1]], "shared_channels": 8, "branch_channels": 8}
COMMON = {
    "image_size": [64, 96], "class_names": list(CLASSES), "camera_names": ["front", "back"], "center_head": HEAD,
    "track_threshold": 0.0,
}  # fmt: skip
# Narrower backbones end the process on CPUs without AVX-512: oneDNN writes beyond the gradient of a strided 1x1 convolution of 4 channels.
CAMERAS = {
    **COMMON, "backbone.name": "resnet18", "backbone.widths": [8, 8], "neck_channels": 16, "bev.grid": GRID,
    "bev.depth_bins": {"start": 1.0, "stop": 33.0, "step": 2.0}, "bev.depth_channels": 8, "bev.context_channels": 8,
    "bev.encoder_channels": [8, 8, 8], "bev.out_channels": 8,
}  # fmt: skip
LIDAR = {
    **COMMON, "branch.grid": GRID, "branch.voxel": 2.0, "branch.features": [8], "branch.channels": [8, 8],
    "branch.layers": [1, 1], "branch.strides": [1, 2], "branch.pyramid_channels": [4, 8],
}  # fmt: skip
BEVFORMER = {
    **{key: value for key, value in COMMON.items() if key not in ("center_head",)},
    "backbone.name": "resnet18", "backbone.widths": [8, 8], "backbone.strides": [8, 16],
    "network.class_count": 2, "network.embed_dims": 32, "network.heads": 2, "network.feedforward_dims": 32,
    "network.grid": {**GRID, "resolution": 8.0, "columns": 8, "rows": 8}, "network.num_queries": 24,
    "network.camera_points": 4,
}  # fmt: skip


def overrides_of(small_recipe: dict, model: str) -> dict:
    """What makes a tiny preset small."""
    if model.startswith("dualview"):
        return small_recipe["overrides"]
    if model.startswith("bevformer"):
        return BEVFORMER
    return LIDAR if model.startswith("centerpoint") else CAMERAS


def recipe_of(small_recipe: dict, model: str, **changes) -> dict:
    """A recipe of three steps. The plain default of `losses` holds denoising queries, which most don't take."""
    losses = small_recipe["losses"] if model.startswith("dualview") else {}
    content = {
        **small_recipe,
        "model": model,
        "overrides": overrides_of(small_recipe, model),
        "losses": losses,
    }
    return {**content, "steps": 3, **changes}


def save_teacher(small_recipe: dict, path: Path, seed: int = 5, **overrides) -> Path:
    """A CenterPoint of random weights, as a checkpoint."""
    recipe = recipe_of(small_recipe, "centerpoint-tiny")
    config = recipe_from_dict({**recipe, "overrides": {**LIDAR, **overrides}}).detector_config()
    save_checkpoint(build_detector(config, seed), path)
    return path
