"""A recording as a row of views, ready to be drawn."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from dualview.drawing.view import FrameView, LabelledBoxes, Trails, in_ego_frame
from dualview.errors import ImageError
from dualview.geometry.boxes import Boxes3D
from dualview.geometry.rigid import invert_rigid
from dualview.scene.assembler import ClosedFrame
from dualview.scene.bag_reader import BagReader
from dualview.scene.frame import Annotations, SurroundFrame
from dualview.scene.offline import iterate_frames
from dualview.scene.preprocess import ImagePreprocessor
from dualview.scene.recorded import LidarSweeps, read_transforms
from dualview.scene.rig import Rig

_SAME_INSTANT_S = 0.06


def recording_views(
    path: str | Path,
    rig: Rig,
    tracks: Mapping[int, LabelledBoxes] | None = None,
    width: int = 480,
    truth: bool = True,
    lidar: bool = True,
    stamps: set[int] | None = None,
    bev_images: Mapping[int, np.ndarray] | None = None,
    subtitle: str = "",
) -> Iterator[FrameView]:
    """Views of a recording's frames in order.

    tracks: anchor stamp (ns) -> boxes in the world frame; None draws no tracks. width: of a camera's image, px
    (its height follows from the first camera's shape). stamps: only these anchor stamps (all are still
    followed, so trails are whole). bev_images: anchor stamp -> the node's picture of its BEV map. Labels are
    shown at frames within 60 ms of a keyframe, carried on by their velocity to the frame's stamp; those
    without any LiDAR point are not.
    """
    with BagReader(path) as bag, BagReader(path) as sweeps_bag:
        transforms = read_transforms(bag)
        labels = bag.annotations(rig) if truth else []
        sweeps = LidarSweeps(sweeps_bag, rig, transforms) if lidar else None
        trails, preprocessor, first = Trails(), None, None
        for closed in iterate_frames(bag, rig):
            if not isinstance(closed, ClosedFrame):
                continue
            preprocessor = preprocessor or ImagePreprocessor(drawing_size(closed, width))
            first = closed.stamp_ns if first is None else first
            wanted = stamps is None or closed.stamp_ns in stamps
            try:
                frame, problems = preprocessor.build(closed if wanted else _without_images(closed))
            except ImageError:
                continue
            boxes = None if tracks is None else _tracks_at(tracks, frame)
            trail = trails.follow(frame, boxes.boxes) if boxes is not None else {}
            if wanted:
                yield FrameView(
                    frame=frame,
                    tracks=boxes,
                    truth=_truth_at(labels, frame),
                    trails=trail,
                    points=_points_at(sweeps, frame) if sweeps else None,
                    bev_image=(bev_images or {}).get(closed.stamp_ns),
                    problems=problems,
                    title=f"t = {(closed.stamp_ns - first) / 1e9:5.2f} s   {subtitle}",
                )


def drawing_size(closed: ClosedFrame, width: int) -> tuple[int, int]:
    """(height, width) of the pictures: the shape of the first camera with a calibration, even numbers."""
    shapes = [c.calibration.height / c.calibration.width for c in closed.cameras if c.calibration]
    return 2 * round(width * (shapes[0] if shapes else 9 / 16) / 2), width


def _without_images(closed: ClosedFrame) -> ClosedFrame:
    """The same frame with nothing to decode."""
    return replace(closed, cameras=tuple(replace(c, image=None, calibration=None) for c in closed.cameras))


def _tracks_at(tracks: Mapping[int, LabelledBoxes], frame: SurroundFrame) -> LabelledBoxes:
    found = tracks.get(frame.stamp_ns)
    if found is None:
        return LabelledBoxes(Boxes3D.empty(), ())
    return LabelledBoxes(in_ego_frame(found.boxes, frame.world_from_ego_anchor), found.class_names)


def _truth_at(labels: list[Annotations], frame: SurroundFrame) -> LabelledBoxes | None:
    """The labels nearest in time, moved to the frame's stamp; None where there are none near it."""
    nearest = min(labels, key=lambda a: abs(a.stamp_ns - frame.stamp_ns), default=None)
    if nearest is None:
        return None
    seconds = (frame.stamp_ns - nearest.stamp_ns) / 1e9
    if abs(seconds) > _SAME_INSTANT_S:
        return LabelledBoxes(Boxes3D.empty(), nearest.class_names)
    seen = nearest.boxes[nearest.num_lidar_points != 0]  # as in scoring; -1 is unknown
    velocity = torch.nan_to_num(seen.velocity.double(), nan=0.0)
    moved = Boxes3D(**{**vars(seen), "center": seen.center.double() + seconds * velocity})
    return LabelledBoxes(in_ego_frame(moved, frame.world_from_ego_anchor), nearest.class_names)


def _points_at(sweeps: LidarSweeps, frame: SurroundFrame) -> np.ndarray | None:
    found = sweeps.near(frame.stamp_ns)
    if not found:
        return None
    ego_from_world = invert_rigid(frame.world_from_ego_anchor).numpy()
    moved = [
        s.points[:, :3] @ ego_from_world[:3, :3].T.astype(np.float32)
        + (ego_from_world[:3, :3] @ s.origin + ego_from_world[:3, 3]).astype(np.float32)
        for s in found
    ]
    return np.concatenate(moved)


def frames_per_second(stamps_ns: list[int]) -> float:
    """The rate of a recording's frames, by the median pause between them; 10 if there are fewer than two."""
    pauses = np.diff(np.unique(np.array(stamps_ns, dtype=np.int64))) / 1e9  # a loop shows each instant again
    return 1 / float(np.median(pauses)) if len(pauses) else 10.0
