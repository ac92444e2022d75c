"""2D labels beside a stored drive: added to drives that may have been stored long before, and read without the recording.

One more file in the drive's folder, `labels_2d-<key>.json`, with the rectangles as recorded and the calibration that takes them to any
network's image. The key stands for the rig's label topics and class names.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import OrderedDict
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dualview.errors import BagError
from dualview.scene.bag_messages import Annotation2D
from dualview.scene.bag_reader import BagReader
from dualview.scene.calibration import CameraCalibration
from dualview.scene.labels_2d.labels import Labels2D, read_labels_2d
from dualview.scene.labels_2d.recorded_images import camera_calibrations
from dualview.scene.rig import Rig

_FORMAT = 1


@dataclass(frozen=True)
class StoredLabels2D:
    """labels: camera -> stamp (ns) of the image -> its labels, px of the recorded image. calibrations: of the cameras that have one."""

    labels: Labels2D
    calibrations: dict[str, CameraCalibration]

    @property
    def image_count(self) -> int:
        """Number of labelled images."""
        return sum(len(images) for images in self.labels.values())


def labels_file(rig: Rig) -> str:
    """Name of the file in a drive's folder."""
    topics = [(name, rig.annotations_2d_topic_of(name)) for name in rig.camera_names]
    text = repr((_FORMAT, topics, sorted(rig.class_map.items())))
    return f"labels_2d-{hashlib.sha256(text.encode()).hexdigest()[:12]}.json"


def store_labels_2d(recording: Path, rig: Rig, folder: Path) -> StoredLabels2D:
    """The 2D labels of a recording, written into its drive's folder if they aren't there yet. Raises BagError if the recording can't be
    read or the file not be written.
    """
    path = folder / labels_file(rig)
    if path.is_file():
        return read_stored_labels(path)
    with BagReader(recording) as bag:
        labels = read_labels_2d(bag, rig)
        calibrations = camera_calibrations(bag, rig)
    content = {
        "labels": {
            camera: {
                str(stamp): [[a.class_name, a.score, *a.box] for a in found]
                for stamp, found in images.items()
            }
            for camera, images in labels.items()
        },
        "calibrations": {name: _plain(calibration) for name, calibration in calibrations.items()},
    }
    partial = folder / f".{path.name}.{os.getpid()}.partial"
    try:
        partial.write_text(json.dumps(content), encoding="utf-8")
        os.replace(partial, path)
    except OSError as error:
        raise BagError(f"the 2D labels of {recording.name} can't be written to {folder}: {error}") from error
    finally:
        partial.unlink(missing_ok=True)
    return read_stored_labels(path)


def read_stored_labels(path: Path) -> StoredLabels2D:
    """What `store_labels_2d` wrote. Raises BagError if the file is missing or damaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        labels: Labels2D = {
            camera: {
                int(s): [Annotation2D(row[0], row[1], tuple(row[2:6])) for row in rows]
                for s, rows in images.items()
            }
            for camera, images in content["labels"].items()
        }
        calibrations = {name: _calibration(given) for name, given in content["calibrations"].items()}
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise BagError(
            f"the 2D labels in {path} are missing or damaged ({error}): delete that file and start again"
        ) from error
    return StoredLabels2D(labels, calibrations)


def _plain(calibration: CameraCalibration) -> dict[str, Any]:
    return {
        name: value.tolist() if isinstance(value, np.ndarray) else value
        for name, value in asdict(calibration).items()
    }


def _calibration(given: dict[str, Any]) -> CameraCalibration:
    arrays = ("intrinsics", "distortion", "rectified_intrinsics")
    fields: dict[str, Any] = {k: np.array(v) if k in arrays and v is not None else v for k, v in given.items()}
    return CameraCalibration(**fields)


class LabelCache:
    """The label files that a process has read, the least recently used one forgotten when there are more than `limit`."""

    def __init__(self, limit: int = 64) -> None:
        self._limit = limit
        self._read: OrderedDict[Path, StoredLabels2D] = OrderedDict()

    def __call__(self, path: Path) -> StoredLabels2D:
        found = self._read.pop(path, None) or read_stored_labels(path)
        self._read[path] = found
        if len(self._read) > self._limit:
            self._read.popitem(last=False)
        return found
