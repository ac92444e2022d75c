"""Semi-trailers and small trailers."""

from __future__ import annotations

import numpy as np

from dualview.scene.synthetic.heavy_vehicles import CARGO_COLOURS, axle, rear_lights
from dualview.scene.synthetic.meshes import box, cylinder, rotation_y
from dualview.scene.synthetic.object_model import Catalogue, ObjectModel, details, model_from_parts
from dualview.scene.synthetic.palette import Palette, shade


def build_trailer(
    palette: Palette, rng: np.random.Generator, name: str, body: str, length: float, height: float
) -> ObjectModel:
    """A semi-trailer (box, container, flatbed, tank) or a small car trailer."""
    small = body == "small"
    width, floor = (1.7, 0.6) if small else (2.5, 1.15)
    half, end = width / 2, length / 2
    colour = CARGO_COLOURS[rng.integers(len(CARGO_COLOURS))]
    meshes = [palette.paint(box((length - 0.2, width * 0.5, 0.25), (0, 0, floor - 0.2)), (0.15, 0.15, 0.16))]
    rear = -end + (length * 0.42 if small else 2.2)
    for offset in (0.0,) if small else (-1.3, 0.0, 1.3):
        meshes += axle(palette, rear + offset, half, 0.32 if small else 0.5, twin=not small)
    meshes += rear_lights(palette, -end + 0.02, half, floor - 0.12)
    if body in ("box", "container"):
        meshes.append(
            palette.paint(box((length, width, height - floor), (0, 0, (height + floor) / 2)), colour)
        )
        ribs: np.ndarray | list[float] = np.arange(-end + 0.3, end - 0.2, 0.45) if body == "container" else []
        for x in ribs:
            for sign in (-1.0, 1.0):
                meshes.append(
                    palette.paint(
                        box((0.16, 0.05, height - floor - 0.25), (x, sign * half, (height + floor) / 2)),
                        shade(colour, 0.82),
                    )
                )
        if body == "box":
            accent = CARGO_COLOURS[rng.integers(len(CARGO_COLOURS))]
            for sign in (-1.0, 1.0):
                meshes.append(
                    palette.paint(
                        box(
                            (length * 0.5, 0.015, 0.9),
                            (0.1 * length, sign * half, (height + floor) / 2 + 0.2),
                        ),
                        accent,
                    )
                )
        meshes.append(
            palette.paint(
                box((0.02, 0.04, height - floor - 0.1), (-end, 0, (height + floor) / 2)), (0.25, 0.25, 0.25)
            )
        )
    elif body == "tank":
        radius = (height - floor) / 2
        meshes.append(
            palette.paint(
                cylinder(radius, length - 0.3, 18)
                .transformed(rotation_y(np.pi / 2))
                .moved(-end + 0.15, 0, floor + radius),
                (0.80, 0.81, 0.83),
            )
        )
    elif body == "flatbed":
        meshes.append(palette.paint(box((length, width, 0.18), (0, 0, floor + 0.02)), (0.45, 0.33, 0.22)))
        for x in np.linspace(-end + 1.5, end - 2.0, 3):
            size = (rng.uniform(1.2, 2.6), rng.uniform(1.2, 2.3), rng.uniform(0.6, height - floor - 0.1))
            meshes.append(
                palette.paint(box(size, (x, 0, floor + 0.1 + size[2] / 2)), tuple(rng.uniform(0.3, 0.7, 3)))
            )
    else:
        meshes.append(
            palette.paint(
                box((length * 0.78, width, height - floor), (-0.11 * length, 0, (height + floor) / 2)), colour
            )
        )
        meshes.append(
            palette.paint(
                box((length * 0.25, 0.08, 0.08), (end - length * 0.125, 0, floor - 0.1)), (0.2, 0.2, 0.2)
            )
        )
    if not small:
        for sign in (-1.0, 1.0):
            meshes.append(
                palette.paint(
                    box((0.12, 0.12, floor), (end * 0.45, sign * half * 0.7, floor / 2)), (0.3, 0.3, 0.3)
                )
            )
    return model_from_parts(
        name,
        "trailer",
        [details(meshes)],
        kind="small_trailer" if small else "trailer",
        wheelbase=end - 1.2 - rear,
        rear_axle=rear,
        top_speed=18.0,
    )


def add_trailers(catalogue: Catalogue) -> None:
    """Semi-trailers of four bodies, small trailers of three sizes."""
    palette, rng, factor = catalogue.palette, catalogue.rng, catalogue.size_factor
    for index, (body, length, height) in enumerate(
        (
            ("box", 12.6, 3.9),
            ("box", 11.0, 3.7),
            ("container", 12.2, 3.8),
            ("container", 12.2, 3.8),
            ("flatbed", 11.8, 3.0),
            ("tank", 10.8, 3.4),
            ("small", 3.4, 1.5),
            ("small", 4.0, 2.0),
            ("small", 2.8, 1.1),
        )
    ):
        catalogue.add(
            build_trailer(palette, rng, f"trailer_{body}_{index}", body, length * factor, height * factor)
        )
