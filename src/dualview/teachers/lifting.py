"""From image features to points with features: LiDAR returns read the features where the cameras saw them.

Each camera is used with its own exposure's pose. A point of an annotated object is first carried along with
the object's box from the sweep's instant to the exposure, so that a moving car's roof doesn't read the road.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from dualview.geometry.rigid import invert_rigid, transform_points
from dualview.scene.frame import SurroundFrame
from dualview.scene.keyframes import Keyframes
from dualview.scene.recorded import LidarSweep
from dualview.teachers.feature_cloud import FeatureCloud, join, merge
from dualview.teachers.instances import Instances, assign_points, instances_at

_MIN_DEPTH = 0.1  # m


@dataclass(frozen=True)
class LiftSettings:
    """max_range: how far from the vehicle points are used, m. voxel: points nearer than this are merged, m.
    enlarge: of boxes, m in all. ego_half_size: returns nearer to the LiDAR than this along and across the
    vehicle (m) are of the vehicle itself. occlusion: leave out a point whose camera sees another return within
    `occlusion_px` (px) that is more than `occlusion_m` (m) nearer.
    """

    max_range: float = 72.5
    voxel: float = 0.2
    enlarge: float = 0.4
    ego_half_size: tuple[float, float] = (2.7, 1.0)
    occlusion: bool = False
    occlusion_px: float = 4.0
    occlusion_m: float = 0.5


@dataclass(frozen=True)
class LiftedFrame:
    """What one instant adds: `static` in the world frame, `instances` by id, each along its own box's axes."""

    static: FeatureCloud
    instances: dict[str, FeatureCloud]


@dataclass(frozen=True)
class _Points:
    """Still world points, or points of one sweep along the axes of their boxes. owner as in `Ownership`."""

    xyz: Tensor
    owner: Tensor
    names: tuple[str, ...]


def remove_ego(relative: Tensor, world_from_ego: Tensor, half_size: tuple[float, float]) -> Tensor:
    """bool [P]: points that aren't of the vehicle itself. relative [P, 3]: to the LiDAR, along world axes (m)."""
    along = (relative.double() @ world_from_ego[:3, :3].double())[:, :2].abs()
    return (along >= along.new_tensor(half_size)).any(1)


def lift_frame(
    frames: Sequence[SurroundFrame],
    sweeps: Sequence[LidarSweep],
    keyframes: Keyframes | None,
    features_of: Callable[[SurroundFrame, int], Tensor],
    channels: int,
    settings: LiftSettings,
) -> LiftedFrame:
    """The points of `sweeps` with the features of all cameras that see them.

    frames: the cameras of one instant; those whose images have another size are a frame of their own. keyframes: the
    labels around this instant; None if the recording has none (then every point is static). features_of(frame,
    camera): [C, h, w] of that camera's whole image. A point that several cameras see counts for each. Sweeps at whose
    instant the objects aren't known are left out.
    """
    statics: list[FeatureCloud] = []
    objects: dict[str, list[FeatureCloud]] = {}
    sets = [s for sweep in sweeps if (s := _points_of(sweep, frames[0], keyframes, settings)) is not None]
    cameras = [(f, c) for f in frames for c in torch.nonzero(f.camera_mask).squeeze(1).tolist()]
    for frame, camera in cameras if sets else ():
        at_exposure = (
            Instances({})
            if keyframes is None
            else instances_at(keyframes, int(frame.camera_stamps_ns[camera]))
        )
        if at_exposure is None:
            continue
        features: Tensor | None = None
        for points in sets:
            world, usable = _at_exposure(points, at_exposure)
            location, seen = _project(world, frame, camera, settings)
            seen &= usable
            if not seen.any():
                continue
            features = features_of(frame, camera) if features is None else features
            sampled = sample_features(features, location[seen])
            cloud = FeatureCloud(points.xyz[seen], sampled, torch.ones(len(sampled)))
            owner = points.owner[seen]
            statics.append(merge(cloud[owner == -1], settings.voxel))
            for index in owner[owner >= 0].unique().tolist():
                objects.setdefault(points.names[index], []).append(cloud[owner == index])
    empty = FeatureCloud.empty(channels)
    return LiftedFrame(
        merge(join([empty, *statics]), settings.voxel),
        {name: merge(join(objects[name]), settings.voxel) for name in sorted(objects)},
    )


def sample_features(features: Tensor, location: Tensor) -> Tensor:
    """Bilinear features [P, C] (float32, CPU) of [C, h, w] at `location` [P, 2]: fractions (x, y) of the image."""
    grid = (location.to(features.device, features.dtype) * 2 - 1)[None, None]
    sampled = functional.grid_sample(features[None], grid, padding_mode="border", align_corners=False)
    return sampled[0, :, 0].T.float().cpu()


def _points_of(
    sweep: LidarSweep, frame: SurroundFrame, keyframes: Keyframes | None, settings: LiftSettings
) -> _Points | None:
    relative = torch.from_numpy(sweep.points[:, :3])
    kept = remove_ego(relative, frame.world_from_ego_anchor, settings.ego_half_size)
    world = relative[kept].double() + torch.from_numpy(sweep.origin)
    ego = frame.world_from_ego_anchor[:2, 3]
    world = world[(world[:, :2] - ego).norm(dim=1) <= settings.max_range]
    if keyframes is None:
        return _Points(world, torch.full((len(world),), -1), ())
    instances = instances_at(keyframes, sweep.stamp_ns)
    if instances is None:
        return None
    ownership = assign_points(world, instances, settings.enlarge)
    xyz = world.clone()
    for index, name in enumerate(ownership.names):
        mine = ownership.owner == index
        xyz[mine] = instances.known[name].local(world[mine])
    return _Points(xyz, ownership.owner, ownership.names)


def _at_exposure(points: _Points, instances: Instances) -> tuple[Tensor, Tensor]:
    """World places [P, 3] of the points when the camera exposed, and which of them are known."""
    world, usable = points.xyz.clone(), points.owner >= -1
    for index in points.owner[points.owner >= 0].unique().tolist():
        mine = points.owner == index
        pose = instances.known.get(points.names[index])
        if pose is None:
            usable &= ~mine
        else:
            world[mine] = pose.world(points.xyz[mine])
    return world, usable


def _project(
    world: Tensor, frame: SurroundFrame, camera: int, settings: LiftSettings
) -> tuple[Tensor, Tensor]:
    """Fractions [P, 2] (x, y) of the camera's image, and bool [P]: in front of it and inside."""
    camera_from_world = invert_rigid(
        frame.world_from_ego[camera].double() @ frame.ego_from_camera[camera].double()
    )
    projected = transform_points(camera_from_world, world) @ frame.intrinsics[camera].double().T
    depth = projected[:, 2]
    pixel = projected[:, :2] / depth.clamp(min=_MIN_DEPTH)[:, None]
    height, width = frame.image_size
    location = pixel / pixel.new_tensor([width, height])
    seen = (depth >= _MIN_DEPTH) & (location >= 0).all(1) & (location < 1).all(1)
    if settings.occlusion:
        seen &= ~hidden(pixel, depth, seen, settings)
    return location, seen


def hidden(pixel: Tensor, depth: Tensor, candidates: Tensor, settings: LiftSettings) -> Tensor:
    """bool [P]: behind another return of the same sweep, by the squares of `occlusion_px` around each pixel."""
    cell = (pixel[candidates] / settings.occlusion_px).floor().long()
    result = torch.zeros_like(candidates)
    if not len(cell):
        return result
    cell = cell - cell.amin(0) + 1
    columns, rows = (int(n) + 2 for n in cell.amax(0))
    nearest = torch.full((rows * columns,), float("inf"), dtype=depth.dtype)
    nearest.scatter_reduce_(0, cell[:, 1] * columns + cell[:, 0], depth[candidates], "amin")
    nearest = -functional.max_pool2d(-nearest.view(1, 1, rows, columns), 3, 1, 1).view(rows, columns)
    result[candidates] = depth[candidates] > nearest[cell[:, 1], cell[:, 0]] + settings.occlusion_m
    return result
