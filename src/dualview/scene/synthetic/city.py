"""The plan of a city: a grid of streets, bent a little, with blocks between them.

Everything is planned on a straight grid with coordinates (u, v) in m and then bent by a smooth `Warp` into the world, so streets
curve gently while lanes, kerbs and houses stay parallel. Street i of one kind runs along v at u = `u_streets[i]`, street j of the
other along u at v = `v_streets[j]`.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from dualview.scene.synthetic.domains import Domain

CROSSWALK_START, CROSSWALK_END, STOP_LINE = 1.0, 4.2, 5.2  # m before the edge of a crossing
PARKING_WIDTH = 2.3
KERB_HEIGHT = 0.13
OUTER_DEPTH = 60.0  # m of houses around the outermost streets
CORNER_RADIUS = 4.5


@dataclass(frozen=True)
class Warp:
    """(u, v) -> (x, y): two gentle waves, one across the other."""

    amplitude: tuple[float, float]
    wavelength: tuple[float, float]
    phase: tuple[float, float]

    def __call__(self, uv: np.ndarray) -> np.ndarray:
        """World points [..., 2] (m) of grid points [..., 2]."""
        u, v = uv[..., 0], uv[..., 1]
        x = u + self.amplitude[0] * np.sin(2 * np.pi * v / self.wavelength[0] + self.phase[0])
        y = v + self.amplitude[1] * np.sin(2 * np.pi * u / self.wavelength[1] + self.phase[1])
        return np.stack([x, y], -1)

    def heading(self, uv: np.ndarray, angle: float | np.ndarray) -> np.ndarray:
        """World direction (rad) of the grid direction `angle` (rad) at grid points [..., 2]."""
        step = np.stack([np.cos(angle), np.sin(angle)], -1) * 0.05
        d = self(uv + step) - self(uv - step)
        return np.arctan2(d[..., 1], d[..., 0])


@dataclass(frozen=True)
class Street:
    """A street of the grid: how many lanes each way, and whether cars park at its sides."""

    position: float
    lanes: int
    parking: bool
    lane_width: float

    @property
    def half_width(self) -> float:
        """From the centre line to the kerb, m."""
        return self.lanes * self.lane_width + (PARKING_WIDTH if self.parking else 0.4)


@dataclass(frozen=True)
class Block:
    """Ground between streets: a rectangle of the grid, and what stands on it."""

    low: tuple[float, float]
    high: tuple[float, float]
    kind: str  # downtown, houses, park, lot, site, industry
    sidewalk: float  # width, m
    seed: int
    streets: tuple[bool, bool, bool, bool]  # is there a street at its low-u, high-u, low-v, high-v side?


@dataclass(frozen=True)
class City:
    """The plan."""

    u_streets: tuple[Street, ...]  # run along v
    v_streets: tuple[Street, ...]  # run along u
    warp: Warp
    blocks: tuple[Block, ...]
    lane_width: float
    signal_offset: np.ndarray  # [I, J] s, when each crossing's cycle begins

    def street(self, along_v: bool, index: int) -> Street:
        return (self.u_streets if along_v else self.v_streets)[index]

    @property
    def center(self) -> np.ndarray:
        """Middle of the grid (u, v)."""
        return np.array(
            [np.mean([s.position for s in self.u_streets]), np.mean([s.position for s in self.v_streets])]
        )


CYCLE, GREEN, CLEAR = 30.0, 12.0, 3.0  # s: a signal's cycle, each way's green, and all-red between


def signal_state(city: City, i: int, j: int, along_v: bool, time: float) -> str:
    """The light ("green", "yellow" or "red") that traffic along v (or along u) sees at crossing (i, j) at `time` (s)."""
    t = (time + city.signal_offset[i, j] - (0.0 if along_v else GREEN + CLEAR)) % CYCLE
    return "green" if t < GREEN else ("yellow" if t < GREEN + 2.0 else "red")


def walk_allowed(city: City, i: int, j: int, across_street_along_v: bool, time: float) -> bool:
    """May pedestrians start to cross the street that runs along v (or u) at crossing (i, j)? They walk with the other street's green."""
    t = (time + city.signal_offset[i, j] - (GREEN + CLEAR if across_street_along_v else 0.0)) % CYCLE
    return t < GREEN - 4.0


KINDS = ("downtown", "houses", "park", "lot", "site", "industry")


def plan_city(rng: np.random.Generator, domain: Domain, streets: int = 4) -> City:
    """A random city with `streets` x `streets` streets."""

    def row() -> tuple[Street, ...]:
        positions = np.cumsum([0.0, *rng.uniform(78, 112, streets - 1)])
        out = []
        for position in positions - positions.mean():
            lanes = int(rng.choice([1, 2], p=[0.5, 0.5]))
            parking = bool(rng.random() < (0.85 if lanes == 1 else 0.55))
            out.append(Street(float(position), lanes, parking, domain.lane_width))
        return tuple(out)

    u_streets, v_streets = row(), row()
    warp = Warp(
        tuple(rng.uniform(-9, 9, 2)), tuple(rng.uniform(230, 380, 2)), tuple(rng.uniform(0, 2 * np.pi, 2))
    )
    mix = rng.dirichlet([3.0, 2.2, 1.0, 0.9, 1.1, 1.2])

    def add(
        u: tuple[float, float],
        v: tuple[float, float],
        kinds: tuple[str, ...],
        sides: tuple[bool, bool, bool, bool],
    ) -> None:
        kind = str(rng.choice(KINDS, p=mix))
        kind = kind if kind in kinds else kinds[0]
        blocks.append(
            Block(
                (u[0], v[0]),
                (u[1], v[1]),
                kind,
                float(rng.uniform(2.6, 4.2)),
                int(rng.integers(1 << 31)),
                sides,
            )
        )

    blocks: list[Block] = []
    for a, b in itertools.pairwise(u_streets):
        for c, d in itertools.pairwise(v_streets):
            inside = (
                (a.position + a.half_width, b.position - b.half_width),
                (c.position + c.half_width, d.position - d.half_width),
            )
            add(*inside, KINDS, (True, True, True, True))
    taken = [b.kind for b in blocks]
    order = rng.permutation(len(blocks))
    for n, kind in zip(order, ("site", "lot"), strict=False):  # every city has a building site and a car park
        if kind not in taken:
            b = blocks[n]
            blocks[n] = Block(b.low, b.high, kind, b.sidewalk, b.seed, b.streets)
    # Around the outermost streets houses stand without a gap, so nobody looks out of the city.
    west, east = (u_streets[k].position + s * u_streets[k].half_width for k, s in ((0, -1), (-1, 1)))
    south, north = (v_streets[k].position + s * v_streets[k].half_width for k, s in ((0, -1), (-1, 1)))
    edge = ("downtown", "houses", "industry")
    columns = [west - OUTER_DEPTH, *(s.position for s in u_streets), east + OUTER_DEPTH]
    rows = [south, *(s.position for s in v_streets[1:-1]), north]
    for span in itertools.pairwise(columns):
        add(span, (south - OUTER_DEPTH, south), edge, (False, False, False, True))
        add(span, (north, north + OUTER_DEPTH), edge, (False, False, True, False))
    for span in itertools.pairwise(rows):
        add((west - OUTER_DEPTH, west), span, edge, (False, True, False, False))
        add((east, east + OUTER_DEPTH), span, edge, (True, False, False, False))
    offsets = rng.uniform(0, CYCLE, (streets, streets))
    return City(u_streets, v_streets, warp, tuple(blocks), domain.lane_width, offsets)


def block_outline(block: Block, inset: float = 0.0) -> np.ndarray:
    """Grid points [K, 2] (counter-clockwise) of a block's rounded outline, `inset` m inside its kerb."""
    (u0, v0), (u1, v1) = block.low, block.high
    u0, v0, u1, v1 = u0 + inset, v0 + inset, u1 - inset, v1 - inset
    radius = (
        max(CORNER_RADIUS - inset, 0.6) if all(block.streets) else 0.05
    )  # outer blocks join without notches
    arc = np.linspace(0, np.pi / 2, 6)
    points: list[np.ndarray] = []
    corners = [
        (u1 - radius, v0 + radius, -np.pi / 2),
        (u1 - radius, v1 - radius, 0.0),
        (u0 + radius, v1 - radius, np.pi / 2),
        (u0 + radius, v0 + radius, np.pi),
    ]
    for n, (cu, cv, start) in enumerate(corners):
        bend = np.stack([cu + radius * np.cos(start + arc), cv + radius * np.sin(start + arc)], -1)
        points.append(bend)
        nu, nv, next_start = corners[(n + 1) % 4]
        end = np.array([nu + radius * np.cos(next_start), nv + radius * np.sin(next_start)])
        side = block.high[1 - n % 2] - block.low[1 - n % 2]  # the same number of points whatever the inset
        count = max(int(side / 6.0), 1)
        points.append(bend[-1] + (end - bend[-1]) * np.linspace(0, 1, count + 1)[1:-1, None])
    return np.concatenate(points)
