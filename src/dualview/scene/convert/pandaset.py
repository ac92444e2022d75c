"""PandaSet (Scale AI and Hesai, 2020) -> a recording.

What is translated, and how:

- World: PandaSet's world frame is `map`. Stamps are PandaSet's, in ns; a LiDAR sweep's stamp is its end, and
  the cameras fire while the beam passes them, up to 100 ms earlier.
- Ego: PandaSet's pose is of a frame with x right, y forward, z up ("the LiDAR frame" here; LiDAR points are
  in the world frame and are moved into it). `base_link` has REP-103's axes (x forward, y left) and lies on
  the ground below that frame's origin: a plane is fitted to the lowest points around the vehicle in some
  sweeps and the median of its heights below the origin is used (`ground_height`). The axes are not tilted to
  the plane.
- Poses: world_from_ego between PandaSet's 10 Hz poses is interpolated (position linear, rotation slerp) and
  written at the stamp of every image and sweep; the cameras of the first sweep fire before its pose, so up to
  0.15 s is extrapolated.
- Cameras: PandaSet gives camera-to-world per image; the mounting is rigid, so one ego_from_camera is the mean
  over all images, and how far single images depart from it is reported. Images are undistorted already; JPEG
  bytes aren't touched.
- Labels: rows with sensor_id 1 repeat objects for the second LiDAR and are dropped. Heading is yaw + 90
  degrees; sizes are (y, x, z) = (length, width, height). Velocities are differences of centres, point counts
  are of both LiDARs. Classes: `pandaset_labels.CLASS_MAP`.

Frames, images, sweeps or label files that are missing or broken are reported and passed over.

PandaSet stores sweeps and labels as pickles, which can run any code when read: only files inside the folder
that the user named are opened, links that lead out of it are refused. Convert only folders that come from a
source you trust.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from dualview.scene.bag_writer import BagWriter
from dualview.scene.convert.pandaset_files import PandaSetCamera, PandaSetSequence
from dualview.scene.convert.pandaset_labels import read_labels, with_point_counts
from dualview.scene.convert.summary import ConversionSummary
from dualview.scene.convert.trajectory import Trajectory
from dualview.scene.rig import Rig, load_rig

_LIDARS = {0: "pandar64", 1: "pandar_gt"}  # column d of a sweep: 360 degrees; front
# x forward, y left <- x right, y forward
_AHEAD_FROM_RIGHT = np.array([[0.0, 1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])


def convert_pandaset(
    source: str | Path,
    target: str | Path,
    rig: Rig | None = None,
    frames: range | None = None,
    overwrite: bool = False,
) -> ConversionSummary:
    """Write the PandaSet sequence in folder `source` to the recording `target` (.mcap).

    rig: the topics and camera names, default the rig `pandaset`; its cameras are named like PandaSet's
    folders. frames: which frames, default all. Raises BagError if `source` isn't a sequence or `target` can't
    be written.
    """
    rig = rig or load_rig("pandaset")
    sequence = PandaSetSequence.open(Path(source), frames)
    summary = ConversionSummary()
    lidar = Trajectory(sequence.stamps_ns, sequence.world_from_lidar)
    height = ground_height([points[:, :3] for _, points, _ in sequence.sample_sweeps()])
    if height is None:
        summary.notes.append("no sweep shows the ground: base_link is at the height of PandaSet's own frame")
    else:
        summary.notes.append(f"base_link lies on the ground, {height:.3f} m below PandaSet's frame")
    ego_from_lidar = np.eye(4)
    ego_from_lidar[:3, :3], ego_from_lidar[2, 3] = _AHEAD_FROM_RIGHT, height or 0.0
    trajectory = Trajectory(sequence.stamps_ns, sequence.world_from_lidar @ np.linalg.inv(ego_from_lidar))

    events: list[tuple[int, str, int]] = [
        (int(s), "lidar", i) for i, s in zip(sequence.frames, sequence.stamps_ns, strict=True)
    ]
    mountings, calibrations = {name: ego_from_lidar for name in _LIDARS.values()}, {}
    for spec in rig.cameras:
        camera = sequence.camera(spec.name, summary)
        if camera is None:
            continue
        mounting = _rigid_mounting(spec.name, camera, lidar, summary)
        if mounting is None:
            continue
        calibrations[spec.name], mountings[spec.frame] = camera.calibration, ego_from_lidar @ mounting
        events += [
            (int(stamp), spec.name, i) for i, stamp in zip(camera.frames, camera.stamps_ns, strict=True)
        ]
    events.sort(key=lambda event: event[0])
    labels = read_labels(sequence, summary)
    track_ids: dict[str, int] = {}

    with BagWriter(target, rig, overwrite) as bag:
        bag.static_transforms(events[0][0], mountings)
        for stamp, sensor, index in events:
            pose = trajectory.pose_at(stamp)
            if pose is None:
                summary.pass_over("messages without an ego pose near their stamp", f"{sensor} {index:02d}")
                continue
            bag.ego_pose(stamp, pose)
            if sensor != "lidar":
                jpeg = sequence.jpeg(sensor, index, summary)
                if jpeg is not None:
                    bag.camera_info(sensor, stamp, calibrations[sensor])
                    bag.image(sensor, stamp, jpeg)
                    summary.written["images"] += 1
                continue
            bag.odometry(stamp, pose, *trajectory.twist_at(stamp))
            sweep = sequence.sweep(index, summary)
            if sweep is not None:
                for number, name in _LIDARS.items():
                    bag.points(f"/{name}/points", stamp, sweep[1][sweep[2] == number], name)
                summary.written["sweeps"] += 1
            if index in labels:
                boxes = labels[index] if sweep is None else with_point_counts(labels[index], sweep[0])
                annotations = boxes.annotations(stamp, track_ids)
                bag.annotations(annotations)
                summary.written["keyframes"] += 1
                summary.written["boxes"] += len(annotations.boxes)
    return summary


def ground_height(sweeps: list[np.ndarray]) -> float | None:
    """How far the ground lies below the origin of points [P, 3] (m, z up, x right, y forward), None if too
    little of it is seen.

    A plane is fitted to the lowest point of each square metre within 10 m to the sides and 15 m to the front
    and back (the vehicle itself left out), narrowing the tolerance from 1 m to 0.1 m so that cars and kerbs
    fall away (trimmed least squares).
    """
    heights = []
    for points in sweeps:
        near = (
            (np.abs(points[:, 0]) < 10)
            & (np.abs(points[:, 1]) < 15)
            & (np.hypot(points[:, 0], points[:, 1]) > 3)
        )
        points = points[near]
        cell = np.floor(points[:, :2]).astype(np.int64) @ np.array([1000, 1])
        order = np.lexsort((points[:, 2], cell))
        low = points[order][np.diff(cell[order], prepend=np.iinfo(np.int64).min) != 0].astype(np.float64)
        if len(low) < 50:
            continue
        design = np.concatenate([low[:, :2], np.ones((len(low), 1))], 1)
        plane = np.array([0.0, 0.0, float(np.median(low[:, 2]))])
        for tolerance in (1.0, 0.5, 0.3, 0.2, 0.1, 0.1):
            inside = np.abs(low[:, 2] - design @ plane) < tolerance
            if inside.sum() < 30:
                break
            plane = np.linalg.lstsq(design[inside], low[inside, 2], rcond=None)[0]
        else:
            heights.append(-plane[2])
    return float(np.median(heights)) if heights else None


def _rigid_mounting(
    name: str, camera: PandaSetCamera, lidar: Trajectory, summary: ConversionSummary
) -> np.ndarray | None:
    """lidar_from_camera [4, 4]: the mean over all images; the largest departures go into the summary."""
    pairs = [
        (lidar.pose_at(int(s)), pose)
        for s, pose in zip(camera.stamps_ns, camera.world_from_camera, strict=True)
    ]
    relative = np.array([np.linalg.inv(ego) @ pose for ego, pose in pairs if ego is not None])
    if not len(relative):
        summary.pass_over("cameras without an ego pose near their stamps", name)
        return None
    rotations = Rotation.from_matrix(relative[:, :3, :3])
    mounting = np.eye(4)
    mounting[:3, :3], mounting[:3, 3] = rotations.mean().as_matrix(), relative[:, :3, 3].mean(0)
    turned = np.degrees((rotations.mean().inv() * rotations).magnitude().max())
    moved = np.linalg.norm(relative[:, :3, 3] - mounting[:3, 3], axis=1).max()
    summary.notes.append(
        f"{name} is rigidly mounted up to {moved * 100:.1f} cm and {turned:.2f} degrees in single images"
    )
    return mounting
