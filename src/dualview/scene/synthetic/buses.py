"""City buses, coaches and minibuses."""

from __future__ import annotations

import itertools

import numpy as np

from dualview.scene.synthetic.cars import BLACK, LAMP, TAIL
from dualview.scene.synthetic.heavy_vehicles import CARGO_COLOURS, axle
from dualview.scene.synthetic.meshes import Mesh, box, disc, loft, merge, quad
from dualview.scene.synthetic.object_model import Catalogue, ObjectModel, Part, details, model_from_parts
from dualview.scene.synthetic.palette import Palette

BUS_PAINTS = (
    (0.85, 0.15, 0.12),
    (0.15, 0.45, 0.25),
    (0.93, 0.93, 0.93),
    (0.10, 0.35, 0.65),
    (0.90, 0.65, 0.12),
    (0.55, 0.20, 0.45),
    (0.25, 0.55, 0.60),
)


def rounded_box(size: tuple[float, float, float], center: tuple[float, float, float], radius: float) -> Mesh:
    """A box whose edges along x are rounded; its ends are slightly drawn in."""
    length, width, height = size
    corner = np.linspace(0, np.pi / 2, 4)
    outline = []
    for start, (y, z) in enumerate([(1, 1), (-1, 1), (-1, -1), (1, -1)]):
        angle = corner + start * np.pi / 2
        outline += [
            (y * (width / 2 - radius) + radius * np.cos(a), z * (height / 2 - radius) + radius * np.sin(a))
            for a in angle
        ]
    ring = np.array(outline)
    rings = []
    for x, shrink in (
        (-0.5, 0.5),
        (-0.5 + 0.4 * radius / length, 0.0),
        (0.5 - 0.4 * radius / length, 0.0),
        (0.5, 0.5),
    ):
        factor = 1 - shrink * radius / np.array([width, height])
        rings.append(np.concatenate([np.full((len(ring), 1), x * length), ring * factor], 1))
    return loft(np.array(rings), crease=40.0).moved(*center)


def build_bus(
    palette: Palette, rng: np.random.Generator, name: str, length: float, height: float, doors: int
) -> ObjectModel:
    """A city bus, coach or minibus."""
    width = 2.5 if length > 8 else 2.15
    half, end, low = width / 2, length / 2, 0.32
    body = rounded_box((length, width, height - low), (0, 0, (height + low) / 2), 0.22)
    waist, top = 0.42 * height, 0.86 * height
    glass = []
    edges = np.linspace(-end + 0.35, end - 0.5, int(length / 1.45) + 1)
    for sign in (-1.0, 1.0):
        y = sign * (half + 0.008)
        for index, (a, b) in enumerate(itertools.pairwise(edges)):
            door = (
                sign < 0
                and doors > 0
                and (index == len(edges) - 2 or (doors > 1 and index == len(edges) // 2 - 1))
            )
            z = low + 0.12 if door else waist
            pane = np.array([[a + 0.05, y, z], [b - 0.05, y, z], [b - 0.05, y, top], [a + 0.05, y, top]])
            glass.append(
                quad(
                    pane if sign < 0 else pane[::-1],
                    np.array([[0, 1], [1, 1], [1, 0], [0, 0.0]])[:: int(-sign)],
                )
            )
    for sign, z in ((1.0, 0.36 * height), (-1.0, 0.52 * height)):
        x = sign * (end + 0.008)
        pane = np.array(
            [[x, -half * 0.86, z], [x, half * 0.86, z], [x, half * 0.86, top], [x, -half * 0.86, top]]
        )
        glass.append(quad(pane if sign > 0 else pane[::-1]))
    radius = 0.48 if length > 8 else 0.38
    front_axle, rear = end - 0.21 * length, -end + 0.27 * length
    meshes: list[Mesh] = []
    for x in (front_axle, rear):
        for sign in (-1.0, 1.0):
            meshes.append(
                palette.paint(
                    disc(radius * 1.15, (x, sign * (half + 0.008), radius), sign), (0.05, 0.05, 0.05)
                )
            )
        meshes += axle(palette, x, half + 0.014, radius)
    stripe = CARGO_COLOURS[rng.integers(len(CARGO_COLOURS))]
    for sign in (-1.0, 1.0):
        meshes.append(
            palette.paint(box((length * 0.94, 0.012, 0.16), (0, sign * half, waist - 0.20)), stripe)
        )
        meshes.append(
            palette.paint(box((length * 0.94, 0.012, 0.14), (0, sign * half, low + 0.09)), (0.2, 0.2, 0.2))
        )
        meshes.append(palette.paint(box((0.04, 0.34, 0.16), (end + 0.003, sign * half * 0.72, 0.62)), LAMP))
        meshes.append(palette.paint(box((0.04, 0.20, 0.42), (-end - 0.003, sign * half * 0.82, 0.95)), TAIL))
    meshes.append(
        palette.paint(box((0.03, width * 0.6, 0.22), (end + 0.003, 0, 0.925 * height)), (0.08, 0.08, 0.08))
    )
    meshes.append(
        palette.paint(box((0.035, width * 0.35, 0.12), (end + 0.006, 0, 0.925 * height)), (0.98, 0.72, 0.15))
    )
    meshes.append(
        palette.paint(
            box((length * 0.35, width * 0.6, 0.16), (-0.1 * length, 0, height + 0.02)), (0.80, 0.80, 0.80)
        )
    )
    mirrors = [
        palette.paint(box((0.14, 0.14, 0.36), (end + 0.18, sign * (half + 0.10), 0.68 * height)), BLACK)
        for sign in (-1.0, 1.0)
    ]
    parts = [
        Part(body.with_texcoord((0.5, 0.015)), "paint:sedan", tint=True),
        Part(merge(glass), "glass"),
        details(meshes),
        Part(merge(mirrors), "palette", counts=False),
    ]
    return model_from_parts(
        name,
        "bus",
        parts,
        kind="bus",
        colours=BUS_PAINTS,
        wheelbase=front_axle - rear,
        rear_axle=rear,
        top_speed=18.0,
    )


def add_buses(catalogue: Catalogue) -> None:
    """Buses of several lengths, one of them a double-decker."""
    palette, rng, factor = catalogue.palette, catalogue.rng, catalogue.size_factor
    for index, (length, height, doors) in enumerate(
        ((11.8, 3.0, 2), (11.2, 3.1, 2), (12.6, 3.5, 1), (8.6, 2.9, 1), (6.6, 2.6, 1), (10.6, 4.1, 2))
    ):
        catalogue.add(build_bus(palette, rng, f"bus_{index}", length * factor, height * factor, doors))
