"""PandaSet's folders and files, as they lie on the disk: nothing is translated here but units of time."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg

from dualview.errors import BagError
from dualview.geometry.rigid import rigid_from_quaternion
from dualview.scene.calibration import CameraCalibration
from dualview.scene.convert.summary import ConversionSummary


@dataclass(frozen=True)
class PandaSetCamera:
    """One camera: frame numbers, stamps [T] ns, world_from_camera [T, 4, 4] and calibration."""

    frames: list[int]
    stamps_ns: np.ndarray
    world_from_camera: np.ndarray
    calibration: CameraCalibration


@dataclass(frozen=True)
class PandaSetSequence:
    """One PandaSet folder, read file by file. `frames` are the numbers in its file names."""

    folder: Path
    frames: list[int]
    stamps_ns: np.ndarray
    world_from_lidar: np.ndarray

    @staticmethod
    def open(folder: Path, wanted: range | None) -> PandaSetSequence:
        """Read the poses and stamps. Raises BagError if the folder isn't a sequence or has none of the frames
        `wanted`."""
        if not (folder / "lidar" / "poses.json").is_file():
            inner = (
                sorted(p.parent.parent.name for p in folder.glob("*/lidar/poses.json"))
                if folder.is_dir()
                else []
            )
            hint = (
                f"name one of its sequences: {', '.join(inner)}"
                if inner
                else "it needs lidar/poses.json, lidar/timestamps.json and camera/"
            )
            raise BagError(f"{folder} is not a PandaSet sequence: {hint}")
        poses, stamps = _poses(folder / "lidar" / "poses.json"), _stamps(folder / "lidar" / "timestamps.json")
        frames = [i for i in range(min(len(poses), len(stamps))) if wanted is None or i in wanted]
        if not frames:
            raise BagError(
                f"{folder} has none of the frames asked for; it has {min(len(poses), len(stamps))}"
            )
        return PandaSetSequence(folder, frames, stamps[frames], poses[frames])

    def camera(self, name: str, summary: ConversionSummary) -> PandaSetCamera | None:
        """The camera in folder `camera/<name>`, None (and reported) if it is incomplete."""
        folder = self.folder / "camera" / name
        try:
            poses, stamps = _poses(folder / "poses.json"), _stamps(folder / "timestamps.json")
            values = json.loads((folder / "intrinsics.json").read_text())
            frames = [i for i in self.frames if i < min(len(poses), len(stamps))]
            sizes = (self.image_size(name, i) for i in frames)
            width, height = next(size for size in sizes if size is not None)
        except (OSError, BagError, json.JSONDecodeError, StopIteration):
            summary.pass_over("cameras without poses, stamps, intrinsics or images", name)
            return None
        matrix = np.array(
            [[values["fx"], 0, values["cx"]], [0, values["fy"], values["cy"]], [0, 0, 1]], dtype=np.float64
        )
        return PandaSetCamera(frames, stamps[frames], poses[frames], CameraCalibration(width, height, matrix))

    def image_size(self, camera: str, frame: int) -> tuple[int, int] | None:
        """(width, height) px, None if there is no readable image."""
        try:
            height, width, *_ = simplejpeg.decode_jpeg_header(self._image_path(camera, frame).read_bytes())
        except (OSError, ValueError):
            return None
        return width, height

    def jpeg(self, camera: str, frame: int, summary: ConversionSummary) -> bytes | None:
        """The bytes of an image, None (and reported) if there is none."""
        path = self._image_path(camera, frame)
        if not path.is_file():
            summary.pass_over("missing images", f"{camera} {frame:02d}")
            return None
        data = path.read_bytes()
        if not data.startswith(b"\xff\xd8"):
            summary.pass_over("images that are not JPEG", f"{camera} {frame:02d}")
            return None
        return data

    def _image_path(self, camera: str, frame: int) -> Path:
        return self.folder / "camera" / camera / f"{frame:02d}.jpg"

    def sweep(
        self, frame: int, summary: ConversionSummary
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
        """World points [P, 3] float64, LiDAR-frame points with intensity [P, 4] float32, and each point's
        LiDAR [P]; None if missing."""
        table = self.pickle(Path("lidar") / f"{frame:02d}.pkl.gz", "sweeps", summary)
        if table is None:
            return None
        world = table[["x", "y", "z"]].to_numpy(np.float64)
        pose = self.world_from_lidar[self.frames.index(frame)]
        local = (world - pose[:3, 3]) @ pose[:3, :3]
        points = np.concatenate([local, table[["i"]].to_numpy(np.float64)], 1).astype(np.float32)
        return world, points, table["d"].to_numpy() if "d" in table else np.zeros(len(table), dtype=np.int64)

    def sample_sweeps(self, count: int = 7) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """A few sweeps spread over the sequence; missing ones are reported where all are read."""
        picked = [self.frames[i] for i in np.unique(np.linspace(0, len(self.frames) - 1, count).astype(int))]
        return [sweep for sweep in (self.sweep(i, ConversionSummary()) for i in picked) if sweep is not None]

    def pickle(self, relative: Path, what: str, summary: ConversionSummary) -> Any:
        """A pandas table from a pickle inside the folder, None (and reported) if it is missing, broken or a
        link that leads out."""
        path = self.folder / relative
        if not path.exists():
            summary.pass_over(f"missing {what}", relative.name)
            return None
        if not path.resolve().is_relative_to(self.folder.resolve()):
            summary.pass_over(f"{what} linked from outside the folder, which are refused", relative.name)
            return None
        try:
            import pandas
        except ImportError as error:
            raise BagError(
                "PandaSet's files are pandas pickles: install pandas (pip install pandas)"
            ) from error
        try:
            return pandas.read_pickle(path)
        except Exception as error:  # a broken pickle can raise anything
            summary.pass_over(f"unreadable {what}", f"{relative.name}: {type(error).__name__}")
            return None


def _poses(path: Path) -> np.ndarray:
    """[T, 4, 4] float64. Raises BagError if the file is missing or damaged."""
    try:
        entries = json.loads(path.read_text())
        positions = [np.array([entry["position"][axis] for axis in "xyz"]) for entry in entries]
        headings = [np.array([entry["heading"][axis] for axis in "xyzw"]) for entry in entries]
        pairs = zip(positions, headings, strict=True)
        return np.array([rigid_from_quaternion(*pair) for pair in pairs]).reshape(-1, 4, 4)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BagError(f"{path} can't be read as PandaSet poses: {error}") from error


def _stamps(path: Path) -> np.ndarray:
    """[T] int64 ns (PandaSet gives µs in seconds). Raises BagError if the file is missing or damaged."""
    try:
        seconds = json.loads(path.read_text())
        return np.array([round(s * 1e6) * 1000 for s in seconds], dtype=np.int64)
    except (OSError, ValueError, TypeError) as error:
        raise BagError(f"{path} can't be read as PandaSet timestamps: {error}") from error
