"""A drive on disk as training reads it: images at network size, memory-mapped, with poses, boxes and LiDAR
depths beside them.

One folder a drive: `images.u8` (uint8 [F, N, H, W, 3], raw), `depth.npy` (float32 [P, 4]: camera, u, v px,
depth m), `drive.npz` (everything else) and `drive.json` (what it was made from). Any frame is one page-cache
read away, nothing is decoded twice, and a set of drives may be far larger than memory.
"""

from __future__ import annotations

import contextlib
import json
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dualview.errors import BagError
from dualview.geometry.boxes import Boxes3D
from dualview.scene.frame import SurroundFrame
from dualview.scene.sweeps import LidarInput
from dualview.teachers.folder_lock import locked
from dualview.training.array_file import write_error
from dualview.training.lidar_store import StoredSweeps

FORMAT = 2
IMAGES, DEPTHS = "images.u8", "depth.npy"
_LOCKS = ".locks"  # folder beside the drives; their own folders come and go as a whole


@dataclass(frozen=True)
class DriveSummary:
    """What a sampler needs to know of a drive without opening it. stamps int64 [F] of its frames; labelled
    bool [F]: those that clips walk. labels_2d: file of its 2D labels in `folder`, None if none are used; only_2d: its
    3D labels, if it has any, must not be used.
    """

    folder: Path
    source: str
    stamps: np.ndarray
    labelled: np.ndarray
    cameras: int
    labels_2d: str | None = None
    only_2d: bool = False

    def __len__(self) -> int:
        return len(self.stamps)


@dataclass(frozen=True)
class LabelledFrame:
    """A frame with its boxes (ego frame at the anchor stamp, all that are annotated), their LiDAR point
    counts int64 [M] (-1 = not known), visibility float32 [M] (NaN = not known), whether it is `labelled` at
    all, and LiDAR returns [P, 4] (camera, u, v px, depth m).
    """

    frame: SurroundFrame
    boxes: Boxes3D
    num_lidar_points: Tensor
    visibility: Tensor
    labelled: bool
    depth_points: Tensor


class Drive:
    """An opened drive. Cheap to open; images stay on disk until they are asked for."""

    def __init__(self, folder: Path) -> None:
        try:
            self.info: dict[str, Any] = json.loads((folder / "drive.json").read_text())
            with np.load(folder / "drive.npz") as arrays:
                self._arrays = {name: arrays[name] for name in arrays.files}
            _fill_calibrations(self._arrays)
            count = len(self._arrays["stamps"])
            height, width = self.info["image_size"]
            shape = (count, self.info["cameras"], height, width, 3)
            self._images = np.memmap(folder / IMAGES, np.uint8, "r", shape=shape)
            self._depth = np.load(folder / DEPTHS, mmap_mode="r")
        except (OSError, ValueError, KeyError) as error:
            raise BagError(
                f"the stored drive {folder} is damaged ({error}): delete that folder and start again"
            ) from error
        self.folder = folder
        self._sweeps: StoredSweeps | None = None
        self._frame_starts = np.searchsorted(self._arrays["box_frame"], np.arange(count + 1))

    def __len__(self) -> int:
        return len(self._arrays["stamps"])

    def frame(self, index: int) -> LabelledFrame:
        """One frame; its tensors are the caller's own except for the images, which must not be written to."""
        a = self._arrays
        frame = SurroundFrame(
            stamp_ns=int(a["stamps"][index]),
            images=torch.from_numpy(np.array(self._images[index])).permute(0, 3, 1, 2),
            camera_stamps_ns=torch.from_numpy(a["camera_stamps"][index]),
            intrinsics=torch.from_numpy(a["intrinsics"][index]).float(),
            ego_from_camera=torch.from_numpy(a["ego_from_camera"][index]).float(),
            world_from_ego=torch.from_numpy(a["world_from_ego"][index]),
            world_from_ego_anchor=torch.from_numpy(a["anchor"][index]),
            camera_mask=torch.from_numpy(a["camera_mask"][index].copy()),
            camera_names=tuple(self.info["camera_names"]),
        )
        rows = slice(self._frame_starts[index], self._frame_starts[index + 1])

        def column(name: str) -> Tensor:
            return torch.from_numpy(a[name][rows].copy())

        boxes = Boxes3D(
            column("center"), column("size"), column("yaw"), column("velocity"),
            column("label"), torch.ones(rows.stop - rows.start), column("track_id"),
        )  # fmt: skip
        begin, end = a["depth_start"][index], a["depth_start"][index + 1]
        return LabelledFrame(
            frame, boxes, column("num_lidar_points"), column("visibility"), bool(a["labelled"][index]),
            torch.from_numpy(np.array(self._depth[begin:end])),
        )  # fmt: skip

    def cloud(self, index: int, settings: LidarInput) -> Tensor:
        """LiDAR cloud float32 [P, 5] of one frame (ego frame at its stamp; see `sweeps.join_sweeps`). Raises BagError if
        the drive was stored without sweeps.
        """
        if self._sweeps is None:
            self._sweeps = StoredSweeps(self.folder)
        stamp, pose = int(self._arrays["stamps"][index]), torch.from_numpy(self._arrays["anchor"][index])
        return self._sweeps.cloud(stamp, pose, settings)

    def counting_boxes(self, min_lidar_points: int) -> Tensor:
        """Which of `boxes` LiDAR or cameras can know of, bool [M]; see `boxes_that_count`."""
        a = self._arrays
        return boxes_that_count(
            torch.from_numpy(a["num_lidar_points"]), torch.from_numpy(a["visibility"]), min_lidar_points
        )

    def boxes(self) -> tuple[Boxes3D, np.ndarray]:
        """All boxes of the drive (ego frame of their own frames) and the frame index [M] of each."""
        a = self._arrays
        boxes = Boxes3D(
            **{
                name: torch.from_numpy(a[name])
                for name in ("center", "size", "yaw", "velocity", "label", "track_id")
            },
            score=torch.ones(len(a["label"])),
        )
        return boxes, a["box_frame"]


def boxes_that_count(num_lidar_points: Tensor, visibility: Tensor, min_lidar_points: int) -> Tensor:
    """bool [M]: boxes with enough LiDAR points; where points weren't counted, those not known to be hidden."""
    counted = num_lidar_points >= 0
    return (counted & (num_lidar_points >= min_lidar_points)) | (~counted & ~(visibility <= 0))


def _fill_calibrations(arrays: dict[str, np.ndarray]) -> None:
    """Give cameras that are missing in a frame the calibration of their nearest frame, in the place of none: networks take statistics
    over the numbers of all cameras.
    """
    mask = arrays["camera_mask"]
    frames = np.arange(len(mask))
    for camera in np.flatnonzero(~mask.all(0) & mask.any(0)):
        known = np.flatnonzero(mask[:, camera])
        later = known[np.searchsorted(known, frames).clip(max=len(known) - 1)]
        earlier = known[(np.searchsorted(known, frames, "right") - 1).clip(min=0)]
        nearest = np.where(np.abs(later - frames) < np.abs(frames - earlier), later, earlier)
        for name in ("intrinsics", "ego_from_camera"):
            arrays[name][:, camera] = arrays[name][nearest, camera]


class DriveCache:
    """The drives that a process has open, the least recently used one closed when there are more than
    `limit`.
    """

    def __init__(self, limit: int = 64) -> None:
        self._limit = limit
        self._open: OrderedDict[Path, Drive] = OrderedDict()

    def __call__(self, folder: Path) -> Drive:
        drive = self._open.pop(folder, None) or Drive(folder)
        self._open[folder] = drive
        if len(self._open) > self._limit:
            self._open.popitem(last=False)
        return drive


@contextlib.contextmanager
def drive_lock(folder: Path, busy: Callable[[], None]) -> Iterator[None]:
    """One process at a time makes the drive `folder` or adds to it; if another one does, `busy` is called, then waited for it.

    Look again at what is there once the lock is held. Raises BagError if there can't be a lock.
    """
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locked(folder.parent / _LOCKS / folder.name, busy))
        except OSError as error:
            raise write_error(f"{folder.parent} can't be written to, or holds no locks", error) from error
        yield


def read_summary(folder: Path) -> DriveSummary | None:
    """The summary of a finished drive, None if there is none at `folder`. Raises BagError if it is damaged."""
    if not (folder / "drive.json").is_file():
        return None
    try:
        info = json.loads((folder / "drive.json").read_text())
        if info.get("format") != FORMAT:
            return None
        with np.load(folder / "drive.npz") as arrays:
            stamps, labelled = arrays["stamps"], arrays["labelled"]
    except (OSError, ValueError, KeyError) as error:
        raise BagError(
            f"the stored drive {folder} is damaged ({error}): delete that folder and start again"
        ) from error
    return DriveSummary(folder, info["source"], stamps, labelled, info["cameras"])
