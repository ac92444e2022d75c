"""Recipes tried at full size without any data: two batches of one invented vehicle each, every loss, the gradient.

    python tools/dry_run.py nuscenes/bevdet_r50_tig … --device cuda     (all of config/recipes/nuscenes without a name)

Says of each recipe what the two frames cost and what came out, or why it couldn't be tried, and fails where that is so or a loss
or a gradient isn't a finite number. Teachers have random weights and label maps random features here, pretrained backbones
aren't loaded, and everything runs in float32. Without spconv a teacher of voxels is stood in for by one of pillars, whose map
has the same size and channels.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import resource
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dualview.detectors.centerpoint_config import CenterPointConfig
from dualview.detectors.checkpoint import build_detector, save_checkpoint
from dualview.detectors.detector import Settings
from dualview.errors import DualViewError
from dualview.geometry.boxes import Boxes3D
from dualview.networks.voxels import VOXEL_STRIDE, spconv_is_installed
from dualview.scene.frame import SurroundFrame
from dualview.teachers.bev_pooling import BevLabel
from dualview.teachers.label_store import FORMAT, SET_FILE, grid_entry
from dualview.training.clips import FrameRequest
from dualview.training.drive_store import LabelledFrame
from dualview.training.lidar_depth import Sweep, project_sweeps
from dualview.training.module import DetectorTraining
from dualview.training.objective_maps import EXTRA as LABEL_MAPS
from dualview.training.objectives import build_objectives, joined_needs
from dualview.training.recipe import Recipe, known_recipes, load_recipe, parse_changes
from dualview.training.samples import ClipDraw, TrainingBatch, collate, make_sample

# nuScenes' six cameras: yaw of the optical axis, degrees; all 1.5 m high and 1.3 m from the middle.
_YAWS = (0.0, -55.0, 55.0, 180.0, 110.0, -110.0)
_BOXES, _POINTS = 40, 25_000  # as busy as a street; a sweep's returns
_MAP_CHANNELS = 64  # what `dualview label-maps --pca 64` keeps of a foundation model's


@dataclass(frozen=True)
class DryRun:
    """What a recipe did: seconds of two steps, loss terms of the second, the largest gradient, the map's shape, and what was
    otherwise than the recipe says.
    """

    seconds: float
    losses: dict[str, float]
    gradient: float
    bev: tuple[int, ...]
    remark: str = ""


def invented_frame(config: Settings, step: int, random: np.random.Generator) -> tuple[LabelledFrame, Tensor]:
    """A vehicle that drives straight on among boxes, half a second later with each step; and its cloud [P, 5]."""
    height, width = config.image_size
    cameras = len(_YAWS)
    intrinsics = torch.tensor([[0.79 * width, 0, width / 2], [0, 0.79 * width, height * 0.45], [0, 0, 1]])
    optical = np.array([[0.0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1]])
    mounted = []
    for yaw in np.deg2rad(_YAWS):
        turn = np.eye(4)
        turn[:2, :2] = [[np.cos(yaw), -np.sin(yaw)], [np.sin(yaw), np.cos(yaw)]]
        turn[:3, 3] = [1.3 * np.cos(yaw), 1.3 * np.sin(yaw), 1.5]
        mounted.append(turn @ optical)
    pose = torch.eye(4, dtype=torch.float64)
    pose[0, 3] = 4.0 * step
    stamp = 1_700_000_000_000_000_000 + step * 500_000_000
    frame = SurroundFrame(
        stamp_ns=stamp,
        images=torch.from_numpy(random.integers(0, 256, (cameras, 3, height, width), np.uint8)),
        camera_stamps_ns=torch.full((cameras,), stamp),
        intrinsics=intrinsics.float().expand(cameras, 3, 3).clone(),
        ego_from_camera=torch.from_numpy(np.stack(mounted)).float(),
        world_from_ego=pose.expand(cameras, 4, 4).clone(),
        world_from_ego_anchor=pose,
        camera_mask=torch.ones(cameras, dtype=torch.bool),
    )
    place = random.uniform(-45, 45, (_BOXES, 2))
    size = random.uniform([0.6, 0.6, 1.0], [8.0, 2.5, 3.0], (_BOXES, 3))
    boxes = Boxes3D(
        center=torch.from_numpy(np.c_[place, size[:, 2] / 2]).float(), size=torch.from_numpy(size).float(),
        yaw=torch.from_numpy(random.uniform(-3, 3, _BOXES)).float(), velocity=torch.zeros(_BOXES, 3),
        label=torch.arange(_BOXES) % len(config.class_names), score=torch.ones(_BOXES), track_id=torch.arange(_BOXES),
    )  # fmt: skip
    ground = np.c_[random.uniform(-51, 51, (_POINTS, 2)), np.zeros(_POINTS)]
    inside = (place[:, None] + random.uniform(-0.3, 0.3, (_BOXES, 60, 2))).reshape(-1, 2)
    near = np.concatenate([ground, np.c_[inside, random.uniform(0.2, 1.0, len(inside))]])
    depth = project_sweeps([Sweep("/lidar", stamp, near + pose[:3, 3].numpy())], frame)
    counts = torch.full((_BOXES,), 60)
    labelled = LabelledFrame(frame, boxes, counts, torch.ones(_BOXES), True, torch.from_numpy(depth))
    ages = [np.c_[near, np.full(len(near), 30.0), np.full(len(near), 0.05 * i)] for i in range(10)]
    return labelled, torch.from_numpy(np.concatenate(ages)).float()


def batch_at(
    recipe: Recipe, config: Settings, step: int, with_points: bool, random: np.random.Generator
) -> TrainingBatch:
    """One vehicle's frame as training would have it, augmentation and all."""
    labelled, points = invented_frame(config, step, random)
    request = FrameRequest(0, step, (recipe.seed, 0, 0), step)
    draw = ClipDraw.of(request, labelled.frame, recipe.augmentation)
    sample = make_sample(
        labelled, request, draw, "invented", recipe.augmentation, recipe.data, config.working_from_ego_matrix,
        points if with_points else None,
    )  # fmt: skip
    batch = collate([sample])
    return batch if recipe.map_distillation is None else replace(batch, extras={LABEL_MAPS: [invented_label(config)]})


def dry_run(recipe: Recipe, device: torch.device) -> DryRun:
    """Two steps, of which the second remembers the first. Raises DualViewError if the recipe's parts don't fit."""
    config = recipe.detector_config()
    with tempfile.TemporaryDirectory() as folder:
        recipe, remark = _with_random_teacher(recipe, Path(folder))
        recipe = _with_empty_maps(recipe, config, Path(folder))
        objectives = build_objectives(recipe, config, lambda line: print(f"    {line}"))
    with_points = joined_needs(objectives, config).lidar is not None
    random = np.random.default_rng(0)
    module = DetectorTraining(replace(recipe, precision="fp32"), build_detector(config), objectives)
    module = module.to(device).train()
    begin = time.perf_counter()
    total = torch.zeros(())
    for step in range(2):
        batch = batch_at(recipe, config, step, with_points, random)
        total = module.training_step(batch.to(device), step)
    total.backward()  # of the second; the first, whose map is remembered without gradient, is only seen
    found = module.last_prediction
    bev = () if found is None or found.bev is None else tuple(found.bev.features.shape)
    gradients = [p.grad.abs().max() for p in module.parameters() if p.grad is not None]
    largest = float(torch.stack(gradients).max())
    return DryRun(time.perf_counter() - begin, dict(module.last_losses), largest, bev, remark)


def invented_label(config: Settings) -> BevLabel:
    """The label map of a frame: random features in the half of the cells that LiDAR might have seen."""
    grid = config.bev_grid
    assert grid is not None
    cells = torch.randperm(grid.rows * grid.columns)[::2].sort().values
    return BevLabel(cells, torch.randn(len(cells), _MAP_CHANNELS).half(), torch.ones(len(cells)))


def _with_empty_maps(recipe: Recipe, config: Settings, folder: Path) -> Recipe:
    """The recipe with a folder of label maps, of no drive, in the place of the one that it names."""
    if recipe.map_distillation is None or config.bev_grid is None:
        return recipe
    content = {"format": FORMAT, "grid": grid_entry(config.bev_grid), "channels": _MAP_CHANNELS, "components": _MAP_CHANNELS}
    (folder / SET_FILE).write_text(json.dumps(content))
    section = replace(recipe.map_distillation, labels=str(folder))
    return replace(recipe, map_distillation=section, data=replace(recipe.data, train=()))


def _with_random_teacher(recipe: Recipe, folder: Path) -> tuple[Recipe, str]:
    """The recipe with a teacher of random weights in the place of the trained one that its path promises: the preset whose
    name the path's folder has ("runs/centerpoint_voxel/weights.safetensors"). Also a remark, if it isn't that preset.
    """
    section = recipe.lidar_distillation
    if (
        section is None
        or section.teacher is None
        or not section.settings.needs_teacher
        or Path(section.teacher).is_file()
    ):
        return recipe, ""
    teacher = load_recipe(_known_like(Path(section.teacher).parent.name)).detector_config()
    remark = ""
    if isinstance(teacher, CenterPointConfig) and teacher.branch.encoder == "voxels" and not spconv_is_installed():
        teacher, remark = with_pillars(teacher), "spconv isn't installed: pillars stand in for the teacher's voxels"
    path = folder / "teacher.safetensors"
    save_checkpoint(build_detector(teacher), path)
    return replace(recipe, lidar_distillation=replace(section, teacher=str(path))), remark


def with_pillars(teacher: CenterPointConfig) -> CenterPointConfig:
    """The same teacher with a pillar for each cell that its voxels end in: SECOND, its pyramid and the map stay as they are."""
    branch = teacher.branch
    width = 2 * branch.features[-1]  # the two layers of height that voxels leave, side by side
    pillars = replace(branch, encoder="pillars", voxel=branch.voxel * VOXEL_STRIDE, features=(width,))
    return replace(teacher, name=f"{teacher.name}-stand-in", branch=pillars)


def _known_like(name: str) -> str:
    known = known_recipes()
    return f"nuscenes/{name}" if f"nuscenes/{name}" in known else name


def _peak_memory(device: torch.device) -> str:
    if device.type == "cuda":
        return f"peak so far {torch.cuda.max_memory_allocated(device) / 2**30:.1f} GiB of the GPU"
    return f"peak so far {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.1f} GiB"


def main(arguments: list[str] | None = None) -> int:
    """Try the recipes named; 1 if one of them failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipes", nargs="*", help="names or files (default: all of config/recipes/nuscenes)")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="change a key of all of them"
    )
    parser.add_argument("--device", default="cpu", help="cpu, or a GPU such as cuda (default: %(default)s)")
    given = parser.parse_args(arguments)
    device = torch.device(given.device)
    changes: dict[str, Any] = parse_changes(given.set)
    failed = 0
    for name in given.recipes or sorted(n for n in known_recipes() if n.startswith("nuscenes/")):
        try:
            found = dry_run(load_recipe(name, changes), device)
        except (DualViewError, ValueError, RuntimeError) as error:  # the other recipes may be well
            print(f"{name}: FAILED: {error}", flush=True)
            failed += 1
            continue
        good = math.isfinite(found.gradient) and all(math.isfinite(value) for value in found.losses.values())
        failed += not good
        extra = {
            k: round(v, 3) for k, v in found.losses.items() if k.startswith(("tig/", "ray/", "response", "maps/"))
        }
        print(
            f"{name}: {'ok' if good else 'NOT FINITE'}, map {list(found.bev)}, loss {found.losses['total']:.2f}, largest gradient "
            f"{found.gradient:.3g}, {found.seconds:.0f} s, {_peak_memory(device)} {extra or ''}"
            + (f" ({found.remark})" if found.remark else ""),
            flush=True,
        )
        gc.collect()
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
