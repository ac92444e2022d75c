"""LiDAR sweeps of a posed world, by ray casting.

A sweep is taken at one instant: the turning of a real scanner, and so the skew between its columns, is not modelled.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from dualview.scene.synthetic.rig_layouts import LidarLayout
from dualview.scene.synthetic.scene_model import GROUP_HIDDEN, GROUP_SOLID, SceneModel

_SECTORS = 16


@dataclass(frozen=True)
class Sweep:
    """P returns: points [P, 4] float32 (x, y, z in m of the LiDAR frame, intensity 0..255); `hits` [A] returns on each actor."""

    points: np.ndarray
    hits: np.ndarray
    actors: np.ndarray  # int [P], actor of each return, -1 = scenery


def beam_directions(layout: LidarLayout) -> np.ndarray:
    """Unit vectors [columns, beams, 3] in the LiDAR frame."""
    azimuth = np.linspace(-np.pi, np.pi, layout.columns, endpoint=False)[:, None]
    elevation = np.radians(np.asarray(layout.elevations))[None]
    return np.stack(
        [
            np.cos(elevation) * np.cos(azimuth),
            np.cos(elevation) * np.sin(azimuth),
            np.sin(elevation) + 0 * azimuth,
        ],
        -1,
    )


def sweep(
    scene: SceneModel, layout: LidarLayout, world_from_lidar: np.ndarray, seed: int, index: int
) -> Sweep:
    """Cast all beams from `world_from_lidar` [4, 4]. Range noise and lost returns are drawn from (seed, index)."""
    mj, model, data = scene.mujoco, scene.model, scene.data
    directions = beam_directions(layout) @ world_from_lidar[:3, :3].T
    origin = np.ascontiguousarray(world_from_lidar[:3, 3])
    away = data.geom_xpos - origin
    radius = model.geom_rbound
    range_ = np.linalg.norm(away, axis=1)
    flat = np.linalg.norm(away[:, :2], axis=1)
    half_angle = np.arcsin(np.clip(radius / np.maximum(flat, 1e-6), 0, 1))
    bearing = np.arctan2(away[:, 1], away[:, 0])
    solid = (scene.base_group == GROUP_SOLID) & ((range_ - radius < layout.range) | (radius == 0))
    groups = np.array([1, 0, 0, 0, 0, 0], np.uint8)
    count, beams = directions.shape[:2]
    geom = np.full((count, beams), -1, np.int32)
    distance = np.full((count, beams), -1.0)
    normal = np.zeros((count, beams, 3))
    edges = np.linspace(0, count, _SECTORS + 1).astype(int)
    heading = np.arctan2(directions[:, 0, 1], directions[:, 0, 0])
    for first, last in itertools.pairwise(edges):
        middle = heading[(first + last) // 2]
        turn = np.abs((bearing - middle + np.pi) % (2 * np.pi) - np.pi)
        facing = (turn < half_angle + 1.1 * np.pi / _SECTORS + 0.01) | (flat <= radius) | (radius == 0)
        model.geom_group[:] = np.where(solid & facing, GROUP_SOLID, GROUP_HIDDEN)
        rays = np.ascontiguousarray(directions[first:last]).reshape(-1)
        n = (last - first) * beams
        g, d, nn = np.full(n, -1, np.int32), np.full(n, -1.0), np.zeros(3 * n)
        mj.mj_multiRay(model, data, origin, rays, groups, True, -1, g, d, nn, n, layout.range)
        geom[first:last], distance[first:last], normal[first:last] = (
            g.reshape(-1, beams),
            d.reshape(-1, beams),
            nn.reshape(-1, beams, 3),
        )
    rng = np.random.default_rng([seed, 31, index])
    noise = rng.normal(0, layout.range_noise, distance.shape)
    luck = rng.random(distance.shape)
    cosine = np.abs((normal * directions).sum(-1))
    strength = np.where(geom >= 0, scene.reflectivity[np.maximum(geom, 0)], 0.0) * np.clip(
        0.15 + 0.85 * cosine, 0, 1
    )
    faint = (
        strength * np.clip(layout.range / np.maximum(distance, 1.0), 0, 8) ** 1.2
    )  # dark, glancing, far surfaces return less
    kept = (
        (geom >= 0)
        & (distance > 1.0)
        & (distance < layout.range)
        & (luck < np.clip(0.55 + 2.0 * faint, 0, 0.985))
    )
    lidar_directions = beam_directions(layout)
    points = lidar_directions[kept] * (distance + noise)[kept, None]
    intensity = np.clip(strength[kept] * 255.0, 0, 255)
    actors = scene.actor_of_geom[geom[kept]]
    hits = np.bincount(actors[actors >= 0], minlength=len(scene.world.actors))
    return Sweep(np.concatenate([points, intensity[:, None]], 1).astype(np.float32), hits, actors)
