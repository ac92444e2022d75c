"""What stands around road works: construction vehicles, traffic cones, barriers."""

from __future__ import annotations

import cv2
import numpy as np

from dualview.scene.synthetic.heavy_vehicles import axle
from dualview.scene.synthetic.meshes import (
    Mesh,
    box,
    cylinder,
    extrude,
    merge,
    quad,
    revolve,
    rotation_x,
    rotation_y,
    rotation_z,
    tube,
)
from dualview.scene.synthetic.object_model import Catalogue, ObjectModel, Part, details, model_from_parts
from dualview.scene.synthetic.palette import Palette

MACHINE_PAINTS = (
    (0.90, 0.66, 0.08),
    (0.93, 0.72, 0.12),
    (0.88, 0.45, 0.08),
    (0.82, 0.80, 0.74),
    (0.35, 0.55, 0.25),
    (0.75, 0.12, 0.10),
)
ORANGE, WHITE, STEEL, TRACK = (0.95, 0.36, 0.06), (0.93, 0.93, 0.92), (0.52, 0.53, 0.55), (0.13, 0.12, 0.12)


def _stripes(first: tuple[int, int, int], second: tuple[int, int, int], slant: bool) -> np.ndarray:
    """A drawn striped board, uint8 [160, 160, 3]."""
    image = np.full((160, 160, 3), first, np.uint8)
    for start in range(-160, 320, 54):
        shift = 60 if slant else 0
        corners = np.array([[start, 0], [start + 27, 0], [start + 27 + shift, 160], [start + shift, 160]])
        cv2.fillPoly(image, [corners], second, cv2.LINE_AA)
    return image


def _machine_cab(x: float, z: float, size: tuple[float, float, float]) -> tuple[Mesh, Mesh]:
    """A glazed operator's cab: glass and the painted roof with posts."""
    length, width, height = size
    glass = box((length, width, height), (x, 0, z + height / 2))
    posts = [box((length + 0.08, width + 0.08, 0.1), (x, 0, z + height))]
    for dx in (-1, 1):
        for dy in (-1, 1):
            posts.append(box((0.09, 0.09, height), (x + dx * length / 2, dy * width / 2, z + height / 2)))
    return glass, merge(posts)


def build_excavator(palette: Palette, rng: np.random.Generator, name: str, factor: float) -> ObjectModel:
    """Tracked excavator with its boom folded at a random angle."""
    tracks = []
    for sign in (-1.0, 1.0):
        outline = np.array(
            [
                [-1.5, 0.25],
                [-1.2, 0.0],
                [1.2, 0.0],
                [1.5, 0.25],
                [1.5, 0.65],
                [1.2, 0.85],
                [-1.2, 0.85],
                [-1.5, 0.65],
            ]
        )
        tracks.append(palette.paint(extrude(outline, 0.55).moved(y=sign * 1.0), TRACK))
        tracks += [
            palette.paint(
                cylinder(0.2, 0.6, 10).transformed(rotation_x(np.pi / 2)).moved(x, sign * 1.0 + 0.3, 0.32),
                STEEL,
            )
            for x in (-0.9, -0.3, 0.3, 0.9)
        ]
    swing = rotation_z(rng.uniform(-0.5, 0.5))
    house = [box((2.6, 2.3, 0.95), (-0.4, 0.0, 1.55)), box((0.7, 2.3, 0.5), (-1.5, 0.0, 2.1))]
    glass, posts = _machine_cab(0.35, 1.3, (1.25, 0.95, 1.5))
    glass, posts = glass.moved(y=0.6), posts.moved(y=0.6)
    lift = rng.uniform(0.55, 0.95)
    elbow = np.array([0.9 + 2.6 * np.cos(lift), -0.25, 1.7 + 2.6 * np.sin(lift)])
    wrist = elbow + np.array([np.cos(-1.15), 0, np.sin(-1.15)]) * 2.1
    wrist[2] = max(wrist[2], 0.9)
    boom = [tube((0.9, -0.25, 1.7), elbow, 0.27, 0.2, 6), tube(elbow, wrist, 0.2, 0.14, 6)]
    bucket = extrude(
        np.array([[-0.5, -0.6], [0.15, -0.7], [0.5, -0.2], [0.3, 0.2], [-0.1, 0.15]]), 0.95
    ).transformed(translation=wrist + [0, 0, -0.1])
    paint = merge([m.transformed(swing) for m in [*house, posts, *boom]])
    dark = [
        palette.paint(bucket.transformed(swing), (0.25, 0.24, 0.23)),
        palette.paint(cylinder(0.7, 0.3).moved(z=0.85), STEEL),
    ]
    parts = [
        Part(paint.with_texcoord((0.5, 0.015)), "paint:sedan", tint=True),
        Part(glass.transformed(swing), "glass"),
        details(tracks + dark),
    ]
    return _machine(name, parts, factor)


def build_loader(palette: Palette, rng: np.random.Generator, name: str, factor: float) -> ObjectModel:
    """Wheel loader."""
    paint = [
        box((2.4, 1.7, 0.95), (-1.5, 0, 1.45)),
        box((1.3, 1.2, 0.7), (0.9, 0, 1.2)),
        box((0.5, 1.75, 0.35), (-2.65, 0, 1.05)),
    ]
    glass, posts = _machine_cab(-0.15, 1.45, (1.2, 1.3, 1.65))
    reach = rng.uniform(0.0, 0.5)
    hinge = np.array([1.2, 0, 1.6])
    tip = np.array([2.8, 0, 0.75 + reach])
    arms = [tube(hinge + [0, s * 0.5, 0], tip + [0, s * 0.5, 0], 0.13, 0.13, 6) for s in (-1, 1)]
    bucket = extrude(
        np.array([[-0.3, -0.5], [0.85, -0.55], [0.95, -0.42], [0.1, 0.5], [-0.3, 0.45]]), 2.7
    ).transformed(translation=tip)
    wheels = axle(palette, -1.5, 1.22, 0.78, twin=True) + axle(palette, 1.35, 1.22, 0.78, twin=True)
    parts = [Part(merge([*paint, posts, *arms]).with_texcoord((0.5, 0.015)), "paint:sedan", tint=True), Part(glass, "glass"),
             details([*wheels, palette.paint(bucket, (0.30, 0.29, 0.28))])]  # fmt: skip
    return _machine(name, parts, factor)


def build_roller(palette: Palette, name: str, factor: float) -> ObjectModel:
    """Road roller with a drum in front."""
    drum = cylinder(0.72, 2.0, 20).transformed(rotation_x(np.pi / 2)).moved(1.5, 1.0, 0.72)
    paint = [
        box((2.0, 1.5, 0.8), (-1.0, 0, 1.2)),
        box((0.25, 2.2, 0.25), (0.62, 0, 0.9)),
        box((1.1, 0.15, 0.25), (1.1, 1.08, 0.85)),
        box((1.1, 0.15, 0.25), (1.1, -1.08, 0.85)),
    ]
    glass, posts = _machine_cab(-0.3, 1.5, (1.2, 1.3, 1.4))
    parts = [Part(merge([*paint, posts]).with_texcoord((0.5, 0.015)), "paint:sedan", tint=True), Part(glass, "glass"),
             details([palette.paint(drum, STEEL), *axle(palette, -1.3, 0.98, 0.68, twin=True)])]  # fmt: skip
    return _machine(name, parts, factor)


def build_mixer(palette: Palette, rng: np.random.Generator, name: str, factor: float) -> ObjectModel:
    """Concrete mixer: a truck chassis with its drum."""
    drum = (
        revolve([(0, 0), (0.7, 0.0), (1.15, 1.3), (1.15, 2.3), (0.55, 4.0), (0, 4.0)], 16)
        .transformed(rotation_y(-np.pi / 2 + 0.22))
        .moved(1.4, 0, 1.95)
    )
    cab = [box((1.8, 2.4, 2.0), (3.3, 0, 1.75))]
    windows = [
        quad(np.array([[4.22, -1.05, 1.75], [4.22, 1.05, 1.75], [4.21, 1.05, 2.6], [4.21, -1.05, 2.6]]))
    ]
    for s in (-1.0, 1.0):
        pane = np.array(
            [[3.2, s * 1.21, 1.75], [4.0, s * 1.21, 1.75], [4.0, s * 1.21, 2.55], [3.2, s * 1.21, 2.55]]
        )
        windows.append(quad(pane if s < 0 else pane[::-1]))
    dark = [
        palette.paint(box((8.2, 1.0, 0.3), (0, 0, 0.85)), (0.15, 0.15, 0.15)),
        palette.paint(box((1.0, 0.8, 1.4), (-3.4, 0, 2.0)), STEEL),
    ]
    stripe = tuple(rng.uniform(0.2, 0.9, 3))
    dark.append(palette.paint(drum, (0.85, 0.84, 0.80) if rng.random() < 0.5 else stripe))
    wheels = (
        axle(palette, 3.1, 1.22, 0.5)
        + axle(palette, -1.4, 1.22, 0.5, True)
        + axle(palette, -2.7, 1.22, 0.5, True)
    )
    parts = [
        Part(merge(cab).with_texcoord((0.5, 0.015)), "paint:sedan", tint=True),
        Part(merge(windows), "glass"),
        details(dark + wheels),
    ]
    return _machine(name, parts, factor)


def _machine(name: str, parts: list[Part], factor: float) -> ObjectModel:
    parts = [
        Part(Mesh(p.mesh.vertices * factor, p.mesh.normals, p.mesh.texcoords), p.material, p.tint, p.counts)
        for p in parts
    ]
    return model_from_parts(
        name, "construction_vehicle", parts, kind="machine", colours=MACHINE_PAINTS, wheelbase=3.0, rear_axle=-1.5, top_speed=5.0,
    )  # fmt: skip


def build_cone(palette: Palette, name: str, height: float, tall: bool) -> ObjectModel:
    """A traffic cone, or a tall delineator."""
    base = 0.20 if tall else 0.26 * height / 0.7
    radius = [0.09, 0.055] if tall else [0.155 * height / 0.7, 0.025]
    edges = [0.05, 0.38 * height, 0.58 * height, 0.72 * height, 0.86 * height, height]
    at = [radius[0] + (radius[1] - radius[0]) * (z - 0.05) / (height - 0.05) for z in edges]
    rings = [(0, edges[0])] + list(zip(at, edges, strict=True))
    meshes = [palette.paint(box((2 * base, 2 * base, 0.05), (0, 0, 0.025)), (0.10, 0.10, 0.10))]
    for index in range(1, len(rings) - 1):
        low, high = rings[index], rings[index + 1]
        colour = WHITE if index in (2, 4) else ORANGE
        meshes.append(palette.paint(revolve([low, high], 12), colour))
    meshes.append(palette.paint(revolve([(at[-1], height - 1e-3), (0, height)], 12), ORANGE))
    return model_from_parts(name, "traffic_cone", [details(meshes)], kind="cone", weight=0.4 if tall else 1.0)


def build_barrier(palette: Palette, name: str, style: str) -> ObjectModel:
    """A barrier: its width lies along y (it is passed frontally), so length is the thin side, as nuScenes labels them."""
    meshes: list[Mesh] = []
    if style in ("jersey", "plastic_red", "plastic_white"):
        outline = np.array(
            [
                [-0.30, 0],
                [0.30, 0],
                [0.28, 0.12],
                [0.12, 0.38],
                [0.09, 0.95],
                [-0.09, 0.95],
                [-0.12, 0.38],
                [-0.28, 0.12],
            ]
        )
        colour = {
            "jersey": (0.62, 0.61, 0.58),
            "plastic_red": (0.85, 0.20, 0.10),
            "plastic_white": (0.90, 0.90, 0.88),
        }[style]
        meshes.append(palette.paint(extrude(outline, 2.0), colour))
        if style == "jersey":
            meshes += [
                palette.paint(box((0.20, 0.16, 0.10), (0, y, 0.6)), (0.95, 0.75, 0.10)) for y in (-0.7, 0.7)
            ]
    elif style == "board":
        for z in (0.85, 0.50):
            meshes.append(
                palette.picture(
                    box((0.05, 2.1, 0.26), (0, 0, z)),
                    "stripes_red",
                    _stripes((235, 232, 228), (205, 40, 30), True),
                )
            )
        for y in (-0.85, 0.85):
            meshes += [
                palette.paint(tube((-0.28, y, 0), (0, y, 1.0), 0.03), STEEL),
                palette.paint(tube((0.28, y, 0), (0, y, 1.0), 0.03), STEEL),
            ]
    elif style == "board_orange":
        meshes.append(
            palette.picture(
                box((0.05, 1.7, 0.30), (0, 0, 0.82)),
                "stripes_orange",
                _stripes((238, 236, 230), (240, 110, 20), True),
            )
        )
        for y in (-0.7, 0.7):
            meshes += [
                palette.paint(tube((0, y, 0), (0, y, 0.9), 0.035), STEEL),
                palette.paint(box((0.6, 0.1, 0.06), (0, y, 0.03)), TRACK),
            ]
        meshes.append(
            palette.paint(
                cylinder(0.09, 0.08, 10).transformed(rotation_y(np.pi / 2)).moved(-0.04, 0.7, 1.05),
                (0.98, 0.70, 0.10),
            )
        )
    else:  # a crowd fence
        for y in (-1.1, 1.1):
            meshes += [
                palette.paint(tube((0, y, 0), (0, y, 1.08), 0.025, segments=5), STEEL),
                palette.paint(box((0.5, 0.05, 0.04), (0, y, 0.02)), STEEL),
            ]
        meshes += [
            palette.paint(tube((0, -1.1, z), (0, 1.1, z), 0.022, segments=5), STEEL) for z in (0.2, 1.06)
        ]
        meshes += [
            palette.paint(box((0.016, 0.016, 0.86), (0, y, 0.63)), STEEL)
            for y in np.linspace(-0.95, 0.95, 12)
        ]
    return model_from_parts(
        name, "barrier", [details(meshes)], kind="fence" if style == "fence" else "barrier"
    )


def add_road_works(catalogue: Catalogue) -> None:
    """Machines, cones and barriers."""
    palette, rng, factor = catalogue.palette, catalogue.rng, catalogue.size_factor
    for index in range(3):
        catalogue.add(build_excavator(palette, rng, f"excavator_{index}", factor * rng.uniform(0.8, 1.15)))
        catalogue.add(build_loader(palette, rng, f"loader_{index}", factor * rng.uniform(0.8, 1.1)))
    catalogue.add(build_roller(palette, "roller", factor))
    catalogue.add(build_mixer(palette, rng, "mixer_0", factor))
    catalogue.add(build_mixer(palette, rng, "mixer_1", factor))
    for index, height in enumerate((0.5, 0.7, 0.75, 0.95)):
        catalogue.add(build_cone(palette, f"cone_{index}", height * factor, tall=False))
    catalogue.add(build_cone(palette, "delineator", 1.05 * factor, tall=True))
    for style in ("jersey", "plastic_red", "plastic_white", "board", "board_orange", "fence"):
        catalogue.add(build_barrier(palette, f"barrier_{style}", style))
