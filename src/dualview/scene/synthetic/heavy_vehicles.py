"""Trucks and tractor units."""

from __future__ import annotations

import numpy as np

from dualview.scene.synthetic.cars import BLACK, CHROME, INDICATOR, LAMP, TAIL, wheel
from dualview.scene.synthetic.meshes import Mesh, box, cylinder, extrude, merge, quad, rotation_y
from dualview.scene.synthetic.object_model import Catalogue, ObjectModel, Part, details, model_from_parts
from dualview.scene.synthetic.palette import Palette, shade, wheel_picture

TRUCK_PAINTS = (
    (0.92, 0.92, 0.92),
    (0.88, 0.88, 0.86),
    (0.70, 0.10, 0.10),
    (0.12, 0.25, 0.55),
    (0.85, 0.65, 0.10),
    (0.15, 0.40, 0.25),
    (0.30, 0.32, 0.35),
    (0.80, 0.40, 0.10),
)
CARGO_COLOURS = (
    (0.90, 0.90, 0.90),
    (0.86, 0.87, 0.88),
    (0.20, 0.35, 0.62),
    (0.65, 0.15, 0.15),
    (0.80, 0.60, 0.15),
    (0.22, 0.45, 0.32),
    (0.48, 0.50, 0.53),
    (0.35, 0.22, 0.15),
)


def axle(palette: Palette, x: float, half: float, radius: float, twin: bool = False) -> list[Mesh]:
    """Two wheels of a heavy vehicle; twin tyres are wider."""
    meshes: list[Mesh] = []
    for side in (-1.0, 1.0):
        meshes += wheel(
            palette,
            radius,
            0.55 if twin else 0.30,
            side * half,
            x,
            "truck_wheel",
            wheel_picture((150, 150, 152), 10),
        )
    return meshes


def _cab(
    palette: Palette, x_rear: float, length: float, width: float, low: float, top: float
) -> tuple[Mesh, Mesh, list[Mesh], list[Mesh]]:
    """A cab-over cabin: paint, glass, details, mirrors."""
    front, half = x_rear + length, width / 2
    height = top - low
    side = np.array(
        [
            [x_rear, low],
            [front, low],
            [front + 0.02, low + 0.45 * height],
            [front - 0.10 - 0.06 * height, top],
            [x_rear, top],
        ]
    )
    paint = extrude(side, width * 0.98)
    waist = low + 0.47 * height
    glass = []
    screen = np.array(
        [
            [front + 0.03, -half * 0.88, waist],
            [front + 0.03, half * 0.88, waist],
            [front - 0.055 - 0.05 * height, half * 0.86, top - 0.14],
            [front - 0.055 - 0.05 * height, -half * 0.86, top - 0.14],
        ]
    )
    glass.append(quad(screen))
    for sign in (-1.0, 1.0):
        y = sign * (half * 0.98 + 0.012)
        window = np.array(
            [
                [front - 0.95, y, waist + 0.02],
                [front - 0.18, y, waist - 0.05],
                [front - 0.25, y, top - 0.22],
                [front - 0.95, y, top - 0.22],
            ]
        )
        glass.append(
            quad(
                window if sign < 0 else window[::-1],
                np.array([[0.3, 1], [0.7, 1], [0.7, 0], [0.3, 0.0]])[:: int(-sign)],
            )
        )
    meshes = [
        palette.paint(box((0.10, width * 0.96, 0.34), (front + 0.01, 0, low + 0.06)), (0.20, 0.20, 0.21))
    ]
    meshes.append(
        palette.paint(
            box((0.04, width * 0.62, 0.38 * height * 0.8), (front + 0.02, 0, low + 0.28 * height)),
            (0.12, 0.12, 0.13),
        )
    )
    meshes.append(
        palette.paint(box((0.03, width * 0.3, 0.06), (front + 0.04, 0, low + 0.40 * height)), CHROME)
    )
    mirrors = []
    for sign in (-1.0, 1.0):
        meshes.append(
            palette.paint(box((0.06, 0.36, 0.16), (front + 0.05, sign * half * 0.74, low + 0.14)), LAMP)
        )
        meshes.append(
            palette.paint(box((0.05, 0.10, 0.12), (front + 0.045, sign * half * 0.93, low + 0.14)), INDICATOR)
        )
        meshes.append(
            palette.paint(box((0.5, 0.06, 0.3), (front - 0.55, sign * (half * 0.97), low - 0.08)), BLACK)
        )
        mirrors.append(
            palette.paint(box((0.10, 0.20, 0.42), (front - 0.10, sign * (half + 0.14), waist + 0.30)), BLACK)
        )
    return paint, merge(glass), meshes, mirrors


def rear_lights(palette: Palette, x: float, half: float, z: float) -> list[Mesh]:
    lights = [
        palette.paint(box((0.05, 0.40, 0.13), (x, sign * (half - 0.3), z)), TAIL) for sign in (-1.0, 1.0)
    ]
    return [*lights, palette.paint(box((0.02, 0.5, 0.12), (x - 0.02, 0, z)), (0.9, 0.9, 0.86))]


def build_truck(
    palette: Palette,
    rng: np.random.Generator,
    name: str,
    body: str,
    length: float,
    width: float,
    height: float,
) -> ObjectModel:
    """A rigid truck: `body` is box, flatbed, tipper, tank or tractor (no body)."""
    half, end, frame = width / 2, length / 2, 0.95 if length > 6.5 else 0.75
    cab_length = 1.9 if length > 6.5 else 1.7
    cab_top = min(height, 2.9 if length > 6.5 else 2.35)
    paint, glass, meshes, mirrors = _cab(palette, end - cab_length, cab_length - 0.08, width, 0.45, cab_top)
    radius = 0.50 if length > 6.5 else 0.40
    front_axle, rear = end - cab_length * 0.62, -end + (1.1 if body == "tractor" else 0.24 * length)
    meshes.append(
        palette.paint(box((length - 0.5, width * 0.42, 0.28), (-0.1, 0, frame - 0.22)), (0.14, 0.14, 0.15))
    )
    meshes += axle(palette, front_axle, half - 0.02, radius) + axle(
        palette, rear, half - 0.02, radius, twin=True
    )
    if body == "tractor" or length > 8.5:
        meshes += axle(palette, rear + 1.3, half - 0.02, radius, twin=True)
    for sign in (-1.0, 1.0):
        meshes.append(
            palette.paint(
                box((length * 0.25, 0.35, 0.42), (0.02 * length, sign * (half - 0.3), 0.62)),
                (0.30, 0.31, 0.33),
            )
        )
    meshes += rear_lights(palette, -end + 0.03, half, frame - 0.14)
    start, stop = -end + 0.05, end - cab_length - 0.18
    middle, span = (start + stop) / 2, stop - start
    colour = CARGO_COLOURS[rng.integers(len(CARGO_COLOURS))]
    cargo: list[Mesh] = []
    if body == "box":
        cargo.append(
            palette.paint(box((span, width, height - frame), (middle, 0, (height + frame) / 2)), colour)
        )
        accent = CARGO_COLOURS[rng.integers(len(CARGO_COLOURS))]
        for sign in (-1.0, 1.0):
            cargo.append(
                palette.paint(
                    box((span * 0.62, 0.012, 0.42), (middle, sign * half, (height + frame) / 2 + 0.15)),
                    accent,
                )
            )
            cargo.append(
                palette.paint(
                    box((span, 0.02, 0.10), (middle, sign * half, frame + 0.06)), (0.35, 0.35, 0.36)
                )
            )
        cargo.append(
            palette.paint(
                box((0.02, 0.03, height - frame - 0.2), (start - 0.01, 0, (height + frame) / 2)),
                (0.3, 0.3, 0.3),
            )
        )
    elif body == "flatbed":
        cargo.append(palette.paint(box((span, width, 0.16), (middle, 0, frame + 0.02)), (0.42, 0.30, 0.20)))
        cargo.append(palette.paint(box((0.10, width, 0.9), (stop - 0.05, 0, frame + 0.45)), (0.4, 0.4, 0.42)))
        for _ in range(int(rng.integers(2, 5))):
            size = (
                rng.uniform(0.8, span * 0.45),
                rng.uniform(0.8, width * 0.85),
                rng.uniform(0.4, max(height - frame - 0.2, 0.6)),
            )
            at = rng.uniform(start + size[0] / 2, stop - size[0] / 2 - 0.1)
            cargo.append(
                palette.paint(
                    box(size, (at, 0, frame + 0.1 + size[2] / 2)), tuple(rng.uniform(0.25, 0.75, 3))
                )
            )
    elif body == "tipper":
        outline = np.array(
            [
                [start - 0.05, frame + 0.1],
                [stop, frame + 0.1],
                [stop + 0.1, height],
                [start - 0.35, height - 0.15],
            ]
        )
        cargo.append(palette.paint(extrude(outline, width), colour))
        for x in np.linspace(start + 0.4, stop - 0.4, 5):
            for sign in (-1.0, 1.0):
                cargo.append(
                    palette.paint(
                        box(
                            (0.10, 0.06, height - frame - 0.35),
                            (x, sign * (half + 0.0), (height + frame) / 2),
                        ),
                        shade(colour, 0.8),
                    )
                )
        cargo.append(
            palette.paint(
                box((span * 0.9, width * 0.86, 0.1), (middle, 0, height - 0.06)), (0.36, 0.29, 0.22)
            )
        )
    elif body == "tank":
        tank = cylinder(min(half, (height - frame) / 2), span, 18).transformed(rotation_y(np.pi / 2))
        cargo.append(
            palette.paint(tank.moved(start, 0, frame + min(half, (height - frame) / 2)), (0.78, 0.79, 0.80))
        )
    parts = [
        Part(paint.with_texcoord((0.5, 0.015)), "paint:sedan", tint=True),
        Part(glass, "glass"),
        details(meshes + cargo),
        Part(merge(mirrors), "palette", counts=False),
    ]
    return model_from_parts(
        name,
        "truck",
        parts,
        kind="tractor" if body == "tractor" else "truck",
        colours=TRUCK_PAINTS,
        wheelbase=front_axle - rear,
        rear_axle=rear,
        top_speed=20.0,
    )


def add_heavy_vehicles(catalogue: Catalogue) -> None:
    """Trucks of several bodies and the tractor units of semi-trailers."""
    palette, rng, factor = catalogue.palette, catalogue.rng, catalogue.size_factor
    for index in range(3):
        for body, length, width, height in (
            ("box", 6.2, 2.25, 2.9),
            ("box", 8.4, 2.5, 3.6),
            ("flatbed", 7.2, 2.4, 2.6),
            ("tipper", 7.6, 2.5, 3.0),
        ):
            stretch = factor * rng.uniform(0.94, 1.06, 3)
            size = (length * stretch[0], width * min(stretch[1], 1.03), height * stretch[2])
            catalogue.add(build_truck(palette, rng, f"truck_{body}_{length}_{index}", body, *size))
    catalogue.add(build_truck(palette, rng, "truck_tank", "tank", 8.2 * factor, 2.5, 3.2 * factor))
    for index in range(2):
        catalogue.add(
            build_truck(palette, rng, f"tractor_{index}", "tractor", 6.2, 2.5, rng.uniform(2.9, 3.0))
        )
