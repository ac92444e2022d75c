"""Learned anchors begin where objects are: k-means of the training boxes (Sparse4D, arXiv 2211.10581, section
3.2).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dualview.errors import ConfigError
from dualview.networks.box_state import CENTER, COS_YAW, LOG_SIZE, STATE_SIZE, spiral_anchors
from dualview.training.drive_store import Drive, DriveSummary
from dualview.training.recipe import Recipe
from dualview.training.recipe_settings import DataSettings

_MOST_BOXES = 60_000  # a random part of more boxes gives the same clusters in less time


def training_boxes(drives: Sequence[DriveSummary], data: DataSettings) -> np.ndarray:
    """Boxes float32 [M, 6] (centre, size m; ego frames) of all drives that count by `data`'s rules."""
    parts = []
    for summary in drives:
        drive = Drive(summary.folder)
        boxes, _ = drive.boxes()
        counted = drive.counting_boxes(data.min_lidar_points)
        near = boxes.center[:, :2].norm(dim=1) <= data.max_range
        kept = boxes[counted & near]
        parts.append(torch.cat([kept.center, kept.size], 1).numpy())
    return np.concatenate(parts) if parts else np.zeros((0, 6), np.float32)


def clustered_anchors(
    recipe: Recipe, drives: list[DriveSummary], count: int, spiral_range: float
) -> tuple[Tensor, int]:
    """(anchors [count, 11], the number of boxes that they were made of): what a recipe's "k-means" means. Raises ConfigError if
    the drives have no boxes that count.
    """
    with_boxes = [drive for drive in drives if not drive.only_2d]
    if not with_boxes:
        raise ConfigError(
            "2D labels alone don't say where anchors begin: set start_from to a trained checkpoint, or anchors to 'preset' or a file"
        )
    boxes = training_boxes(with_boxes, recipe.data)
    if not len(boxes):
        raise ConfigError(
            "the training drives hold no box that counts: check data.max_range and min_lidar_points"
        )
    bev = recipe.augmentation.bev
    mirrored = bev is not None and bev.flip_x and bev.flip_y
    return kmeans_anchors(boxes, count, recipe.seed, mirrored, spiral_range), len(boxes)


def kmeans_anchors(
    boxes: np.ndarray, count: int, seed: int = 0, mirrored: bool = False, spiral_range: float = 55.0
) -> Tensor:
    """Anchors [count, 11]: cluster centres, the mean size of all boxes, heading along +x, standing still.

    boxes [M, 6]. mirrored: count each box also mirrored left to right and front to back, as BEV augmentation
    shows them. With fewer different boxes than anchors, an even spiral of `spiral_range` (m) gives the rest.
    """
    from sklearn.cluster import KMeans

    centers = boxes[:, :3].astype(np.float64)
    if mirrored:
        centers = np.concatenate([centers * [x, y, 1] for x in (1, -1) for y in (1, -1)])
    random = np.random.default_rng(seed)
    if len(centers) > _MOST_BOXES:
        centers = centers[random.choice(len(centers), _MOST_BOXES, replace=False)]
    distinct = len(np.unique(centers.round(2), axis=0))
    anchors = spiral_anchors(count, spiral_range)
    clusters = min(count, distinct)
    if clusters:
        found = KMeans(clusters, n_init=1, random_state=seed).fit(centers).cluster_centers_
        anchors[:clusters, CENTER] = torch.from_numpy(found).float()
        anchors[:, LOG_SIZE] = torch.from_numpy(boxes[:, 3:6].mean(0)).float().log()
        anchors[:, LOG_SIZE.stop : COS_YAW + 1] = torch.tensor([0.0, 1.0])
    return anchors


def save_anchors(anchors: Tensor, path: Path) -> None:
    """Keep anchors as .npy."""
    np.save(path, anchors.numpy())


def load_anchors(path: Path, count: int) -> Tensor:
    """Anchors [count, 11] that `save_anchors` wrote. Raises ConfigError if the file doesn't hold that many."""
    try:
        anchors = torch.from_numpy(np.load(path, allow_pickle=False)).float()
    except (OSError, ValueError) as error:
        raise ConfigError(f"the anchors in {path} can't be read: {error}") from error
    if tuple(anchors.shape) != (count, STATE_SIZE):
        raise ConfigError(
            f"{path} holds anchors {list(anchors.shape)} but the detector has [{count}, {STATE_SIZE}]: make them with "
            f"`dualview anchors --count {count}`"
        )
    return anchors
