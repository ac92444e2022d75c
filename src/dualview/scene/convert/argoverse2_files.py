"""Argoverse 2's folders and feather files, as they lie on the disk: nothing is translated here."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from dualview.errors import BagError, CalibrationError
from dualview.scene.calibration import CameraCalibration
from dualview.scene.convert.summary import ConversionSummary
from dualview.scene.convert.trajectory import Trajectory

QUATERNION = ("qw", "qx", "qy", "qz")
TRANSLATION = ("tx_m", "ty_m", "tz_m")
_INTRINSICS = ("fx_px", "fy_px", "cx_px", "cy_px", "width_px", "height_px")
_NEEDED = (
    "calibration/intrinsics.feather",
    "calibration/egovehicle_SE3_sensor.feather",
    "city_SE3_egovehicle.feather",
)
_UPPER_LASERS = 32  # lasers 0 to 31 are those of up_lidar, 32 to 63 of down_lidar


@dataclass(frozen=True)
class ArgoverseSweep:
    """One sweep of both LiDARs: xyz float64 [P, 3] (m, ego frame at the sweep's stamp), intensity float32 [P] (0..255),
    from_above bool [P]: points of the upper LiDAR.
    """

    xyz: np.ndarray
    intensity: np.ndarray
    from_above: np.ndarray


@dataclass(frozen=True)
class ArgoverseLog:
    """One log's folder, its poses and its calibration; images and sweeps are read file by file.

    ego_from_sensor [4, 4] (m; cameras: optical frame) by the sensor's name. city_from_ego: the poses.
    """

    folder: Path
    calibrations: dict[str, CameraCalibration]
    ego_from_sensor: dict[str, np.ndarray]
    city_from_ego: Trajectory

    @staticmethod
    def open(folder: Path, summary: ConversionSummary) -> ArgoverseLog:
        """Read calibration and poses; rows of them that can't be used are reported.

        Raises BagError if the folder isn't a log (naming what it lacks, or the logs inside it), or if a table
        is damaged.
        """
        lacks = [name for name in _NEEDED if not (folder / name).is_file()]
        if lacks:
            logs = sorted(p.parent.name for p in folder.glob(f"*/{_NEEDED[-1]}")) if folder.is_dir() else []
            hint = (
                f"name one of the logs in it: {', '.join(logs[:5])}{', …' if len(logs) > 5 else ''}"
                if logs
                else f"it lacks {', '.join(lacks)}; a log's folder also holds sensors/cameras/<camera>/<ns>.jpg, "
                "sensors/lidar/<ns>.feather and annotations.feather"
            )
            raise BagError(f"{folder} is not a log of Argoverse 2's sensor data set: {hint}")
        return ArgoverseLog(
            folder,
            _calibrations(folder / _NEEDED[0], summary),
            _mountings(folder / _NEEDED[1], summary),
            _trajectory(folder / _NEEDED[2], summary),
        )

    def images(self, camera: str, summary: ConversionSummary) -> list[tuple[int, Path]]:
        """(stamp ns, file) of a camera's images in order of time."""
        return _stamped(self.folder / "sensors" / "cameras" / camera, (".jpg", ".jpeg"), summary)

    def sweeps(self, summary: ConversionSummary) -> list[tuple[int, Path]]:
        """(stamp ns, file) of the LiDAR sweeps in order of time."""
        return _stamped(self.folder / "sensors" / "lidar", (".feather",), summary)


def read_jpeg(path: Path, summary: ConversionSummary) -> bytes | None:
    """The bytes of an image, None (and reported) if it can't be read or isn't a JPEG."""
    try:
        data = path.read_bytes()
    except OSError:
        data = b""
    if data.startswith(b"\xff\xd8"):
        return data
    summary.pass_over("images that are no JPEG", _short(path))
    return None


def read_sweep(path: Path, summary: ConversionSummary) -> ArgoverseSweep | None:
    """A sweep's points, None (and reported) if the file is damaged. Points that aren't finite are left out."""
    try:
        columns = read_feather(path, ("x", "y", "z", "intensity", "laser_number"))
        xyz = np.stack([columns[axis].astype(np.float64) for axis in "xyz"], 1)
        intensity = columns["intensity"].astype(np.float32)
    except (BagError, ValueError, TypeError):
        summary.pass_over("sweeps that can't be read", path.name)
        return None
    finite = np.isfinite(xyz).all(1) & np.isfinite(intensity)
    return ArgoverseSweep(xyz[finite], intensity[finite], columns["laser_number"][finite] < _UPPER_LASERS)


def read_feather(path: Path, columns: Iterable[str]) -> dict[str, np.ndarray]:
    """The named columns of a feather file; -1 where an integer is missing (stamps and counts are never negative).

    Raises BagError if pyarrow isn't installed, the file is damaged, or a column is missing.
    """
    try:
        import pyarrow
        from pyarrow import feather
    except ImportError as error:
        raise BagError(
            f"Argoverse 2's tables are feather files, which pyarrow reads, and it can't be imported ({error}): "
            "pip install pyarrow"
        ) from error
    columns = tuple(columns)
    try:
        table: Any = feather.read_table(path, memory_map=False)
    except (OSError, ValueError, pyarrow.ArrowException) as error:
        raise BagError(
            f"{path} can't be read as a feather file ({error}): download this log again"
        ) from error
    missing = [name for name in columns if name not in table.column_names]
    if missing:
        raise BagError(
            f"{path} lacks the columns {', '.join(missing)}; it has {', '.join(table.column_names)}: "
            "is this Argoverse 2's sensor data set?"
        )
    chosen = {name: table.column(name) for name in columns}
    return {
        name: (column.fill_null(-1) if pyarrow.types.is_signed_integer(column.type) else column).to_numpy()
        for name, column in chosen.items()
    }


def rigid_transforms(columns: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Transforms [R, 4, 4] of a table's quaternions (w first) and translations (m), and which rows [R] can be used;
    the others are the identity."""
    quaternions = np.stack([columns[name].astype(np.float64) for name in QUATERNION], 1)
    translations = np.stack([columns[name].astype(np.float64) for name in TRANSLATION], 1)
    usable = np.isfinite(np.concatenate([quaternions, translations], 1)).all(axis=1)
    usable &= np.linalg.norm(np.nan_to_num(quaternions), axis=1) > 1e-6
    transforms = np.tile(np.eye(4), (len(quaternions), 1, 1))
    if usable.any():
        rotations = Rotation.from_quat(quaternions[usable][:, [1, 2, 3, 0]])
        transforms[usable, :3, :3], transforms[usable, :3, 3] = rotations.as_matrix(), translations[usable]
    return transforms, usable


def whole_numbers(path: Path, columns: dict[str, np.ndarray], name: str) -> np.ndarray:
    """A column as int64 [R]. Raises BagError for one of another kind: floats would have lost the last digits of stamps."""
    if not np.issubdtype(columns[name].dtype, np.integer):
        raise BagError(
            f"{path}: the column {name} holds {columns[name].dtype} instead of integers: download this log again"
        )
    return columns[name].astype(np.int64)


def _calibrations(path: Path, summary: ConversionSummary) -> dict[str, CameraCalibration]:
    """The pinhole cameras. The table's k1, k2, k3 are those of the lens; the images are undistorted already, and
    Argoverse's own tools project without them."""
    columns = read_feather(path, ("sensor_name", *_INTRINSICS))
    found = {}
    for row, name in enumerate(map(str, columns["sensor_name"])):
        try:
            fx, fy, cx, cy, width, height = (float(columns[key][row]) for key in _INTRINSICS)
            matrix = np.array([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]])
            found[name] = CameraCalibration(int(width), int(height), matrix)
        except (CalibrationError, ValueError, TypeError, OverflowError):
            summary.pass_over("intrinsics that can't be used", name)
    return found


def _mountings(path: Path, summary: ConversionSummary) -> dict[str, np.ndarray]:
    columns = read_feather(path, ("sensor_name", *QUATERNION, *TRANSLATION))
    transforms, usable = _transforms_of(path, columns)
    names = [str(name) for name in columns["sensor_name"]]
    for name, fine in zip(names, usable, strict=True):
        if not fine:
            summary.pass_over("mountings that can't be used", name)
    return {name: transforms[i] for i, name in enumerate(names) if usable[i]}


def _trajectory(path: Path, summary: ConversionSummary) -> Trajectory:
    columns = read_feather(path, ("timestamp_ns", *QUATERNION, *TRANSLATION))
    transforms, usable = _transforms_of(path, columns)
    stamps = whole_numbers(path, columns, "timestamp_ns")
    usable &= stamps >= 0
    for row in np.flatnonzero(~usable):
        summary.pass_over("ego poses that can't be used", f"row {row}")
    if not usable.any():
        raise BagError(f"{path} holds no ego pose that can be used: download this log again")
    stamps, first = np.unique(stamps[usable], return_index=True)  # sorted, the first of equal stamps
    return Trajectory(stamps, transforms[usable][first])


def _transforms_of(path: Path, columns: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    try:
        return rigid_transforms(columns)
    except (ValueError, TypeError) as error:
        raise BagError(
            f"{path} holds poses that are no numbers ({error}): download this log again"
        ) from error


def _stamped(folder: Path, suffixes: tuple[str, ...], summary: ConversionSummary) -> list[tuple[int, Path]]:
    found = []
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.suffix.lower() in suffixes and path.stem.isdecimal() and int(path.stem) < 2**63:
            found.append((int(path.stem), path))
        else:
            summary.pass_over("files whose names aren't stamps", _short(path))
    return sorted(found)


def _short(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"
