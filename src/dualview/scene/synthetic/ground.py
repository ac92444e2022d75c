"""Streets and blocks as meshes: pavements with kerbs, the ground inside blocks, and everything that is painted onto the asphalt."""

from __future__ import annotations

import numpy as np

from dualview.scene.synthetic.city import (
    CROSSWALK_END,
    CROSSWALK_START,
    KERB_HEIGHT,
    PARKING_WIDTH,
    STOP_LINE,
    Block,
    City,
    block_outline,
)
from dualview.scene.synthetic.meshes import Mesh, from_triangles, merge, polygon_fan, strip
from dualview.scene.synthetic.roads import Leg, crossing_half, lane_line

PAINT_HEIGHT = 0.012  # m above the asphalt, against depth fighting
_TILE = 3.0  # m that a pavement or lawn picture spans

INTERIOR_MATERIAL = {
    "downtown": "paving_b", "houses": "grass", "park": "grass", "lot": "asphalt_b", "site": "soil", "industry": "asphalt_b",
}  # fmt: skip


def _lift(points: np.ndarray, z: float) -> np.ndarray:
    return np.concatenate([points, np.full((len(points), 1), z)], 1)


def block_ground(city: City, block: Block) -> dict[str, Mesh]:
    """Material -> mesh of a block's kerb, pavement and inner ground."""
    rings = [city.warp(block_outline(block, inset)) for inset in (0.0, 0.28, block.sidewalk)]
    closed = [np.concatenate([r, r[:1]]) for r in rings]
    count = min(len(c) for c in closed)
    closed = [c[:count] for c in closed]
    outer, kerb, inner = closed
    # Counter-clockwise outlines have their inside on the left.
    face = strip(_lift(outer, KERB_HEIGHT), _lift(outer, -0.02))
    top = strip(_lift(kerb, KERB_HEIGHT), _lift(outer, KERB_HEIGHT))
    walk = strip(_lift(inner, KERB_HEIGHT), _lift(kerb, KERB_HEIGHT), inner / _TILE, kerb / _TILE)
    return {
        "kerb": merge([face, top]), "paving": walk,
        INTERIOR_MATERIAL[block.kind]: polygon_fan(inner[:-1], KERB_HEIGHT, _TILE),
    }  # fmt: skip


class _Painter:
    """Collects painted quads in grid coordinates and bends them into the world."""

    def __init__(self, city: City) -> None:
        self.city = city
        self.quads: dict[str, list[Mesh]] = {"marking": [], "centre_marking": [], "patch": []}

    def band(
        self, start: np.ndarray, end: np.ndarray, width: float, material: str, height: float = PAINT_HEIGHT
    ) -> None:
        """A painted band along a straight grid line."""
        way = end - start
        length = float(np.linalg.norm(way))
        if length < 0.05:
            return
        side = np.array([-way[1], way[0]]) / length * width / 2
        line = start + np.linspace(0, 1, max(int(length / 4.0), 1) + 1)[:, None] * way
        left, right = self.city.warp(line + side), self.city.warp(line - side)
        self.quads[material].append(strip(_lift(left, height), _lift(right, height), left / 2.0, right / 2.0))

    def dashes(
        self, start: np.ndarray, end: np.ndarray, width: float, dash: float, gap: float, material: str
    ) -> None:
        length = float(np.linalg.norm(end - start))
        way = (end - start) / length
        for s in np.arange(gap / 2, length - dash, dash + gap):
            self.band(start + way * s, start + way * (s + dash), width, material)

    def blob(
        self,
        center: np.ndarray,
        radii: tuple[float, float],
        angle: float,
        material: str,
        rng: np.random.Generator,
    ) -> None:
        """An irregular spot, such as a repair or a manhole."""
        count = 14
        a = np.linspace(0, 2 * np.pi, count, endpoint=False)
        ragged = 1 + 0.12 * rng.normal(0, 1, count) if radii[0] > 0.5 else np.ones(count)
        local = np.stack([radii[0] * np.cos(a), radii[1] * np.sin(a)], -1) * ragged[:, None]
        c, s = np.cos(angle), np.sin(angle)
        outline = self.city.warp(center) + local @ np.array([[c, s], [-s, c]])
        self.quads[material].append(polygon_fan(outline, 0.006, 2.0))


def _arrow(painter: _Painter, tip: np.ndarray, way: np.ndarray, turn: str) -> None:
    side = np.array([-way[1], way[0]])
    painter.band(tip - way * 3.2, tip - way * 1.0, 0.16, "marking")
    direction = {"straight": way, "left": side, "right": -side}[turn]
    base = tip - way * 1.0
    head = [
        base + direction * 0.95,
        base + np.array([-direction[1], direction[0]]) * 0.32,
        base - np.array([-direction[1], direction[0]]) * 0.32,
    ]
    world = painter.city.warp(np.array(head))
    points = _lift(world, PAINT_HEIGHT)
    faces = np.array([[0, 1, 2]])
    mesh = from_triangles(points, faces, texcoords=world / 2.0)
    if mesh.normals[0, 0, 2] < 0:
        mesh = from_triangles(points, faces[:, ::-1], texcoords=world / 2.0)
    painter.quads["marking"].append(mesh)


def road_markings(city: City, rng: np.random.Generator, legs: list[Leg]) -> dict[str, Mesh]:
    """Material -> mesh of lane lines, stop lines, zebra crossings, parking bays, arrows, repairs and manholes."""
    painter = _Painter(city)
    for leg in legs:
        street = city.street(leg.along_v, leg.start[0] if leg.along_v else leg.start[1])
        start, end = lane_line(city, leg, lateral=0.0)
        way = (end - start) / np.linalg.norm(end - start)
        right = np.array([way[1], -way[0]])
        offset = (leg.lane + 0.5) * street.lane_width
        stop = end + right * offset - way * STOP_LINE
        painter.band(
            stop - right * street.lane_width * 0.48, stop + right * street.lane_width * 0.48, 0.42, "marking"
        )
        turn = "left" if leg.lane == 0 and street.lanes > 1 else "straight"
        _arrow(painter, stop - way * 5.0, way, turn if rng.random() < 0.6 else "straight")
        for _ in range(int(rng.integers(1, 4))):
            at = (
                start
                + way * rng.uniform(8, np.linalg.norm(end - start) - 8)
                + right * rng.uniform(0.4, street.half_width - 0.6)
            )
            heading = float(city.warp.heading(at, np.arctan2(way[1], way[0])))
            painter.blob(at, (rng.uniform(0.8, 3.0), rng.uniform(0.5, 1.2)), heading, "patch", rng)
            at = start + way * rng.uniform(8, np.linalg.norm(end - start) - 8) + right * offset
            painter.blob(at, (0.34, 0.34), 0.0, "patch", rng)
        if leg.lane > 0:
            continue
        begin, finish = start + way * STOP_LINE, end - way * STOP_LINE
        for lane in range(1, street.lanes):
            shift = right * lane * street.lane_width
            painter.dashes(begin + shift, finish + shift - way * 14, 0.13, 3.0, 5.0, "marking")
            painter.band(finish + shift - way * 13, finish + shift, 0.13, "marking")
        edge = right * (street.lanes * street.lane_width)
        if street.parking:
            painter.band(begin + edge, finish + edge, 0.10, "marking")
            for s in np.arange(3.0, np.linalg.norm(finish - begin) - 3.0, 6.2):
                painter.band(
                    begin + edge + way * s,
                    begin + edge + way * s + right * (PARKING_WIDTH - 0.2),
                    0.09,
                    "marking",
                )
        if leg.sign > 0:  # the centre line belongs to both directions
            if street.lanes > 1:
                for side in (-0.13, 0.13):
                    painter.band(begin + right * side, finish + right * side, 0.11, "centre_marking")
            else:
                painter.dashes(begin, finish, 0.13, 3.0, 4.0, "centre_marking")
    for i, a in enumerate(city.u_streets):  # zebra crossings at all arms of all crossings
        for j, b in enumerate(city.v_streets):
            for along_v, sign in ((True, 1), (True, -1), (False, 1), (False, -1)):
                neighbour = (i, j + sign) if along_v else (i + sign, j)
                if not (0 <= neighbour[0] < len(city.u_streets) and 0 <= neighbour[1] < len(city.v_streets)):
                    continue
                street, half = (a if along_v else b), crossing_half(city, (i, j), along_v)
                origin = np.array([a.position, b.position])
                way = np.array([0.0, sign]) if along_v else np.array([float(sign), 0.0])
                right = np.array([way[1], -way[0]])
                for lateral in np.arange(-street.half_width + 0.5, street.half_width - 0.3, 1.0):
                    near = origin + way * (half + CROSSWALK_START) + right * (lateral + 0.25)
                    painter.band(near, near + way * (CROSSWALK_END - CROSSWALK_START), 0.5, "marking")
    return {material: merge(meshes) for material, meshes in painter.quads.items() if meshes}
