"""Bicycles and motorcycles, ridden and parked. As in nuScenes, the box of a ridden one holds its rider."""

from __future__ import annotations

import numpy as np

from dualview.scene.synthetic.meshes import (
    Mesh,
    box,
    cylinder,
    ellipsoid,
    extrude,
    from_triangles,
    merge,
    rotation_x,
    tube,
)
from dualview.scene.synthetic.object_model import Catalogue, ObjectModel, Part, model_from_parts
from dualview.scene.synthetic.palette import Palette
from dualview.scene.synthetic.people import rider

FRAMES = (
    (0.10, 0.10, 0.11),
    (0.75, 0.12, 0.12),
    (0.12, 0.30, 0.60),
    (0.85, 0.85, 0.85),
    (0.15, 0.45, 0.30),
    (0.90, 0.60, 0.10),
    (0.55, 0.55, 0.58),
)
DARK, STEEL, SEAT = (0.07, 0.07, 0.07), (0.62, 0.63, 0.65), (0.12, 0.10, 0.09)


def _ring(palette: Palette, x: float, radius: float, width: float, spokes: int) -> list[Mesh]:
    """A spoked wheel in the xz plane."""
    angle = np.linspace(0, 2 * np.pi, 15)[:-1]
    meshes = []
    outer = np.stack([np.cos(angle) * radius, np.zeros(14), np.sin(angle) * radius], -1)
    inner = outer * (1 - 2.2 * width / radius)
    following = np.roll(np.arange(14), -1)
    for side in (-1.0, 1.0):
        offset = np.array([0, side * width / 2, 0])
        points = np.concatenate([outer + offset, inner + offset])
        faces = np.concatenate(
            [
                np.stack([np.arange(14), 14 + np.arange(14), 14 + following], -1),
                np.stack([np.arange(14), 14 + following, following], -1),
            ]
        )
        # Counter-clockwise in (x, z) seen from -y faces -y.
        meshes.append(from_triangles(points, faces[:, ::-1] if side < 0 else faces))
    tread = np.concatenate([outer - [0, width / 2, 0], outer + [0, width / 2, 0]])
    faces = np.concatenate(
        [
            np.stack([np.arange(14), following, 14 + following], -1),
            np.stack([np.arange(14), 14 + following, 14 + np.arange(14)], -1),
        ]
    )
    meshes.append(from_triangles(tread, faces))
    inside = np.concatenate([inner - [0, width / 2, 0], inner + [0, width / 2, 0]])
    meshes.append(from_triangles(inside, faces[:, ::-1]))
    wheel = [palette.paint(merge(meshes).moved(x, 0, radius), DARK)]
    for a in np.arange(spokes) * np.pi / spokes:
        direction = np.array([np.cos(a), 0, np.sin(a)]) * radius * 0.92
        hub = np.array([x, 0, radius])
        wheel.append(palette.paint(tube(hub - direction, hub + direction, 0.007, segments=3), STEEL))
    return wheel


def build_bicycle(
    palette: Palette, rng: np.random.Generator, name: str, ridden: bool, factor: float
) -> ObjectModel:
    """A bicycle with a diamond or low frame, sometimes with a basket or panniers."""
    frame = FRAMES[int(rng.integers(len(FRAMES)))]
    radius = rng.uniform(0.33, 0.36)
    rear, front = np.array([-0.52, 0, radius]), np.array([0.55, 0, radius])
    crank, seat, neck = np.array([-0.06, 0, 0.29]), np.array([-0.24, 0, 0.82]), np.array([0.36, 0, 0.78])
    low_frame = rng.random() < 0.35
    bars = [
        (rear, crank),
        (crank, seat),
        (crank, neck),
        (rear, seat - [0, 0, 0.12]),
        (neck + [0.0, 0, 0.06], front),
    ]
    bars.append((seat - [0, 0, 0.42], neck - [0, 0, 0.25]) if low_frame else (seat - [0, 0, 0.10], neck))
    meshes = [palette.paint(tube(a, b, 0.019, segments=5), frame) for a, b in bars]
    meshes += _ring(palette, rear[0], radius, 0.042, 4) + _ring(palette, front[0], radius, 0.042, 4)
    handle = neck + [-0.02, 0, 0.24]
    meshes.append(palette.paint(tube(neck, handle, 0.016, segments=5), STEEL))
    meshes.append(
        palette.paint(tube(handle - [0.03, 0.28, 0], handle + [-0.03, 0.28, 0], 0.016, segments=5), DARK)
    )
    meshes.append(palette.paint(ellipsoid((0.14, 0.075, 0.035), 8, 4).moved(*(seat + [0, 0, 0.08])), SEAT))
    meshes.append(
        palette.paint(
            cylinder(0.09, 0.02, 10).transformed(rotation_x(np.pi / 2)).moved(crank[0], -0.03, crank[2]),
            STEEL,
        )
    )
    meshes.append(palette.paint(box((0.06, 0.03, 0.05), (rear[0] - 0.05, 0, 0.75)), (0.75, 0.06, 0.06)))
    extra = rng.random()
    if extra < 0.25:
        meshes.append(palette.paint(box((0.28, 0.32, 0.24), (front[0] + 0.06, 0, 0.86)), (0.35, 0.27, 0.18)))
    elif extra < 0.45:
        meshes += [
            palette.paint(box((0.36, 0.14, 0.32), (rear[0], s * 0.13, 0.60)), tuple(rng.uniform(0.1, 0.6, 3)))
            for s in (-1, 1)
        ]
    elif extra < 0.55 and ridden:
        meshes.append(
            palette.paint(
                box((0.45, 0.46, 0.46), (rear[0] - 0.05, 0, 1.02)),
                ((0.1, 0.7, 0.65), (0.95, 0.5, 0.1), (0.85, 0.15, 0.3))[int(rng.integers(3))],
            )
        )
    if ridden:
        meshes += rider(
            palette,
            rng,
            (seat[0] - 0.02, 0.95),
            (handle[0] - 0.03, handle[2] + 0.03),
            (crank[0] + 0.05, 0.22),
            rng.uniform(0.25, 0.65),
            rng.random() < 0.6,
        )
    return _model(name, "bicycle", meshes, ridden, factor, 6.5)


def build_motorcycle(
    palette: Palette, rng: np.random.Generator, name: str, ridden: bool, factor: float, scooter: bool
) -> ObjectModel:
    """A motorcycle or a scooter, sometimes with a delivery box."""
    paint = FRAMES[int(rng.integers(len(FRAMES)))]
    radius, width = (0.24, 0.12) if scooter else (0.31, 0.14)
    rear, front = (-0.60, 0.62) if scooter else (-0.70, 0.72)
    meshes: list[Mesh] = []
    for x in (rear, front):
        tyre = cylinder(radius, width, 14).transformed(rotation_x(np.pi / 2)).moved(x, width / 2, radius)
        rim = (
            cylinder(radius * 0.62, width * 1.06, 10)
            .transformed(rotation_x(np.pi / 2))
            .moved(x, width * 0.53, radius)
        )
        meshes += [palette.paint(tyre, DARK), palette.paint(rim, STEEL)]
    bar_z = 1.02
    meshes += [
        palette.paint(
            tube((front, s * 0.09, radius), (front - 0.26, s * 0.09, bar_z - 0.04), 0.028, segments=6), STEEL
        )
        for s in (-1, 1)
    ]
    meshes.append(
        palette.paint(tube((front - 0.32, -0.36, bar_z), (front - 0.32, 0.36, bar_z), 0.02, segments=6), DARK)
    )
    meshes.append(
        palette.paint(ellipsoid((0.09, 0.11, 0.10)).moved(front - 0.16, 0, bar_z - 0.10), (0.93, 0.93, 0.86))
    )
    meshes.append(palette.paint(box((0.05, 0.14, 0.06), (rear - 0.20, 0, 0.72)), (0.72, 0.06, 0.06)))
    if scooter:
        meshes.append(palette.paint(ellipsoid((0.46, 0.20, 0.24)).moved(-0.42, 0, 0.54), paint))
        meshes.append(palette.paint(box((0.50, 0.34, 0.06), (0.10, 0, 0.28)), DARK))
        shield = np.array([[0.30, 0.25], [0.40, 0.28], [0.48, 0.95], [0.42, 0.95]])
        meshes.append(palette.paint(extrude(shield, 0.38), paint))
        seat_z, foot = 0.80, (0.10, 0.30)
    else:
        meshes.append(palette.paint(ellipsoid((0.30, 0.17, 0.17)).moved(0.08, 0, 0.84), paint))
        meshes.append(palette.paint(box((0.46, 0.30, 0.36), (0.02, 0, 0.48)), (0.22, 0.22, 0.23)))
        meshes.append(palette.paint(ellipsoid((0.30, 0.13, 0.10)).moved(-0.62, 0, 0.80), paint))
        meshes.append(palette.paint(tube((0.0, -0.17, 0.35), (-0.75, -0.20, 0.42), 0.05, segments=8), STEEL))
        meshes.append(palette.paint(ellipsoid((0.20, 0.16, 0.16)).moved(front - 0.18, 0, 0.86), paint))
        seat_z, foot = 0.84, (-0.05, 0.36)
    meshes.append(palette.paint(ellipsoid((0.36, 0.15, 0.075)).moved(-0.36, 0, seat_z - 0.03), SEAT))
    if rng.random() < 0.35:
        box_colour = ((0.85, 0.2, 0.15), (0.1, 0.5, 0.45), (0.15, 0.15, 0.16), (0.95, 0.55, 0.1))[
            int(rng.integers(4))
        ]
        meshes.append(palette.paint(box((0.42, 0.44, 0.40), (rear - 0.05, 0, 1.06)), box_colour))
    if ridden:
        meshes += rider(
            palette,
            rng,
            (-0.28, seat_z + 0.09),
            (front - 0.34, bar_z + 0.02),
            foot,
            rng.uniform(0.10, 0.45),
            True,
        )
    return _model(name, "motorcycle", meshes, ridden, factor, 16.0)


def _model(
    name: str, class_name: str, meshes: list[Mesh], ridden: bool, factor: float, top_speed: float
) -> ObjectModel:
    mesh = merge(meshes)
    part = Part(Mesh(mesh.vertices * factor, mesh.normals, mesh.texcoords))
    return model_from_parts(
        name, class_name, [part], kind=class_name if ridden else f"parked_{class_name}", wheelbase=1.1, rear_axle=-0.5, top_speed=top_speed,
    )  # fmt: skip


def add_two_wheelers(catalogue: Catalogue) -> None:
    """Bicycles and motorcycles, with and without riders."""
    palette, rng, factor = catalogue.palette, catalogue.rng, catalogue.size_factor
    for index in range(8):
        catalogue.add(build_bicycle(palette, rng, f"bicycle_ridden_{index}", True, factor))
        catalogue.add(
            build_motorcycle(palette, rng, f"motorcycle_ridden_{index}", True, factor, scooter=index % 2 == 0)
        )
    for index in range(5):
        catalogue.add(build_bicycle(palette, rng, f"bicycle_parked_{index}", False, factor))
        catalogue.add(
            build_motorcycle(
                palette, rng, f"motorcycle_parked_{index}", False, factor, scooter=index % 2 == 0
            )
        )
