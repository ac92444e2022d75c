"""Argoverse 2's sensor data set (Wilson et al., NeurIPS Datasets and Benchmarks 2021) -> a recording.

What is translated, and how:

- World: the city frame of the log is `map`. Ego: Argoverse's egovehicle frame (x forward, y left, z up, origin in the
  middle of the rear axle, so about a wheel's radius above the road) is `base_link` as it is. Stamps are the files', in ns.
- Cameras: those of the rig that the log has, the seven ring cameras by default, the front one upright (1550x2048). Every
  image keeps its own stamp and its JPEG bytes, and is preceded by the ego pose of that stamp: the pose table has one for
  every sensor's stamps; in between is interpolated. Images are undistorted, so the calibration is a pinhole's.
- LiDAR: Argoverse gives both LiDARs' points together in the ego frame at the sweep's stamp, motion compensated. They are
  parted by laser number and moved into the frames of `up_lidar` and `down_lidar`, so that tf brings them back to where they
  were.
- Labels: at every labelled sweep, see `argoverse2_labels`. Classes keep Argoverse's names (the 26 that are scored and the
  four that aren't); instance names are the track uuids; point counts are Argoverse's `num_interior_pts`. The rig
  `argoverse2` reads the 26 classes, the rig `argoverse2_nuscenes` nuScenes' ten by name.

Files that are missing or broken are reported and passed over, unless nothing can be made of the log without them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dualview.errors import BagError, DualViewError
from dualview.scene.bag_writer import BagWriter
from dualview.scene.convert.argoverse2_files import ArgoverseLog, ArgoverseSweep, read_jpeg, read_sweep
from dualview.scene.convert.argoverse2_labels import read_labels
from dualview.scene.convert.summary import ConversionSummary
from dualview.scene.rig import Rig, load_rig

_LIDARS = ("up_lidar", "down_lidar")
_SWEEP, _LABELS = "lidar", "labels"


@dataclass(frozen=True, order=True)
class _Event:
    """Something that happened at a time: a camera's name, _SWEEP or _LABELS; sweeps come before their labels."""

    stamp_ns: int
    rank: int
    what: str
    path: Path


def convert_argoverse2(
    source: str | Path, target: str | Path, rig: Rig | None = None, overwrite: bool = False
) -> ConversionSummary:
    """Write one log, the folder `source`, to the recording `target` (.mcap).

    rig: default the rig `argoverse2`; its cameras are named like Argoverse's folders. Raises BagError if `source` isn't a
    log, has neither images nor sweeps, holds a damaged table, or if `target` can't be written.
    """
    rig = rig or load_rig("argoverse2")
    summary = ConversionSummary()
    log = ArgoverseLog.open(Path(source), summary)
    events, mountings = _events(log, rig, summary)
    if not events:
        raise BagError(
            f"{source} has no images of {', '.join(rig.camera_names)} and no LiDAR sweeps: "
            "download its folder sensors/, or name another log"
        )
    labels = read_labels(log, summary)
    events += [_Event(stamp, 2, _LABELS, log.folder) for stamp in labels]
    events.sort()
    kinds = {event.what for event in events}
    odometry_of = _SWEEP if _SWEEP in kinds else next(c for c in rig.camera_names if c in kinds)
    track_ids: dict[str, int] = {}
    posed_ns = None
    with BagWriter(target, rig, overwrite) as bag:
        bag.static_transforms(events[0].stamp_ns, mountings)
        for event in events:
            stamp, what = event.stamp_ns, event.what
            pose = log.city_from_ego.pose_at(stamp)
            if pose is None:
                summary.pass_over("files without an ego pose near their stamp", f"{what}/{event.path.name}")
                continue
            if stamp != posed_ns:
                bag.ego_pose(stamp, pose)
                posed_ns = stamp
            if what == odometry_of:
                bag.odometry(stamp, pose, *log.city_from_ego.twist_at(stamp))
            if what == _LABELS:
                annotations = labels[stamp].annotations(stamp, track_ids)
                bag.annotations(annotations)
                summary.written["keyframes"] += 1
                summary.written["boxes"] += len(annotations.boxes)
            elif what == _SWEEP:
                sweep = read_sweep(event.path, summary)
                if sweep is not None:
                    _write_sweep(bag, rig, stamp, sweep, mountings)
                    summary.written["sweeps"] += 1
            else:
                jpeg = read_jpeg(event.path, summary)
                if jpeg is not None:
                    bag.camera_info(what, stamp, log.calibrations[what])
                    bag.image(what, stamp, jpeg)
                    summary.written["images"] += 1
    return summary


def convert_argoverse2_logs(
    sources: Sequence[str | Path], target: str | Path, rig: Rig | None = None, overwrite: bool = False
) -> Iterator[tuple[Path, ConversionSummary | DualViewError]]:
    """Write each log to a recording and tell (its path, what was done or what went wrong), one after the other.

    target: the recording of a single log if it ends in .mcap, else a folder for recordings named like the logs' folders. A
    log that can't be converted doesn't keep the others from it. Raises BagError, before anything is written, if several logs
    would go into one file.
    """
    target, folders = Path(target), [Path(source) for source in sources]
    if target.suffix == ".mcap":
        if len(folders) != 1:
            raise BagError(f"{len(folders)} logs don't go into the one recording {target}: name a folder")
        return _convert_each([(folders[0], target)], rig, overwrite)
    names = Counter(folder.resolve().name for folder in folders)
    twice = [name for name, count in names.items() if count > 1]
    if twice:
        raise BagError(f"several logs are called {twice[0]}: convert them into different folders")
    return _convert_each([(f, target / f"{f.resolve().name}.mcap") for f in folders], rig, overwrite)


def _convert_each(
    pairs: Sequence[tuple[Path, Path]], rig: Rig | None, overwrite: bool
) -> Iterator[tuple[Path, ConversionSummary | DualViewError]]:
    for source, path in pairs:
        try:
            yield path, convert_argoverse2(source, path, rig, overwrite)
        except DualViewError as error:
            yield path, error


def _events(
    log: ArgoverseLog, rig: Rig, summary: ConversionSummary
) -> tuple[list[_Event], dict[str, np.ndarray]]:
    """Images and sweeps of the log, and ego_from_sensor [4, 4] by frame of the sensors that go into the recording."""
    mountings = {name: log.ego_from_sensor[name] for name in _LIDARS if name in log.ego_from_sensor}
    events = [_Event(stamp, 1, _SWEEP, path) for stamp, path in log.sweeps(summary)]
    for camera in rig.cameras:
        images = log.images(camera.name, summary)
        if not images:
            summary.pass_over("cameras without images", camera.name)
        elif camera.name not in log.calibrations or camera.name not in log.ego_from_sensor:
            summary.pass_over("cameras without intrinsics or mounting", camera.name)
        else:
            mountings[camera.frame] = log.ego_from_sensor[camera.name]
            events += [_Event(stamp, 0, camera.name, path) for stamp, path in images]
    return events, mountings


def _write_sweep(
    bag: BagWriter, rig: Rig, stamp: int, sweep: ArgoverseSweep, mountings: dict[str, np.ndarray]
) -> None:
    """Each LiDAR's points in its own frame; in the ego frame if the log doesn't say where the LiDAR is."""
    for name, chosen in zip(_LIDARS, (sweep.from_above, ~sweep.from_above), strict=True):
        mounting = mountings.get(name, np.eye(4))
        points = (sweep.xyz[chosen] - mounting[:3, 3]) @ mounting[:3, :3]
        values = np.concatenate([points, sweep.intensity[chosen, None]], 1).astype(np.float32)
        bag.points(f"/{name}/points", stamp, values, name if name in mountings else rig.ego_frame)
