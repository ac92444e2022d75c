"""Boxes that would interpenetrate: found, and taken out of the world."""

from __future__ import annotations

import numpy as np

from dualview.scene.synthetic.actors import Actor, MovingActor


def _outlines(actors: list[Actor], time: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    poses = [a.pose(time) for a in actors]
    center = np.array([[p.x, p.y] for p in poses]).reshape(-1, 2)
    yaw = np.array([p.yaw for p in poses])
    half = np.array([a.model.size[:2] for a in actors]).reshape(-1, 2) / 2
    return center, yaw, half


def overlapping(actors: list[Actor], time: float, slack: float = 0.05) -> list[tuple[int, int]]:
    """Pairs of actors whose boxes interpenetrate by more than `slack` m at a time (separating axes in the plane)."""
    center, yaw, half = _outlines(actors, time)
    half = np.maximum(half - slack / 2, 0.02)
    radius = np.hypot(*half.T)
    offset = center[:, None] - center[None]
    i, j = np.nonzero(np.triu(np.hypot(offset[..., 0], offset[..., 1]) < radius[:, None] + radius[None], 1))
    axes = np.stack(
        [np.stack([np.cos(yaw), np.sin(yaw)], -1), np.stack([-np.sin(yaw), np.cos(yaw)], -1)], 1
    )  # [N, 2, 2]
    out = []
    for a, b in zip(i, j, strict=True):
        apart = False
        for axis in (*axes[a], *axes[b]):
            reach = sum(abs(float(axes[n][k] @ axis)) * half[n][k] for n in (a, b) for k in (0, 1))
            apart |= bool(abs(float((center[a] - center[b]) @ axis)) > reach)
        if not apart:
            out.append((int(a), int(b)))
    return out


def remove_collisions(
    actors: list[Actor], ego: MovingActor, seconds: float, interval: float = 0.25
) -> list[Actor]:
    """The actors less those that would drive or walk through another one, or through the ego vehicle, during the drive.

    The simulation avoids nearly all of it; what remains (of two, the one that moves; of a road train, all of it) is left out of the world.
    People may brush against each other.
    """
    everyone: list[Actor] = [ego, *actors]
    gone: set[int] = set()
    person = [a.model.class_name == "pedestrian" for a in everyone]
    for time in np.arange(-0.5, seconds + 0.5 + interval, interval):
        alive = [n for n in range(len(everyone)) if n not in gone]
        for a, b in overlapping([everyone[n] for n in alive], float(time)):
            a, b = alive[a], alive[b]
            if (
                (person[a] and person[b])
                or (everyone[a].group and everyone[a].group == everyone[b].group)
                or gone & {a, b}
            ):
                continue
            if not (everyone[a].moving or everyone[b].moving):
                continue
            loser = b if a == 0 or everyone[b].moving else a
            group = everyone[loser].group
            gone |= {loser} | {n for n, actor in enumerate(everyone) if group and actor.group == group}
            gone.discard(0)
    return [actor for n, actor in enumerate(everyone) if n not in gone and n != 0]
