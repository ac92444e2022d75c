"""Trees, lamp posts, traffic lights, signs, bins and shelters."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dualview.scene.synthetic.city import KERB_HEIGHT, Block, City
from dualview.scene.synthetic.meshes import Mesh, box, cylinder, ellipsoid, merge, revolve, rotation_z, tube
from dualview.scene.synthetic.palette import Palette
from dualview.scene.synthetic.roads import Leg, crossing_half, lane_line

TREE_SHAPES = 8
POLE = (0.30, 0.32, 0.33)


@dataclass(frozen=True)
class Standing:
    """Something that stands at a place: a mesh of the furniture list, turned and scaled."""

    mesh: str
    x: float
    y: float
    yaw: float
    scale: float = 1.0


@dataclass(frozen=True)
class SignalHead:
    """A traffic light: where its lit lamp is drawn for each state (world, m), and what it shows to whom."""

    crossing: tuple[int, int]
    along_v: bool
    lamps: tuple[tuple[float, float, float], ...]  # red, yellow, green


def build_trees(rng: np.random.Generator) -> list[tuple[Mesh, Mesh]]:
    """(trunk, crown) of each tree shape: round, tall and conifer-like ones, about 6 m to 9 m high."""
    trees = []
    for shape in range(TREE_SHAPES):
        height = rng.uniform(6, 9)
        bole = rng.uniform(1.9, 2.8)
        lean = rng.normal(0, 0.15, 2)
        top = np.array([lean[0], lean[1], height * 0.62])
        trunk = [tube((0, 0, -0.1), top, 0.17, 0.07)]
        crown = []
        if shape % 4 == 3:  # a conifer
            for k in range(4):
                low = bole * 0.6 + k * height * 0.2
                crown.append(
                    revolve([(0.0, low), (1.9 - 0.42 * k, low), (0.0, low + height * 0.36)], 11, crease=70.0)
                )
        else:
            spread = rng.uniform(1.5, 2.3) * (0.7 if shape % 4 == 2 else 1.0)
            for _ in range(7):
                angle, out = rng.uniform(0, 2 * np.pi), rng.uniform(0.2, 1.0) * spread
                at = np.array(
                    [out * np.cos(angle), out * np.sin(angle), rng.uniform(bole + 1.2, height - 1.0)]
                )
                trunk.append(tube((lean[0] * 0.4, lean[1] * 0.4, bole), at, 0.07, 0.03, 3))
                r = rng.uniform(1.0, 1.7)
                blob = ellipsoid((r, r * rng.uniform(0.9, 1.1), r * rng.uniform(0.7, 0.95)), 10, 5)
                bumps = (
                    1 + 0.13 * np.sin(blob.vertices @ rng.normal(0, 3.2, (3, 3))).sum(-1, keepdims=True) / 1.5
                )
                crown.append(Mesh(blob.vertices * bumps, blob.normals, blob.texcoords).moved(*at))
        leaves = merge(crown)
        texture = (
            np.stack(
                [
                    leaves.vertices[..., 0] + 0.6 * leaves.vertices[..., 1],
                    leaves.vertices[..., 2] + 0.3 * leaves.vertices[..., 1],
                ],
                -1,
            )
            / 1.6
        )
        trees.append((merge(trunk), Mesh(leaves.vertices, leaves.normals, texture)))
    return trees


def build_furniture(palette: Palette, rng: np.random.Generator) -> dict[str, Mesh]:
    """Name -> mesh of small street furniture, standing at the origin, facing +x."""
    lamp = [tube((0, 0, 0), (0, 0, 7.5), 0.09, 0.05), tube((0, 0, 7.4), (1.7, 0, 7.9), 0.05, 0.04)]
    signal = [tube((0, 0, 0), (0, 0, 3.4), 0.07, 0.06), box((0.24, 0.30, 0.92), (0.05, 0, 3.2))]
    gantry = [
        tube((0, 0, 0), (0, 0, 5.7), 0.11, 0.09),
        tube((0, 0, 5.6), (0, -4.6, 5.8), 0.07, 0.05),
        box((0.24, 0.34, 0.95), (0.05, -4.2, 5.6)),
        box((0.24, 0.30, 0.92), (0.05, -0.22, 3.2)),
    ]
    dark = (0.16, 0.17, 0.17)
    pieces = {
        "lamp": [
            palette.paint(merge(lamp), POLE),
            palette.paint(box((0.6, 0.22, 0.1), (1.8, 0, 7.88)), (0.75, 0.75, 0.72)),
        ],
        "signal": [palette.paint(merge(signal), dark)],
        "gantry": [palette.paint(merge(gantry), dark)],
        "bin": [
            palette.paint(cylinder(0.24, 0.9), (0.20, 0.30, 0.24)),
            palette.paint(cylinder(0.26, 0.06).moved(z=0.9), (0.12, 0.12, 0.12)),
        ],
        "hydrant": [
            palette.paint(cylinder(0.13, 0.65), (0.80, 0.15, 0.10)),
            palette.paint(ellipsoid((0.14, 0.14, 0.12)).moved(z=0.66), (0.80, 0.15, 0.10)),
        ],
        "bollard": [
            palette.paint(cylinder(0.07, 0.85), (0.25, 0.26, 0.27)),
            palette.paint(cylinder(0.075, 0.08).moved(z=0.72), (0.9, 0.9, 0.9)),
        ],
        "cabinet": [palette.paint(box((0.4, 0.9, 1.2), (0, 0, 0.6)), (0.52, 0.55, 0.53))],
        "bench": [
            palette.paint(box((0.5, 1.7, 0.07), (0, 0, 0.46)), (0.48, 0.32, 0.20)),
            palette.paint(box((0.07, 1.7, 0.4), (-0.25, 0, 0.72)), (0.48, 0.32, 0.20)),
            palette.paint(box((0.4, 0.08, 0.45), (0, 0.7, 0.22)), POLE),
            palette.paint(box((0.4, 0.08, 0.45), (0, -0.7, 0.22)), POLE),
        ],
        "shelter": [
            palette.paint(box((1.6, 4.0, 0.12), (0, 0, 2.5)), (0.25, 0.27, 0.30)),
            palette.paint(box((0.06, 3.8, 1.9), (-0.7, 0, 1.3)), (0.45, 0.55, 0.60)),
            palette.paint(box((1.2, 0.08, 2.2), (0, -1.9, 1.2)), tuple(rng.uniform(0.2, 0.8, 3))),
            *(
                palette.paint(tube((x, y, 0), (x, y, 2.5), 0.05), POLE)
                for x in (-0.7, 0.6)
                for y in (-1.9, 1.9)
            ),
        ],
    }
    for index, colour in enumerate(
        ((0.80, 0.10, 0.10), (0.10, 0.30, 0.70), (0.95, 0.80, 0.10), (0.92, 0.92, 0.92))
    ):
        board = (
            cylinder(0.32, 0.03, 16 if index != 2 else 4)
            .transformed(np.array([[0, 0, 1.0], [0, 1, 0], [-1, 0, 0]]))
            .moved(0.04, 0, 2.45)
        )
        inner = (
            cylinder(0.23, 0.034, 16 if index != 2 else 4)
            .transformed(np.array([[0, 0, 1.0], [0, 1, 0], [-1, 0, 0]]))
            .moved(0.04, 0, 2.45)
        )
        centre = (0.93, 0.93, 0.92) if index != 3 else (0.2, 0.3, 0.6)
        pieces[f"sign_{index}"] = [
            palette.paint(tube((0, 0, 0), (0, 0, 2.8), 0.035), (0.55, 0.56, 0.57)),
            palette.paint(board, colour),
            palette.paint(inner, centre),
        ]
    return {name: merge(parts) for name, parts in pieces.items()}


def plant_block(city: City, block: Block) -> list[Standing]:
    """Trees inside a block: gardens, parks, the edges of car parks."""
    rng = np.random.default_rng([block.seed, 7])
    count = {"park": 34, "houses": 12, "lot": 5, "downtown": 0, "site": 2, "industry": 3}[block.kind]
    inset = block.sidewalk + (2.0 if block.kind in ("park", "lot") else 1.6)
    low, high = np.array(block.low) + inset, np.array(block.high) - inset
    out = []
    for _ in range(count):
        uv = rng.uniform(low, high)
        if block.kind in ("houses", "lot", "industry"):  # near the edge
            side = int(rng.integers(4))
            uv[side // 2] = (low if side % 2 else high)[side // 2]
        xy = city.warp(uv)
        out.append(
            Standing(
                f"tree_{int(rng.integers(TREE_SHAPES))}",
                float(xy[0]),
                float(xy[1]),
                float(rng.uniform(0, 6.3)),
                float(rng.uniform(0.7, 1.25)),
            )
        )
    if block.kind == "park":
        for _ in range(6):
            xy = city.warp(rng.uniform(low, high))
            out.append(Standing("bench", float(xy[0]), float(xy[1]), float(rng.uniform(0, 6.3))))
    return out


def line_street(city: City, rng: np.random.Generator, leg: Leg) -> list[Standing]:
    """What stands along the kerb of one street side."""
    street = city.street(leg.along_v, leg.start[0] if leg.along_v else leg.start[1])
    start, end = lane_line(city, leg, lateral=street.half_width + 0.55)
    length = float(np.linalg.norm(end - start))
    way = (end - start) / length
    heading = np.arctan2(way[1], way[0])
    avenue = rng.random() < 0.55
    shape = int(rng.integers(TREE_SHAPES))
    out: list[Standing] = []

    def stand(name: str, along: float, turn: float, lateral: float = 0.0, scale: float = 1.0) -> None:
        uv = start + way * along + np.array([way[1], -way[0]]) * lateral
        xy = city.warp(uv)
        out.append(
            Standing(name, float(xy[0]), float(xy[1]), float(city.warp.heading(uv, heading)) + turn, scale)
        )

    for along in np.arange(rng.uniform(7, 12), length - 6, rng.uniform(20, 27)):
        stand("lamp", float(along), np.pi / 2)
    if avenue:
        for along in np.arange(rng.uniform(9, 14), length - 8, rng.uniform(8, 13)):
            if rng.random() < 0.85:
                stand(
                    f"tree_{shape if rng.random() < 0.8 else int(rng.integers(TREE_SHAPES))}",
                    float(along),
                    rng.uniform(0, 6.3),
                    0.25,
                    rng.uniform(0.65, 1.05),
                )
    for _ in range(int(rng.integers(2, 6))):
        stand(str(rng.choice(["sign_0", "sign_1", "sign_2", "sign_3"])), rng.uniform(5, length - 5), np.pi)
    for _ in range(int(rng.integers(1, 4))):
        stand(
            str(rng.choice(["bin", "hydrant", "cabinet", "bench"])),
            rng.uniform(6, length - 6),
            np.pi / 2,
            rng.uniform(0.2, 0.5),
        )
    if rng.random() < 0.3:
        first = rng.uniform(8, max(length - 20, 9))
        for k in range(6):
            stand("bollard", first + 1.5 * k, 0.0)
    if rng.random() < 0.2:
        stand("shelter", rng.uniform(14, max(length - 14, 15)), np.pi / 2, 1.3)
    return out


def signals(city: City, legs: list[Leg]) -> tuple[list[Standing], list[SignalHead]]:
    """Posts and lamps for everyone who arrives at a crossing."""
    posts, heads = [], []
    for leg in legs:
        if leg.lane > 0:
            continue
        street = city.street(leg.along_v, leg.start[0] if leg.along_v else leg.start[1])
        _, end = lane_line(city, leg, lateral=street.half_width + 0.6)
        way = np.array([0.0, leg.sign]) if leg.along_v else np.array([float(leg.sign), 0.0])
        big = street.lanes > 1
        uv = end + way * (2 * crossing_half(city, leg.end, leg.along_v) + 0.6 if big else -0.4)
        xy = city.warp(uv)
        yaw = float(city.warp.heading(uv, np.arctan2(-way[1], -way[0])))  # faces those who arrive
        # The arm of a gantry (local -y of something that looks back) reaches over the street, to the left of those who arrive.
        mesh, places = ("gantry", ((4.2, 5.6), (0.22, 3.2))) if big else ("signal", ((0.0, 3.2),))
        posts.append(Standing(mesh, float(xy[0]), float(xy[1]), yaw))
        rotation = rotation_z(yaw)
        for y, z in places:
            side = -y if big else y
            lamps = []
            for offset in (0.29, 0.0, -0.29):
                local = rotation @ np.array([0.19, side, z + offset])
                lamps.append(
                    (float(xy[0] + local[0]), float(xy[1] + local[1]), float(local[2] + KERB_HEIGHT))
                )
            heads.append(SignalHead(leg.end, leg.along_v, tuple(lamps)))
    return posts, heads
