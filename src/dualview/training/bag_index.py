"""Recordings -> drives on disk (see drive_store.py). Built once for each recording, rig, image size and class
list; a killed run goes on with the recordings that are still missing.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from glob import glob
from pathlib import Path

import numpy as np
import torch

from dualview.errors import BagError, ConfigError, DualViewError
from dualview.scene.assembler import AssemblerSettings, ClosedFrame, FrameAssembler
from dualview.scene.bag_messages import points_from_message
from dualview.scene.bag_reader import BagReader
from dualview.scene.frame import Annotations, SurroundFrame
from dualview.scene.keyframes import Keyframes
from dualview.scene.messages import AssemblerFeed, stamp_ns
from dualview.scene.preprocess import ImagePreprocessor
from dualview.scene.rig import Rig
from dualview.scene.rig_hash import rig_hash
from dualview.training.array_file import DiskFullError, GrowingArray, write_error
from dualview.training.drive_store import DEPTHS, FORMAT, IMAGES, DriveSummary, drive_lock, read_summary
from dualview.training.drive_writer import write_frame, write_tables
from dualview.training.lidar_depth import SweepBuffer, project_sweeps
from dualview.training.lidar_store import has_sweeps, store_sweeps

_SUFFIXES = (".mcap", ".db3", ".bag")
_SWEEP_DISTANCE_NS = 60_000_000  # a sweep further from the anchor shows another scene
_SETTLE_NS = 150_000_000  # a frame waits so long for the sweep and the poses after it


@dataclass(frozen=True)
class IndexSettings:
    """image_size (height, width) px; max_rate: frames per second kept; interpolate, max_gap (s): see
    `labels.Keyframes`.
    """

    image_size: tuple[int, int]
    class_names: tuple[str, ...]
    max_rate: float = 10.0
    interpolate: bool = True
    max_gap: float = 0.75


def find_recordings(patterns: Iterable[str]) -> list[Path]:
    """The recordings that paths, folders of recordings and glob patterns name, in order, each once. Raises
    ConfigError if a pattern finds nothing.
    """
    found: dict[Path, None] = {}
    for pattern in patterns:
        expanded = os.path.expanduser(os.path.expandvars(pattern))
        paths = [Path(p) for p in sorted(glob(expanded))]
        recordings = [recording for path in paths for recording in _recordings_at(path)]
        if not recordings:
            raise ConfigError(
                f"'{pattern}' finds no recording (.mcap, .db3, .bag or rosbag2 folder): check the path"
            )
        found.update(dict.fromkeys(path.resolve() for path in recordings))
    return list(found)


def _recordings_at(path: Path) -> list[Path]:
    if path.is_file():
        return [path] if path.suffix in _SUFFIXES else []
    if (path / "metadata.yaml").is_file():
        return [path]
    inside = sorted(p for p in path.iterdir() if p.suffix in _SUFFIXES or (p / "metadata.yaml").is_file())
    return [p for p in inside if not p.name.startswith(".")]


def index_recordings(
    recordings: Sequence[Path],
    rig: Rig,
    settings: IndexSettings,
    cache: Path,
    broken: str = "stop",
    tell: Callable[[str], None] = lambda line: None,
    with_sweeps: bool = False,
) -> list[DriveSummary]:
    """The drives of `recordings`, those that aren't on disk yet built now; of several runs at once, one builds each drive.

    broken "stop": a recording that can't be read raises BagError, with a sentence; "skip": `tell` gets the
    sentence and the others go on. with_sweeps: LiDAR sweeps are stored
    too, also beside drives that are there. Raises BagError, leaving finished drives as they are, if the disk is full.
    """
    drives = []
    for number, path in enumerate(recordings, 1):
        try:
            folder, name = cache / drive_key(path, rig, settings), f"[{number}/{len(recordings)}] {path.name}"
            drives.append(_stored_drive(path, rig, settings, folder, with_sweeps, tell, name))
        except DualViewError as error:
            if broken != "skip" or isinstance(error, DiskFullError):
                raise
            tell(f"[{number}/{len(recordings)}] left out: {error}")
    return drives


def _stored_drive(
    path: Path,
    rig: Rig,
    settings: IndexSettings,
    folder: Path,
    with_sweeps: bool,
    tell: Callable[[str], None],
    name: str,
) -> DriveSummary:
    summary = read_summary(folder)
    if summary is not None and (has_sweeps(folder) or not with_sweeps):
        return summary
    with drive_lock(folder, lambda: tell(f"{name}: another run stores this drive, waiting for it")):
        summary = read_summary(folder)  # that run may have finished it
        if summary is None:
            summary = build_drive(path, rig, settings, folder, lambda line: tell(f"{name}: {line}"))
            tell(f"{name}: {len(summary)} frames, {int(summary.labelled.sum())} labelled")
        if with_sweeps and not has_sweeps(folder):
            tell(f"{name}: {store_sweeps(path, rig, folder)} LiDAR sweeps")
    return summary


def drive_key(path: Path, rig: Rig, settings: IndexSettings) -> str:
    """A name that changes with the recording's content (size and time of change), with all of the rig that frames and
    labels come from (see `rig_hash`), and with the settings.
    """
    files = sorted(p for p in path.iterdir() if p.is_file()) if path.is_dir() else [path]
    if not all(p.exists() for p in files):
        raise BagError(f"there is no recording at {path}: check the path")
    content = [(p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in files]
    text = repr((FORMAT, str(path), content, rig_hash(rig), settings))
    return f"{path.stem[:40]}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def build_drive(
    path: Path,
    rig: Rig,
    settings: IndexSettings,
    folder: Path,
    tell: Callable[[str], None] = lambda line: None,
) -> DriveSummary:
    """Read one recording through the assembler and write its drive. It appears under `folder` only when it is
    complete. Hold the drive's lock meanwhile. `tell` gets a sentence if LiDAR sweeps were left out.

    Raises BagError if the recording can't be read or holds no frame, DiskFullError if there is no room.
    """
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    try:
        shutil.rmtree(temporary, ignore_errors=True)  # of a killed run that had our number
        temporary.mkdir(parents=True)
        with BagReader(path) as bag:
            keyframes = Keyframes(
                _annotations(bag, rig, settings.class_names), settings.max_gap, settings.interpolate
            )
            broken: Counter[str] = Counter()
            with (temporary / IMAGES).open("wb") as images, GrowingArray(temporary / DEPTHS, (4,), np.float32) as depths:
                frames = [
                    write_frame(frame, depth, keyframes.at(frame.stamp_ns), images, depths)
                    for frame, depth in _frames(bag, rig, settings, broken)
                ]
        if not frames:
            raise BagError(
                f"{path} gave no frame with rig '{rig.name}': look at it with `dualview bag info --rig {rig.name}`"
            )
        for topic, count in broken.items():
            tell(f"{count} malformed sweeps of {topic} are left out")
        info = {
            "format": FORMAT, "source": str(path), "image_size": list(settings.image_size), "cameras": len(rig.cameras),
            "camera_names": list(rig.camera_names), "class_names": list(settings.class_names), "rig": rig.name,
            "broken_sweeps": dict(broken),
        }  # fmt: skip
        write_tables(temporary, frames, info)
        shutil.rmtree(folder, ignore_errors=True)  # no finished drive: what lies here can't be read
        os.replace(temporary, folder)
    except OSError as error:
        raise write_error(
            f"the drive of {path.name} can't be written to {folder.parent}", error, "; drives that are finished stay valid"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    summary = read_summary(folder)
    assert summary is not None
    return summary


def _annotations(bag: BagReader, rig: Rig, class_names: tuple[str, ...]) -> list[Annotations]:
    """Keyframes whose labels index into `class_names`; objects of other classes are left out."""
    result = []
    for annotation in bag.annotations(rig):
        names = annotation.class_names
        place = torch.tensor(
            [class_names.index(n) if n in class_names else -1 for n in names], dtype=torch.int64
        )
        boxes = annotation.boxes
        label = place[boxes.label] if len(boxes) else boxes.label
        relabelled = replace(annotation, boxes=replace(boxes, label=label), class_names=class_names)
        result.append(relabelled[label >= 0])
    return result


def _frames(
    bag: BagReader, rig: Rig, settings: IndexSettings, broken: Counter[str]
) -> Iterator[tuple[SurroundFrame, np.ndarray]]:
    """Decoded frames with their LiDAR depths [P, 4]. broken: counts, topic by topic, the sweeps that can't be read."""
    bag.check_rig(rig)
    own = AssemblerSettings.for_rig(rig)
    interval = max(own.min_interval, 0.9 / settings.max_rate)  # a tenth of slack for jitter of the exposures
    assembler = FrameAssembler(rig, AssemblerSettings.for_rig(rig, min_interval=interval))
    feed = AssemblerFeed(rig, assembler)
    sweeps = SweepBuffer(assembler.transforms, rig.world_frame)
    preprocessor = ImagePreprocessor(settings.image_size)
    waiting: list[SurroundFrame] = []
    for message in bag.messages(topics=[*feed.topics, *rig.lidar_topics]):
        if message.topic in rig.lidar_topics:
            header = message.message.header
            try:
                points = points_from_message(message.message)
            except ValueError:
                broken[message.topic] += 1
                continue
            sweeps.add(message.topic, header.frame_id, stamp_ns(header.stamp), points)
            continue
        feed.feed(message.topic, message.message)
        waiting += _decoded(assembler, preprocessor)
        while waiting and waiting[-1].stamp_ns - waiting[0].stamp_ns > _SETTLE_NS:
            yield _with_depth(waiting.pop(0), sweeps)
    assembler.flush()
    for frame in waiting + _decoded(assembler, preprocessor):
        yield _with_depth(frame, sweeps)


def _decoded(assembler: FrameAssembler, preprocessor: ImagePreprocessor) -> list[SurroundFrame]:
    built = [preprocessor.build(c)[0] for c in assembler.take_closed() if isinstance(c, ClosedFrame)]
    return [frame for frame in built if frame.camera_mask.any()]


def _with_depth(frame: SurroundFrame, sweeps: SweepBuffer) -> tuple[SurroundFrame, np.ndarray]:
    return frame, project_sweeps(sweeps.nearest(frame.stamp_ns, _SWEEP_DISTANCE_NS), frame)
