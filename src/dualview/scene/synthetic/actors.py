"""Who is in the world: things that stay where they are, and movers on paths. Poses are functions of time."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from dualview.scene.synthetic.city import KERB_HEIGHT
from dualview.scene.synthetic.curves import EvenCurve
from dualview.scene.synthetic.object_model import ObjectModel
from dualview.scene.synthetic.roads import Path

STRIDE = 1.45  # m that a person of 1.75 m walks in one full cycle of the legs


@dataclass(frozen=True)
class Pose:
    """Where an object's box centre stands on the ground: x, y, z of its underside (m), yaw (rad); stride phase (rad) and strength 0..1."""

    x: float
    y: float
    z: float
    yaw: float
    phase: float = 0.0
    stride: float = 0.0


@dataclass(frozen=True)
class StaticActor:
    """An object that never moves. `group`: members of one group may touch each other."""

    name: str
    model: ObjectModel
    colour: tuple[float, float, float]
    rest: Pose
    group: str = ""

    moving = False

    def pose(self, time: float) -> Pose:
        return self.rest


@dataclass(frozen=True)
class MovingActor:
    """A vehicle or pedestrian on a path: `travel` gives the distance (m) along it of the following axle (or of a person) at a time (s).

    `lag`: a trailer's axle follows that many metres behind its tractor's. `level`: distances between which the path is on a
    raised pavement are all that are not in `crossings`, for pedestrians.
    """

    name: str
    model: ObjectModel
    colour: tuple[float, float, float]
    path: Path
    travel: EvenCurve
    lag: float = 0.0
    crossings: tuple[tuple[float, float], ...] | None = None
    group: str = ""

    moving = True

    def distance(self, time: float) -> float:
        """Distance along the path (m)."""
        return self.travel(time) - self.lag

    def pose(self, time: float) -> Pose:
        s = self.distance(time)
        if self.crossings is not None:  # a person
            x, y = self.path.point(s)
            (x1, y1), (x0, y0) = self.path.point(s + 0.35), self.path.point(s - 0.35)
            yaw = math.atan2(y1 - y0, x1 - x0)
            drop = max((min(s - a, b - s) for a, b in self.crossings), default=-1.0)
            z = KERB_HEIGHT * min(max(0.5 - drop / 0.4, 0.0), 1.0)
            speed = self.travel.slope(time)
            scale = self.model.size[2] / 1.75
            return Pose(x, y, z, yaw, 2 * math.pi * s / (STRIDE * scale), min(max(speed / 1.1, 0.05), 1.0))
        (x0, y0), (x1, y1) = self.path.point(s), self.path.point(s + self.model.wheelbase)
        yaw = math.atan2(y1 - y0, x1 - x0)
        return Pose(
            x0 - math.cos(yaw) * self.model.rear_axle, y0 - math.sin(yaw) * self.model.rear_axle, 0.0, yaw
        )


Actor = StaticActor | MovingActor


def velocity(actor: Actor, time: float, step: float = 0.05) -> np.ndarray:
    """Velocity [3] (m/s) of the box centre: the central difference of its position over +-`step` s."""
    if not actor.moving:
        return np.zeros(3)
    after, before = actor.pose(time + step), actor.pose(time - step)
    # Steps up a kerb are not reported: a pavement's edge is no vertical speed that anyone annotates.
    return np.array([after.x - before.x, after.y - before.y, 0.0]) / (2 * step)
