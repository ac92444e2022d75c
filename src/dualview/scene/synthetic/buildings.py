"""Houses, halls and towers along the streets, as meshes of walls, roofs and small parts."""

from __future__ import annotations

import numpy as np

from dualview.scene.synthetic.city import KERB_HEIGHT, Block, City
from dualview.scene.synthetic.domains import Domain
from dualview.scene.synthetic.meshes import Mesh, box, cylinder, from_triangles, merge, quad, rotation_z
from dualview.scene.synthetic.palette import Palette

FACADES = 12  # pictures of upper storeys, each with its ground floor
STOREY, BAY = 3.3, 3.4  # m
FACADE_SPAN = (4 * BAY, 4 * STOREY)  # m that a facade picture covers
GROUND_FLOOR = 4.0  # m
GROUND_SPAN = 12.0  # m that a ground-floor picture covers
ROOFS = 3


def _walls(
    length: float, depth: float, low: float, high: float, span: tuple[float, float], whole: bool
) -> Mesh:
    """Four walls around the origin, textured in units of `span` m; `whole`: the picture fills the height."""
    half = np.array([length, depth]) / 2
    corners = np.array([[1, -1], [1, 1], [-1, 1], [-1, -1]]) * half
    meshes, along = [], 0.0
    for a, b in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        width = float(np.linalg.norm(b - a))
        u0, u1 = along / span[0], (along + max(round(width / BAY), 1) * BAY) / span[0]
        v1 = 1.0 if whole else (high - low) / span[1]
        points = np.array([[*a, low], [*b, low], [*b, high], [*a, high]])
        meshes.append(quad(points, np.array([[u0, 0], [u1, 0], [u1, -v1], [u0, -v1]])))
        along += max(round(width / BAY), 1) * BAY
    return merge(meshes)


def _gable(length: float, depth: float, eaves: float, rise: float, hip: bool) -> Mesh:
    """A pitched roof with its ridge along x, overhanging a little."""
    x, y = length / 2 + 0.35, depth / 2 + 0.4
    ridge = x - (y if hip else 0.0)
    if ridge < 0.5:
        ridge = 0.5
    points = np.array(
        [
            [-x, -y, eaves],
            [x, -y, eaves],
            [x, y, eaves],
            [-x, y, eaves],
            [-ridge, 0, eaves + rise],
            [ridge, 0, eaves + rise],
        ]
    )
    faces = np.array([[0, 1, 5], [0, 5, 4], [2, 3, 4], [2, 4, 5], [1, 2, 5], [3, 0, 4], [0, 2, 1], [0, 3, 2]])
    mesh = from_triangles(points, faces, 15.0)
    texture = (
        np.stack([mesh.vertices[..., 0] + mesh.vertices[..., 1] * 0.3, mesh.vertices[..., 2] * 1.6], -1) / 4.0
    )
    return Mesh(mesh.vertices, mesh.normals, texture)


class _Lot:
    """Collects the meshes of one block by material."""

    def __init__(self, palette: Palette) -> None:
        self.palette = palette
        self.meshes: dict[str, list[Mesh]] = {}

    def add(self, material: str, mesh: Mesh, rotation: np.ndarray, at: np.ndarray) -> None:
        self.meshes.setdefault(material, []).append(mesh.transformed(rotation, (at[0], at[1], KERB_HEIGHT)))

    def paint(
        self, mesh: Mesh, rgb: tuple[float, float, float], rotation: np.ndarray, at: np.ndarray
    ) -> None:
        self.add("palette", self.palette.paint(mesh, rgb), rotation, at)


def _building(lot: _Lot, rng: np.random.Generator, length: float, depth: float, storeys: int, style: int, pitched: bool,
              rotation: np.ndarray, at: np.ndarray) -> None:  # fmt: skip
    """One house whose front looks towards its local -y."""
    top = GROUND_FLOOR + (storeys - 1) * STOREY
    lot.add(
        f"ground_{style}",
        _walls(length, depth, 0.0, GROUND_FLOOR, (GROUND_SPAN, GROUND_FLOOR), True),
        rotation,
        at,
    )
    if storeys > 1:
        lot.add(f"facade_{style}", _walls(length, depth, GROUND_FLOOR, top, FACADE_SPAN, False), rotation, at)
    band = tuple(rng.uniform(0.45, 0.8) * np.array([1.0, 0.97, 0.92]))
    lot.paint(box((length + 0.24, depth + 0.24, 0.22), (0, 0, GROUND_FLOOR)), band, rotation, at)
    if pitched:
        lot.add(
            f"roof_{int(rng.integers(ROOFS))}",
            _gable(length, depth, top, rng.uniform(0.3, 0.55) * depth, rng.random() < 0.4),
            rotation,
            at,
        )
        lot.paint(
            box((0.7, 0.7, 1.8), (rng.uniform(-0.3, 0.3) * length, 0.1 * depth, top + 0.42 * depth)),
            (0.45, 0.28, 0.22),
            rotation,
            at,
        )
        return
    lot.paint(box((length + 0.3, depth + 0.3, 0.5), (0, 0, top + 0.15)), band, rotation, at)
    lot.paint(box((length - 0.5, depth - 0.5, 0.1), (0, 0, top + 0.42)), (0.38, 0.37, 0.36), rotation, at)
    for _ in range(int(rng.integers(1, 4))):  # plant on the roof
        size = rng.uniform([1.5, 1.5, 1.0], [4.0, 3.5, 2.6])
        place = (rng.uniform(-0.35, 0.35) * length, rng.uniform(-0.3, 0.3) * depth, top + 0.4 + size[2] / 2)
        lot.paint(box(tuple(size), place), tuple(np.full(3, rng.uniform(0.4, 0.7))), rotation, at)
    if rng.random() < 0.35:  # set-back upper floors
        more = int(rng.integers(1, 5))
        inner = _walls(length * 0.7, depth * 0.7, top + 0.4, top + 0.4 + more * STOREY, FACADE_SPAN, False)
        lot.add(f"facade_{style}", inner, rotation, at)
        lot.paint(
            box((length * 0.7 + 0.2, depth * 0.7 + 0.2, 0.3), (0, 0, top + 0.4 + more * STOREY)),
            band,
            rotation,
            at,
        )


def _front_details(
    lot: _Lot,
    rng: np.random.Generator,
    length: float,
    depth: float,
    storeys: int,
    rotation: np.ndarray,
    at: np.ndarray,
) -> None:
    """Awnings, signs and balconies in front of a house."""
    for x in np.arange(-length / 2 + 2.5, length / 2 - 2, 4.2):
        if rng.random() < 0.22:
            colour = tuple(rng.uniform(0.15, 0.85, 3))
            awning = np.array(
                [
                    [x - 1.6, -depth / 2 - 1.3, 2.5],
                    [x + 1.6, -depth / 2 - 1.3, 2.5],
                    [x + 1.6, -depth / 2, 3.2],
                    [x - 1.6, -depth / 2, 3.2],
                ]
            )
            lot.paint(quad(awning), colour, rotation, at)
            lot.paint(quad(awning[::-1] - [0, 0, 0.02]), tuple(0.5 * np.array(colour)), rotation, at)
        if rng.random() < 0.10:
            lot.paint(
                box((0.12, 0.9, 0.9), (x, -depth / 2 - 0.5, 3.6)),
                tuple(rng.uniform(0.1, 0.95, 3)),
                rotation,
                at,
            )
        if storeys > 2 and rng.random() < 0.12:
            for floor in range(1, storeys):
                z = GROUND_FLOOR + (floor - 1) * STOREY + 0.1
                lot.paint(box((2.6, 1.1, 0.14), (x, -depth / 2 - 0.55, z)), (0.66, 0.65, 0.63), rotation, at)
                lot.paint(
                    box((2.6, 0.05, 0.95), (x, -depth / 2 - 1.08, z + 0.5)), (0.36, 0.38, 0.40), rotation, at
                )


def block_buildings(city: City, block: Block, domain: Domain, palette: Palette) -> dict[str, Mesh]:
    """Material -> mesh of everything built on a block."""
    rng = np.random.default_rng(block.seed)
    lot = _Lot(palette)
    if block.kind in ("park", "lot", "site"):
        if block.kind == "site":
            _shell(lot, rng, city, block)
        return {m: merge(parts) for m, parts in lot.meshes.items()}
    (u0, v0), (u1, v1) = block.low, block.high
    setback = (
        block.sidewalk
        + {"downtown": 0.1, "houses": rng.uniform(2.5, 5.0), "industry": rng.uniform(12.0, 15.0)}[block.kind]
    )
    sides = [  # start corner, direction, inward normal, span, is there a street
        (np.array([u0, v0]), np.array([1.0, 0.0]), np.array([0.0, 1.0]), u1 - u0, block.streets[2]),
        (np.array([u1, v0]), np.array([0.0, 1.0]), np.array([-1.0, 0.0]), v1 - v0, block.streets[1]),
        (np.array([u1, v1]), np.array([-1.0, 0.0]), np.array([0.0, -1.0]), u1 - u0, block.streets[3]),
        (np.array([u0, v1]), np.array([0.0, -1.0]), np.array([1.0, 0.0]), v1 - v0, block.streets[0]),
    ]
    for start, way, inward, span, street in sides:
        if not street:
            continue
        depth_here = {"downtown": (11, 16), "houses": (8, 11), "industry": (14, 20)}[block.kind]
        along = setback if block.kind != "downtown" else setback + 0.5
        stop = span - setback - depth_here[1] if block.kind != "industry" else span - setback - 4
        while along < stop - 6:
            depth = rng.uniform(*depth_here)
            length = min(
                {
                    "downtown": rng.uniform(10, 24),
                    "houses": rng.uniform(9, 14),
                    "industry": rng.uniform(22, 40),
                }[block.kind],
                stop - along,
            )
            if length < 6:
                break
            length = max(round(length / BAY), 2) * BAY
            middle = start + way * (along + length / 2) + inward * (setback + depth / 2)
            heading = float(city.warp.heading(middle, np.arctan2(way[1], way[0])))
            rotation, at = rotation_z(heading), city.warp(middle)
            style = int(rng.integers(FACADES))
            if block.kind == "downtown":
                storeys = int(rng.integers(domain.storeys[0], domain.storeys[1] + 1))
                _building(lot, rng, length, depth, storeys, style, rng.random() < 0.15, rotation, at)
                _front_details(lot, rng, length, depth, storeys, rotation, at)
            elif block.kind == "houses":
                _building(
                    lot, rng, length, depth, int(rng.integers(1, 4)), style, rng.random() < 0.8, rotation, at
                )
                hedge = start + way * (along + length / 2) + inward * (block.sidewalk + 0.5)
                lot.add(
                    "hedge",
                    box((length * rng.uniform(0.5, 0.8), 0.7, rng.uniform(0.7, 1.3)), (0, 0, 0.5), tile=1.2),
                    rotation,
                    city.warp(hedge),
                )
            else:
                _hall(lot, rng, length, depth, rotation, at)
            along += (
                length
                + {
                    "downtown": 0.0 if rng.random() < 0.8 else 4.0,
                    "houses": rng.uniform(3, 7),
                    "industry": rng.uniform(5, 9),
                }[block.kind]
            )
    return {m: merge(parts) for m, parts in lot.meshes.items()}


def _hall(
    lot: _Lot, rng: np.random.Generator, length: float, depth: float, rotation: np.ndarray, at: np.ndarray
) -> None:
    """A warehouse with ribs, gates and a strip of windows."""
    height = rng.uniform(6, 10)
    colour = (
        (0.62, 0.65, 0.68),
        (0.55, 0.60, 0.66),
        (0.70, 0.66, 0.58),
        (0.42, 0.47, 0.50),
        (0.72, 0.72, 0.70),
    )[int(rng.integers(5))]
    lot.paint(box((length, depth, height), (0, 0, height / 2)), colour, rotation, at)
    for x in np.arange(-length / 2, length / 2 + 0.1, 2.6):
        lot.paint(
            box((0.22, depth + 0.2, height), (x, 0, height / 2)), tuple(0.86 * np.array(colour)), rotation, at
        )
    lot.paint(
        box((length + 0.3, depth + 0.3, 0.4), (0, 0, height)), tuple(rng.uniform(0.2, 0.6, 3)), rotation, at
    )
    lot.paint(box((length * 0.9, depth + 0.12, 0.9), (0, 0, height * 0.76)), (0.24, 0.30, 0.36), rotation, at)
    for x in np.arange(-length / 2 + 4, length / 2 - 3, 7.5):
        lot.paint(
            box((3.6, depth + 0.3, 4.2), (x, 0, 2.1)),
            (0.82, 0.80, 0.74) if rng.random() < 0.5 else (0.25, 0.28, 0.32),
            rotation,
            at,
        )
    lot.paint(cylinder(1.2, 2.0).moved(0, 0, height), (0.6, 0.6, 0.6), rotation, at)


def _shell(lot: _Lot, rng: np.random.Generator, city: City, block: Block) -> None:
    """A concrete skeleton and heaps of earth on a building site."""
    middle = (np.array(block.low) + np.array(block.high)) / 2
    at, rotation = city.warp(middle), rotation_z(float(city.warp.heading(middle, 0.0)))
    size = (np.array(block.high) - np.array(block.low)) * 0.38
    for floor in range(int(rng.integers(1, 5))):
        lot.paint(box((size[0], size[1], 0.3), (0, 0, 3.4 * (floor + 1))), (0.60, 0.59, 0.57), rotation, at)
        for x in np.linspace(-size[0] / 2 + 0.4, size[0] / 2 - 0.4, 5):
            for y in np.linspace(-size[1] / 2 + 0.4, size[1] / 2 - 0.4, 4):
                lot.paint(box((0.45, 0.45, 3.4), (x, y, 3.4 * floor + 1.7)), (0.55, 0.54, 0.52), rotation, at)
