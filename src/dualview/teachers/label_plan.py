"""Which frames of a recording get a label map, and what is known of the objects around each: nothing is decoded yet."""

from __future__ import annotations

import json
import shutil
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from dualview.errors import BagError, ConfigError
from dualview.scene.assembler import AssemblerSettings, ClosedFrame
from dualview.scene.bag_reader import BagReader
from dualview.scene.frame import Annotations
from dualview.scene.keyframes import Keyframes
from dualview.scene.offline import iterate_frames
from dualview.scene.rig import Rig
from dualview.scene.rig_hash import rig_hash
from dualview.teachers.folder_lock import LOCK_FILE
from dualview.teachers.label_settings import LabelSettings
from dualview.teachers.label_store import DRIVE_FILE

_RIG_FILE = "rig"
_AROUND_NS = 1_500_000_000  # keyframes this near go with a job


@dataclass(frozen=True)
class Plan:
    """The frames of one recording. stamps int64 [F], poses float64 [F, 4, 4] (world_from_ego): those that get
    a label; teacher bool [F]: those whose features are read. work: folder of what is half done; target: of the labels.
    """

    recording: Path
    work: Path
    target: Path
    stamps: np.ndarray
    poses: np.ndarray
    teacher: np.ndarray

    @property
    def teacher_stamps(self) -> list[int]:
        """Stamps (ns) of the frames whose features are read."""
        return self.stamps[self.teacher].tolist()


class KeyframesAround:
    """The keyframes of one recording near any of its instants."""

    def __init__(self, bag: BagReader, rig: Rig) -> None:
        # Objects of classes that no detector of this rig knows leave trails too: all of them are asked for.
        self.annotations = bag.annotations(replace(rig, class_names=None))
        self._stamps = [a.stamp_ns for a in self.annotations]

    def __call__(self, stamp_ns: int) -> tuple[Annotations, ...] | None:
        """Those near an instant; None if the recording has none at all."""
        if not self.annotations:
            return None
        first = bisect_left(self._stamps, stamp_ns - _AROUND_NS)
        return tuple(self.annotations[first : bisect_right(self._stamps, stamp_ns + _AROUND_NS)])


def scan(
    path: Path, rig: Rig, settings: LabelSettings, work: Path, target: Path, tell: Callable[[str], None]
) -> Plan:
    """Which frames there are. With annotations, only those whose boxes are known.

    Raises BagError if the recording can't be read, has no LiDAR, or gives no frame.
    """
    with BagReader(path) as bag:
        if not any(topic in bag.topics for topic in rig.lidar_topics):
            raise BagError(
                f"{path} has none of the LiDAR topics of rig '{rig.name}' ({', '.join(rig.lidar_topics) or 'none'}): label maps need "
                "points; name another rig with --rig"
            )
        annotations = KeyframesAround(bag, rig).annotations
        if not annotations:
            tell(
                f"{path.name} has no boxes: moving objects will leave trails (--no-accumulation avoids them)"
            )
        frames = [(f.stamp_ns, f.world_from_ego) for f in label_frames(bag, rig, settings)]
    keyframes = Keyframes(annotations)
    if annotations:
        frames = [f for f in frames if keyframes.at(f[0]) is not None]
    if not frames:
        raise BagError(f"{path} gave no frame with rig '{rig.name}': look at it with `dualview bag info --rig {rig.name}`")
    stamps = np.array([stamp for stamp, _ in frames], np.int64)
    poses = np.stack([pose for _, pose in frames])
    step, last, teacher = 0.9e9 / settings.teacher_rate, -np.inf, np.zeros(len(stamps), bool)
    for i, stamp in enumerate(stamps):
        if stamp - last >= step:
            teacher[i], last = True, stamp
    if settings.accumulation == "none":
        stamps, poses, teacher = stamps[teacher], poses[teacher], teacher[teacher]
    return Plan(path, work, target, stamps, poses, teacher)


def label_frames(bag: BagReader, rig: Rig, settings: LabelSettings) -> Iterator[ClosedFrame]:
    """The frames with an image, at the labels' rate."""
    own = AssemblerSettings.for_rig(rig)
    interval = max(own.min_interval, 0.9 / settings.label_rate)  # a tenth of slack for jitter, as in training
    spaced = AssemblerSettings.for_rig(rig, min_interval=interval)
    for frame in iterate_frames(bag, rig, spaced):
        if isinstance(frame, ClosedFrame) and any(c.image is not None for c in frame.cameras):
            yield frame


def rig_key(rig: Rig) -> str:
    """A hash of all of a rig that labels depend on: cameras, frames, times and topics, but neither its name nor the
    classes that detectors learn.
    """
    return rig_hash(replace(rig, class_names=None))


def is_finished(target: Path, recording: Path, rig: Rig) -> bool:
    """Whether the labels of a recording are there. Raises ConfigError if they were made with another rig."""
    path = target / DRIVE_FILE
    if not path.is_file():
        return False
    info = json.loads(path.read_text())
    same = info["rig_key"] == rig_key(rig) if "rig_key" in info else info.get("rig") == rig.name
    if not same:
        raise ConfigError(
            f"the label maps of {recording.name} in {target.parent} were made with another rig ('{info.get('rig')}', with other cameras, "
            f"frames or topics than '{rig.name}' has now): name another folder, or delete {target} to make them again"
        )
    return True


def begin_work(work: Path, recording: Path, rig: Rig, tell: Callable[[str], None]) -> None:
    """Make the locked folder `work` one of this rig: what another one left half done in it is deleted."""
    marker, key = work / _RIG_FILE, rig_key(rig)
    if not marker.is_file() or marker.read_text() != key:
        left = [p for p in work.iterdir() if p.name not in (LOCK_FILE, _RIG_FILE)]
        if left:
            tell(f"{recording.name} was begun with another rig: it starts afresh")
        for folder in left:
            shutil.rmtree(folder)
        marker.write_text(key)
