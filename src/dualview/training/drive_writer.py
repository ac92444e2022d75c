"""The files of a drive (see drive_store.py), written frame by frame."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch

from dualview.geometry.rigid import invert_rigid
from dualview.scene.frame import Annotations, SurroundFrame
from dualview.training.array_file import GrowingArray


@dataclass(frozen=True)
class WrittenFrame:
    """What is kept of a frame whose pixels and depths are on disk. depths: number of its LiDAR depths; annotations: world
    frame, None if the keyframes don't say.
    """

    frame: SurroundFrame
    depths: int
    annotations: Annotations | None


def write_frame(
    frame: SurroundFrame,
    depth: np.ndarray,
    annotations: Annotations | None,
    images: BinaryIO,
    depths: GrowingArray,
) -> WrittenFrame:
    """Write the pixels and the LiDAR depths [P, 4] of a drive's next frame; `write_tables` writes the rest."""
    images.write(np.ascontiguousarray(frame.images.permute(0, 2, 3, 1).numpy()).tobytes())
    depths.append(depth)
    bare = replace(frame, images=torch.zeros(len(frame.images), 3, 0, 0, dtype=torch.uint8))
    return WrittenFrame(bare, len(depth), annotations)


def write_tables(folder: Path, written: Sequence[WrittenFrame], info: Mapping[str, Any]) -> None:
    """Write all of a drive that isn't its pixels and depths; `info`, what it was made from, comes last: with it the drive counts
    as finished.
    """
    frames = [w.frame for w in written]
    arrays = {
        "stamps": np.array([f.stamp_ns for f in frames], np.int64),
        "labelled": np.array([w.annotations is not None for w in written]),
        "camera_stamps": np.stack([f.camera_stamps_ns.numpy() for f in frames]),
        "intrinsics": np.stack([f.intrinsics.numpy() for f in frames]),
        "ego_from_camera": np.stack([f.ego_from_camera.numpy() for f in frames]),
        "world_from_ego": np.stack([f.world_from_ego.numpy() for f in frames]),
        "anchor": np.stack([f.world_from_ego_anchor.numpy() for f in frames]),
        "camera_mask": np.stack([f.camera_mask.numpy() for f in frames]),
        "depth_start": np.concatenate([[0], np.cumsum([w.depths for w in written])]).astype(np.int64),
    }
    instances: dict[str, int] = {}
    columns: dict[str, list[np.ndarray]] = {}
    for index, (frame, w) in enumerate(zip(frames, written, strict=True)):
        if w.annotations is None:
            continue
        boxes = w.annotations.boxes.transformed(invert_rigid(frame.world_from_ego_anchor))
        ids = [instances.setdefault(name, len(instances)) for name in w.annotations.instance_ids]
        values = {
            "box_frame": np.full(len(boxes), index), "track_id": np.array(ids, np.int64),
            "center": boxes.center.float().numpy(), "size": boxes.size.float().numpy(), "yaw": boxes.yaw.float().numpy(),
            "velocity": boxes.velocity.float().numpy(), "label": boxes.label.numpy(),
            "num_lidar_points": w.annotations.num_lidar_points.numpy().astype(np.int64),
            "visibility": w.annotations.visibility.numpy().astype(np.float32),
        }  # fmt: skip
        for name, value in values.items():
            columns.setdefault(name, []).append(value)
    empty: dict[str, np.ndarray] = {
        "box_frame": np.zeros(0, np.int64), "track_id": np.zeros(0, np.int64), "center": np.zeros((0, 3), np.float32),
        "size": np.zeros((0, 3), np.float32), "yaw": np.zeros(0, np.float32), "velocity": np.zeros((0, 3), np.float32),
        "label": np.zeros(0, np.int64), "num_lidar_points": np.zeros(0, np.int64), "visibility": np.zeros(0, np.float32),
    }  # fmt: skip
    arrays |= {
        name: np.concatenate(columns[name]) if name in columns else value for name, value in empty.items()
    }
    np.savez(folder / "drive.npz", **arrays)  # type: ignore[arg-type]
    (folder / "drive.json").write_text(json.dumps(info, indent=1))
