"""The motion of the vehicle that carries the sensors."""

from __future__ import annotations

import numpy as np

from dualview.scene.synthetic.actors import MovingActor


def world_from_ego(ego: MovingActor, time: float) -> np.ndarray:
    """Pose [4, 4] of base_link (rear axle, on the ground) at a time (s).

    The body pitches when it brakes or accelerates, rolls in bends and rocks a little on the road, all below one degree.
    """
    s = ego.distance(time)
    rear, front = ego.path.point(s), ego.path.point(s + ego.model.wheelbase)
    yaw = np.arctan2(front[1] - rear[1], front[0] - rear[0])
    speed_before, speed, speed_after = (ego.travel.slope(time + d) for d in (-0.4, 0.0, 0.4))
    acceleration = (speed_after - speed_before) / 0.8
    sideways = speed**2 * float(ego.path.curvature(np.array(s)))
    rock = min(speed / 10.0, 1.2) * 0.0012
    pitch = (
        -0.0035 * np.clip(acceleration, -4, 3)
        + rock * np.sin(2 * np.pi * s / 9.0)
        + 0.6 * rock * np.sin(2 * np.pi * s / 3.7 + 1.0)
    )
    roll = 0.0045 * np.clip(sideways, -4, 4) + 0.8 * rock * np.sin(2 * np.pi * s / 5.3 + 2.0)
    cy, sy, cp, sp, cr, sr = (
        np.cos(yaw),
        np.sin(yaw),
        np.cos(pitch),
        np.sin(pitch),
        np.cos(roll),
        np.sin(roll),
    )
    pose = np.eye(4)
    pose[:3, :3] = np.array([[cy, -sy, 0], [sy, cy, 0], [0, 0, 1]]) @ np.array(
        [[cp, 0, sp], [0, 1, 0], [-sp, 0, cp]]
    )
    pose[:3, :3] = pose[:3, :3] @ np.array([[1, 0, 0], [0, cr, -sr], [0, sr, cr]])
    pose[:2, 3] = rear
    return pose


def twist(ego: MovingActor, time: float, step: float = 0.02) -> tuple[np.ndarray, np.ndarray]:
    """Linear [3] (m/s) and angular [3] (rad/s) velocity along the axes of the ego frame, as central differences of the pose."""
    before, now, after = (world_from_ego(ego, time + d) for d in (-step, 0.0, step))
    linear = now[:3, :3].T @ (after[:3, 3] - before[:3, 3]) / (2 * step)
    spin = now[:3, :3].T @ (after[:3, :3] - before[:3, :3]) / (2 * step)
    return linear, np.array([spin[2, 1] - spin[1, 2], spin[0, 2] - spin[2, 0], spin[1, 0] - spin[0, 1]]) / 2
