"""Lanes, routes along them, and smooth paths that vehicles and pedestrians follow."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from scipy.interpolate import CubicSpline

from dualview.scene.synthetic.city import STOP_LINE, City
from dualview.scene.synthetic.curves import EvenCurve

DIRECTIONS = {
    "north": (True, 1),
    "south": (True, -1),
    "east": (False, 1),
    "west": (False, -1),
}  # (along v, sign)


@dataclass(frozen=True)
class Leg:
    """A lane of one street between two neighbouring crossings: it leaves crossing `start` (i, j) and arrives at crossing `end`."""

    start: tuple[int, int]
    end: tuple[int, int]
    lane: int  # 0 = next to the centre line

    @property
    def along_v(self) -> bool:
        return self.start[0] == self.end[0]

    @property
    def sign(self) -> int:
        return (self.end[1] - self.start[1]) if self.along_v else (self.end[0] - self.start[0])


@dataclass(frozen=True)
class StopPoint:
    """Where a path meets a traffic light: `distance` along it (m) of the stop line and of the crossing's far side."""

    distance: float
    exit: float
    crossing: tuple[int, int]
    along_v: bool
    sign: int
    turn: str  # straight, left, right


class Path:
    """A smooth curve in the world, parametrised by its length (m)."""

    def __init__(self, points: np.ndarray, stops: tuple[StopPoint, ...] = ()) -> None:
        keep = np.r_[True, np.linalg.norm(np.diff(points, axis=0), axis=1) > 1e-6]
        points = points[keep]
        along = np.r_[0.0, np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))]
        count = max(int(along[-1] / 1.0), 3)
        coarse = np.linspace(0, along[-1], count + 1)
        resampled = np.stack([np.interp(coarse, along, points[:, k]) for k in range(2)], -1)
        self.length = float(along[-1])
        self.stops = stops
        self._spline = CubicSpline(coarse, resampled)
        self.samples = self._spline(
            np.arange(0.0, self.length, 1.0)
        )  # [K, 2], one each metre, for quick look-ups
        slopes = self._spline(coarse, 1)
        step = self.length / count
        self._x, self._y = (EvenCurve(0.0, step, resampled[:, k], slopes[:, k]) for k in range(2))

    def point(self, distance: float) -> tuple[float, float]:
        """World point (x, y) at one distance along the path: `position` for a single number, and quick."""
        return self._x(distance), self._y(distance)

    def position(self, distance: np.ndarray | float) -> np.ndarray:
        """World points [..., 2] at distances along the path; straight on beyond its ends."""
        distance = np.asarray(distance, np.float64)
        inside = np.clip(distance, 0.0, self.length)
        return self._spline(inside) + (distance - inside)[..., None] * self._spline(inside, 1)

    def heading(self, distance: np.ndarray | float) -> np.ndarray:
        """Direction of travel (rad)."""
        d = self._spline(np.clip(distance, 0.0, self.length), 1)
        return np.arctan2(d[..., 1], d[..., 0])

    def curvature(self, distance: np.ndarray) -> np.ndarray:
        """Curvature (1/m, positive to the left)."""
        first, second = (self._spline(np.clip(distance, 0.0, self.length), n) for n in (1, 2))
        return (first[..., 0] * second[..., 1] - first[..., 1] * second[..., 0]) / np.maximum(
            (first**2).sum(-1), 1e-9
        ) ** 1.5


def all_legs(city: City) -> list[Leg]:
    """Every lane between neighbouring crossings, both ways."""
    legs = []
    for i in range(len(city.u_streets)):
        for j in range(len(city.v_streets)):
            for di, dj in ((1, 0), (-1, 0), (0, 1), (0, -1)):
                a, b = i + di, j + dj
                if 0 <= a < len(city.u_streets) and 0 <= b < len(city.v_streets):
                    street = city.street(di == 0, i if di == 0 else j)
                    legs += [Leg((i, j), (a, b), lane) for lane in range(street.lanes)]
    return legs


def crossing_half(city: City, crossing: tuple[int, int], along_v: bool) -> float:
    """Half the size of a crossing as seen along a street: the half width of the street across it."""
    return city.v_streets[crossing[1]].half_width if along_v else city.u_streets[crossing[0]].half_width


def lane_line(city: City, leg: Leg, lateral: float | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Grid points where a lane begins (edge of its first crossing) and ends (edge of its second); `lateral` from the centre line, m."""
    street = city.street(leg.along_v, leg.start[0] if leg.along_v else leg.start[1])
    offset = (leg.lane + 0.5) * street.lane_width if lateral is None else lateral
    ends = []
    for crossing, side in ((leg.start, 1), (leg.end, -1)):
        half = crossing_half(city, crossing, leg.along_v)
        at = (
            city.v_streets[crossing[1]] if leg.along_v else city.u_streets[crossing[0]]
        ).position + side * leg.sign * half
        ends.append(
            [street.position + offset * leg.sign, at]
            if leg.along_v
            else [at, street.position - offset * leg.sign]
        )
    return np.array(ends[0]), np.array(ends[1])


def next_legs(city: City, leg: Leg) -> list[tuple[Leg, str]]:
    """Where a vehicle at the end of a lane may go: (lane, "straight" | "left" | "right")."""
    i, j = leg.end
    step = np.array([leg.end[0] - leg.start[0], leg.end[1] - leg.start[1]])
    lanes_here = city.street(leg.along_v, leg.start[0] if leg.along_v else leg.start[1]).lanes
    out = []
    for turn, (di, dj) in (("straight", step), ("left", (-step[1], step[0])), ("right", (step[1], -step[0]))):
        a, b = i + int(di), j + int(dj)
        if not (0 <= a < len(city.u_streets) and 0 <= b < len(city.v_streets)):
            continue
        lanes = city.street(int(di) == 0, i if int(di) == 0 else j).lanes
        if turn == "left" and leg.lane == 0:
            out.append((Leg((i, j), (a, b), 0), turn))
        elif turn == "right" and leg.lane == lanes_here - 1:
            out.append((Leg((i, j), (a, b), lanes - 1), turn))
        elif turn == "straight":
            out.append((Leg((i, j), (a, b), min(leg.lane, lanes - 1)), turn))
    if not out:  # the outermost lane at the edge of the grid: turn to wherever there is a street
        for turn, (di, dj) in (("left", (-step[1], step[0])), ("right", (step[1], -step[0]))):
            a, b = i + int(di), j + int(dj)
            if 0 <= a < len(city.u_streets) and 0 <= b < len(city.v_streets):
                lanes = city.street(int(di) == 0, i if int(di) == 0 else j).lanes
                out.append((Leg((i, j), (a, b), 0 if turn == "left" else lanes - 1), turn))
    return out


def random_route(
    city: City,
    rng: np.random.Generator,
    first: Leg,
    length: float,
    lateral: float = 0.0,
    change_lanes: float = 0.3,
) -> Path:
    """A path of at least `length` m that begins on `first` and turns at random; `lateral` shifts it to the right (m)."""
    pieces: list[np.ndarray] = []
    marks: list[tuple[int, int, tuple[int, int], bool, int, str]] = []  # indices of pieces: stop line, exit
    leg, total = first, 0.0
    while total < length:
        street = city.street(leg.along_v, leg.start[0] if leg.along_v else leg.start[1])
        begin, end = lane_line(city, leg)
        side = np.array([leg.sign, 0.0]) if leg.along_v else np.array([0.0, -leg.sign])  # to the right
        begin, end = begin + side * lateral, end + side * lateral
        way = end - begin
        span = float(np.linalg.norm(way))
        forward = way / span
        fraction = np.linspace(0, 1, max(int(span / 3.0), 4))
        fraction = np.unique(np.r_[fraction, 1 - STOP_LINE / span])
        line = begin + fraction[:, None] * way
        if street.lanes > 1 and rng.random() < change_lanes and span > 50:  # change lanes on the way
            target = 1 - leg.lane
            shift = side * (target - leg.lane) * street.lane_width
            start = rng.uniform(0.15, 0.35)
            blend = np.clip((fraction - start) / (32.0 / span), 0, 1)
            line = line + (blend * blend * (3 - 2 * blend))[:, None] * shift
            leg = Leg(leg.start, leg.end, target)
        stop_index = sum(len(p) for p in pieces) + int(np.searchsorted(fraction, 1 - STOP_LINE / span - 1e-9))
        pieces.append(line)
        options = next_legs(city, leg)
        weights = np.array([{"straight": 3.0, "left": 1.3, "right": 1.2}[turn] for _, turn in options])
        following, turn = options[int(rng.choice(len(options), p=weights / weights.sum()))]
        exit_begin, exit_end = lane_line(city, following)
        next_side = np.array([following.sign, 0.0]) if following.along_v else np.array([0.0, -following.sign])
        exit_begin = exit_begin + next_side * lateral
        out = (exit_end - lane_line(city, following)[0]) / np.linalg.norm(
            exit_end - lane_line(city, following)[0]
        )
        a, d = line[-1], exit_begin
        reach = np.linalg.norm(d - a) * (0.40 if turn == "straight" else 0.55)
        t = np.linspace(0, 1, 16)[1:-1, None]
        bend = (
            (1 - t) ** 3 * a
            + 3 * (1 - t) ** 2 * t * (a + forward * reach)
            + 3 * (1 - t) * t**2 * (d - out * reach)
            + t**3 * d
        )
        pieces.append(bend)
        marks.append((stop_index, sum(len(p) for p in pieces), leg.end, leg.along_v, leg.sign, turn))
        total += span + float(np.linalg.norm(np.diff(bend, axis=0), axis=1).sum())
        leg = following
    points = city.warp(np.concatenate(pieces))
    along = np.r_[0.0, np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))]
    stops = tuple(
        StopPoint(float(along[stop]), float(along[min(leave, len(along) - 1)]), crossing, along_v, sign, turn)
        for stop, leave, crossing, along_v, sign, turn in marks
    )
    return Path(points, stops)


def sidewalk_route(
    city: City, rng: np.random.Generator, length: float
) -> tuple[Path, tuple[tuple[float, float, tuple[int, int], bool], ...]]:
    """A pedestrian's path along sidewalks and over zebra crossings.

    Returns the path and its crossings: (distance where one waits, distance of the far kerb, crossing (i, j), whether the
    street that is crossed runs along v).
    """
    count_u, count_v = len(city.u_streets), len(city.v_streets)
    i, j = int(rng.integers(count_u)), int(rng.integers(count_v))
    corner = np.array(
        [1 if rng.random() < 0.5 else -1, 1 if rng.random() < 0.5 else -1]
    )  # which corner of the crossing
    band = rng.uniform(0.9, 2.2)

    def at(i: int, j: int, corner: np.ndarray) -> np.ndarray:
        a, b = city.u_streets[i], city.v_streets[j]
        return np.array(
            [
                a.position + corner[0] * (a.half_width + band + 1.0),
                b.position + corner[1] * (b.half_width + band + 1.0),
            ]
        )

    points = [at(i, j, corner)]
    waits: list[tuple[int, int, tuple[int, int], bool]] = []
    total, cross_next = 0.0, bool(rng.random() < 0.5)
    while total < length:
        axis = int(rng.integers(2))
        if cross_next:  # over the street that runs along v (axis 0) or u (axis 1)
            street = city.u_streets[i] if axis == 0 else city.v_streets[j]
            across = city.v_streets[j] if axis == 0 else city.u_streets[i]
            zebra = 0.5 * (1.2 + 4.0) + rng.uniform(-0.9, 0.9)
            near = at(i, j, corner)
            line = across.position + corner[1 - axis] * (across.half_width + zebra)
            near[1 - axis] = line
            near[axis] = street.position + corner[axis] * (street.half_width + 0.5)
            far = near.copy()
            far[axis] = street.position - corner[axis] * (street.half_width + 0.5)
            points += [near, far]
            waits.append((len(points) - 2, len(points) - 1, (i, j), axis == 0))
            corner = corner.copy()
            corner[axis] *= -1
            points.append(at(i, j, corner))
        else:  # along the block to the next crossing
            target = [i, j]
            target[axis] += int(corner[axis])
            if not (0 <= target[0] < count_u and 0 <= target[1] < count_v):
                cross_next = True
                total += 5.0
                continue
            i, j = target
            corner = corner.copy()
            corner[axis] *= -1
            points.append(at(i, j, corner))
        total += float(np.linalg.norm(points[-1] - points[-2])) + (14.0 if cross_next else 0.0)
        cross_next = bool(rng.random() < 0.45)
    dense, index_of = [np.array(points[0])[None]], [0]
    for a, b in itertools.pairwise(points):
        steps = max(int(np.linalg.norm(np.asarray(b) - a) / 1.5), 1)
        dense.append(np.asarray(a) + (np.asarray(b) - a) * np.linspace(0, 1, steps + 1)[1:, None])
        index_of.append(index_of[-1] + steps)
    world = city.warp(np.concatenate(dense))
    along = np.r_[0.0, np.cumsum(np.linalg.norm(np.diff(world, axis=0), axis=1))]
    path = Path(world)
    return path, tuple(
        (float(along[index_of[a]]), float(along[index_of[b]]), crossing, v) for a, b, crossing, v in waits
    )
