"""Traffic: vehicles that follow lanes, keep distance, stop at lights and for people, turn and overtake; people who walk and cross.

Everything moves along a fixed path; the simulation decides how far along it each one is. Car following is the intelligent driver model
(Treiber, Hennecke & Helbing 2000, eq. 2 and 3); what stands or drives in a vehicle's swept way ahead is its leader.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from scipy.spatial import cKDTree

from dualview.scene.synthetic.actors import MovingActor, StaticActor
from dualview.scene.synthetic.city import City, signal_state, walk_allowed
from dualview.scene.synthetic.curves import EvenCurve
from dualview.scene.synthetic.object_model import ObjectModel
from dualview.scene.synthetic.roads import Path

STEP = 0.1  # s, of the simulation
WARM_UP = 14.0  # s simulated before the drive begins
COMFORT, BRAKE, HEADWAY, STANDSTILL = 1.6, 2.4, 1.3, 1.8  # m/s^2, m/s^2, s, m
LOOK_AHEAD = 42  # m


@dataclass
class Mover:
    """State of one simulated vehicle or person."""

    name: str
    model: ObjectModel
    colour: tuple[float, float, float]
    path: Path
    distance: float
    speed: float
    cruise: float
    limit: np.ndarray  # speed limit at each metre of the path
    waits: tuple[tuple[float, float, tuple[int, int], bool], ...] = ()  # of a person
    trailer: ObjectModel | None = None
    person: bool = False
    history: list[tuple[float, float]] = field(default_factory=list)
    walled: np.ndarray = field(
        default_factory=lambda: np.zeros(0, int)
    )  # metres of the path at which something still is in the way

    def front(self) -> float:
        """Distance along the path of the front bumper."""
        return self.distance + (0.3 if self.person else self.model.size[0] / 2 - self.model.rear_axle)

    def discs(self) -> np.ndarray:
        """Discs [K, 3] (x, y, radius in m) that cover the mover."""
        if self.person:
            return np.array([[*self.path.position(self.distance), 0.35]])
        half, radius = self.model.size[0] / 2, self.model.size[1] / 2
        count = max(int(np.ceil(self.model.size[0] / self.model.size[1])), 2)
        along = (
            self.distance
            - self.model.rear_axle
            + np.linspace(-half + radius * 0.8, half - radius * 0.8, count)
        )
        if self.trailer is not None:
            tail = (
                self.distance
                + self.trailer.size[0] / 2
                - self.trailer.wheelbase
                - np.arange(0.0, self.trailer.size[0], 2.4)
            )
            along = np.r_[along, tail]
        return np.concatenate([self.path.position(along), np.full((len(along), 1), radius)], 1)


def speed_profile(path: Path, cruise: float, lateral: float = 2.2) -> np.ndarray:
    """Speed (m/s) allowed at each metre: cruise, or what `lateral` m/s^2 of sideways acceleration leave in bends, braking in time."""
    curvature = np.abs(path.curvature(np.arange(len(path.samples), dtype=float)))
    curvature = np.convolve(np.pad(curvature, 2, mode="edge"), np.ones(5) / 5, mode="valid")
    limit = np.minimum(cruise, np.sqrt(lateral / np.maximum(curvature, 1e-4)))
    for k in range(len(limit) - 2, -1, -1):
        limit[k] = min(limit[k], np.sqrt(limit[k + 1] ** 2 + 2 * 1.5))
    return np.maximum(limit, 1.5)


def _acceleration(speed: float, wanted: float, gap: float, closing: float) -> float:
    """Intelligent driver model."""
    desired = STANDSTILL + max(0.0, speed * HEADWAY + speed * closing / (2 * np.sqrt(COMFORT * BRAKE)))
    free = 1 - (speed / max(wanted, 0.1)) ** 4
    return float(np.clip(COMFORT * (free - (desired / max(gap, 0.1)) ** 2), -7.0, COMFORT))


class Simulation:
    """Steps all movers; `run` returns their trajectories as actors."""

    def __init__(self, city: City, movers: list[Mover], still: list[StaticActor]) -> None:
        self.city, self.movers = city, movers
        discs = []
        for actor in still:
            length, width, _ = actor.model.size
            yaw, radius = actor.rest.yaw, min(length, width) / 2
            count = max(int(np.ceil(max(length, width) / max(min(length, width), 0.4))), 1)
            direction = (
                np.array([np.cos(yaw), np.sin(yaw)])
                if length >= width
                else np.array([-np.sin(yaw), np.cos(yaw)])
            )
            for r in (np.arange(count) - (count - 1) / 2) / count * max(length, width):
                discs.append(
                    [actor.rest.x + direction[0] * r, actor.rest.y + direction[1] * r, radius - 0.35]
                )
        still_discs = np.array(discs) if discs else np.zeros((0, 3))
        tree = cKDTree(still_discs[:, :2])
        for mover in movers:
            if mover.person or not len(still_discs):
                continue
            near = tree.query_ball_point(mover.path.samples, 4.0)
            width = mover.model.size[1] / 2 + 0.15
            mover.walled = np.array([
                k for k, found in enumerate(near)
                if found and (np.hypot(*(still_discs[found, :2] - mover.path.samples[k]).T) < still_discs[found, 2] + width).any()
            ], int)  # fmt: skip

        # Who couldn't get past what stands in the way would only block a lane.
        horizon = WARM_UP + 10.0
        self.movers = [
            m for m in movers if m.person or not len(m.walled) or m.walled[0] > m.front() + horizon * m.cruise
        ]

    def _leader(
        self, mover: Mover, index: int, discs: np.ndarray, owner: np.ndarray, velocities: np.ndarray
    ) -> tuple[float, float]:
        """Gap (m) to whatever is in the way ahead, and its speed along the way; infinite if the way is free."""
        front = mover.front()
        reach = int(np.clip(8 + 2.4 * mover.speed, 10, LOOK_AHEAD))
        first = int(front) + 1
        way = mover.path.samples[first : first + reach]
        if len(way) == 0:
            return np.inf, 0.0
        wall = mover.walled[np.searchsorted(mover.walled, first) :]
        standing = max(wall[0] - front - 0.3, 0.05) if len(wall) and wall[0] < first + reach else np.inf
        near = np.abs(discs[:, :2] - way[len(way) // 2]).max(1) < reach / 2 + 6
        near &= owner != index
        if not near.any():
            return standing, 0.0
        candidates = discs[near]
        distance = np.hypot(
            way[:, None, 0] - candidates[None, :, 0], way[:, None, 1] - candidates[None, :, 1]
        )
        people = owner[near] == -2
        margin = np.where(people, 0.55, 0.15)
        blocked = distance < candidates[None, :, 2] + mover.model.size[1] / 2 + margin
        hit = blocked.any(1)
        if not hit.any():
            return standing, 0.0
        at = int(np.argmax(hit))
        who = np.flatnonzero(blocked[at])
        heading = mover.path.heading(float(first + at))
        speeds = velocities[near][who] @ np.array([np.cos(heading), np.sin(heading)])
        gap = max(first + at - front - 0.3, 0.05)
        return (gap, float(max(speeds.min(), 0.0))) if gap < standing else (standing, 0.0)

    def _light(self, mover: Mover, time: float) -> float:
        """Distance (m) to a stop line that must not be passed now; infinite if none."""
        front = mover.front()
        for stop in mover.path.stops:
            if stop.distance < front - 0.5:
                continue
            ahead = stop.distance - front
            if ahead > LOOK_AHEAD + 10:
                return np.inf
            state = signal_state(self.city, *stop.crossing, stop.along_v, time)
            braking = mover.speed**2 / (2 * 3.0)
            if (state == "red" and ahead > braking - 2.0) or (state == "yellow" and ahead > braking + 1.0):
                return max(ahead - 0.3, 0.05)
            if (
                stop.turn == "left"
                and ahead < 12
                and self._oncoming(mover, stop.crossing, stop.along_v, stop.sign)
            ):
                return max(ahead - 0.3, 0.05)
            return np.inf
        return np.inf

    def _oncoming(self, mover: Mover, crossing: tuple[int, int], along_v: bool, sign: int) -> bool:
        """Is anyone about to come straight through from the other side?"""
        for other in self.movers:
            if other is mover or other.person or other.speed < 1.5:
                continue
            front = other.front()
            for stop in other.path.stops:
                if stop.exit + 4 < front:
                    continue
                if (
                    stop.crossing == crossing
                    and stop.along_v == along_v
                    and stop.sign == -sign
                    and stop.turn != "left"
                ):
                    if stop.distance - front < 4.0 * other.speed:
                        return True
                break
        return False

    def run(self, seconds: float) -> list[MovingActor]:
        """Simulate warm-up and drive; the actors' time 0 is the end of the warm-up."""
        times = np.arange(0.0, WARM_UP + seconds + 2.0 + STEP / 2, STEP) - WARM_UP
        for time in times:
            parts = [m.discs() for m in self.movers]
            owner = np.concatenate(
                [
                    np.full(len(p), -2 if m.person else n)
                    for n, (m, p) in enumerate(zip(self.movers, parts, strict=True))
                ]
            )
            discs = np.concatenate(parts)
            velocities = np.zeros((len(discs), 2))
            start = 0
            for mover, part in zip(self.movers, parts, strict=True):
                heading = mover.path.heading(mover.distance)
                velocities[start : start + len(part)] = mover.speed * np.array(
                    [np.cos(heading), np.sin(heading)]
                )
                start += len(part)
            accelerations = []
            for index, mover in enumerate(self.movers):
                mover.history.append((mover.distance, mover.speed))
                accelerations.append(
                    self._walk(mover, time)
                    if mover.person
                    else self._drive(mover, index, time, discs, owner, velocities)
                )
            for mover, a in zip(self.movers, accelerations, strict=True):
                following = max(mover.speed + a * STEP, 0.0)
                mover.distance += (mover.speed + following) / 2 * STEP
                mover.speed = following
        return self._actors(times)

    def _drive(
        self,
        mover: Mover,
        index: int,
        time: float,
        discs: np.ndarray,
        owner: np.ndarray,
        velocities: np.ndarray,
    ) -> float:
        wanted = float(mover.limit[min(max(int(mover.distance + 1.0), 0), len(mover.limit) - 1)])
        gap, speed = self._leader(mover, index, discs, owner, velocities)
        a = _acceleration(mover.speed, wanted, gap, mover.speed - speed)
        line = self._light(mover, time)
        if line < np.inf:
            a = min(a, _acceleration(mover.speed, wanted, line + STANDSTILL - 0.4, mover.speed))
        if mover.speed > wanted:
            a = min(a, -min(1.8, (mover.speed - wanted) / 0.4))
        return a

    def _walk(self, mover: Mover, time: float) -> float:
        wanted = mover.cruise
        for wait, _, crossing, along_v in mover.waits:
            if -0.05 < wait - mover.distance < 0.7 and not walk_allowed(self.city, *crossing, along_v, time):
                wanted = 0.0
        return float(np.clip((wanted - mover.speed) / 0.35, -3.0, 1.5))

    def _actors(self, times: np.ndarray) -> list[MovingActor]:
        out = []
        for mover in self.movers:
            s, v = np.array(mover.history).T
            travel = EvenCurve(times[0], STEP, s, v)
            crossings = tuple((a, b) for a, b, _, _ in mover.waits) if mover.person else None
            group = f"road train {mover.name}" if mover.trailer is not None else ""
            out.append(
                MovingActor(mover.name, mover.model, mover.colour, mover.path, travel, 0.0, crossings, group)
            )
            if mover.trailer is not None:
                out.append(
                    MovingActor(
                        f"{mover.name}t",
                        mover.trailer,
                        (1.0, 1.0, 1.0),
                        mover.path,
                        travel,
                        mover.trailer.wheelbase,
                        None,
                        group,
                    )
                )
        return out
