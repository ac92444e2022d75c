"""Cars: sedans, hatchbacks, estates, SUVs, coupes, minivans, vans and pick-ups, from a handful of proportions."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from dualview.scene.synthetic.meshes import Mesh, box, disc, loft, merge, quad, revolve, rotation_x
from dualview.scene.synthetic.object_model import Catalogue, ObjectModel, Part, details, model_from_parts
from dualview.scene.synthetic.palette import Palette, wheel_picture

PAINTS = (
    (0.92, 0.92, 0.93), (0.90, 0.90, 0.88), (0.13, 0.13, 0.14), (0.08, 0.08, 0.09), (0.55, 0.57, 0.60), (0.70, 0.72, 0.74),
    (0.36, 0.38, 0.41), (0.25, 0.27, 0.30), (0.62, 0.08, 0.09), (0.45, 0.05, 0.08), (0.10, 0.20, 0.48), (0.16, 0.33, 0.62),
    (0.08, 0.14, 0.26), (0.13, 0.30, 0.22), (0.42, 0.44, 0.34), (0.75, 0.66, 0.50), (0.80, 0.45, 0.12), (0.85, 0.72, 0.15),
    (0.40, 0.26, 0.18), (0.34, 0.52, 0.62),
)  # fmt: skip
BLACK, RUBBER, CHROME = (0.07, 0.07, 0.08), (0.10, 0.10, 0.10), (0.72, 0.73, 0.75)
LAMP, TAIL, INDICATOR = (0.95, 0.95, 0.88), (0.70, 0.05, 0.06), (0.95, 0.55, 0.10)


@dataclass(frozen=True)
class CarShape:
    """Proportions of a car: lengths in m, x positions as fractions of the length from rear (-0.5) to front (0.5)."""

    name: str
    length: float
    width: float
    height: float
    belt: float  # height of the window sill
    hood: float  # height of the bonnet at its front
    deck: float  # height of the boot at the rear
    base: tuple[float, float]  # foot of the rear window and of the windscreen
    roof: tuple[float, float]  # rear and front end of the roof
    clearance: float = 0.24
    wheel_radius: float = 0.33
    axles: tuple[float, float] = (-0.30, 0.31)
    texture: str = "sedan"
    taper: float = 0.82  # width of the roof over the width of the body
    glass_from: float = -1.0  # windows only in front of this fraction (panel vans)
    bed: bool = False  # a pick-up's open bed
    weight: float = 1.0
    kind: str = "car"


SHAPES = (
    CarShape("sedan", 4.70, 1.84, 1.46, 0.93, 0.74, 0.98, (-0.40, 0.21), (-0.20, 0.06), weight=2.2),
    CarShape("sedan_long", 4.98, 1.90, 1.48, 0.95, 0.76, 1.00, (-0.42, 0.20), (-0.22, 0.04)),
    CarShape("notchback", 4.40, 1.76, 1.45, 0.92, 0.76, 1.02, (-0.38, 0.22), (-0.24, 0.08), weight=0.8),
    CarShape("hatchback", 4.10, 1.78, 1.50, 0.94, 0.80, 0.96, (-0.485, 0.25), (-0.38, 0.08), texture="hatch", weight=1.6),
    CarShape("city_car", 3.60, 1.66, 1.52, 0.95, 0.86, 0.98, (-0.49, 0.30), (-0.42, 0.12), texture="coupe", weight=0.7),
    CarShape("estate", 4.78, 1.84, 1.50, 0.95, 0.76, 0.98, (-0.49, 0.20), (-0.42, 0.05), texture="hatch", weight=0.9),
    CarShape("suv", 4.68, 1.92, 1.72, 1.08, 0.96, 1.10, (-0.485, 0.23), (-0.40, 0.08), 0.32, 0.38, texture="hatch", weight=1.8),
    CarShape("suv_large", 5.05, 2.00, 1.86, 1.16, 1.06, 1.18, (-0.49, 0.24), (-0.45, 0.10), 0.34, 0.40, texture="hatch", taper=0.86),
    CarShape("jeep", 4.20, 1.84, 1.84, 1.10, 1.04, 1.12, (-0.49, 0.17), (-0.47, 0.12), 0.38, 0.40, texture="coupe", taper=0.9, weight=0.5),
    CarShape("coupe", 4.48, 1.86, 1.34, 0.88, 0.68, 0.92, (-0.44, 0.20), (-0.18, 0.02), 0.2, 0.34, texture="coupe", weight=0.6),
    CarShape("minivan", 4.85, 1.95, 1.76, 1.05, 0.92, 1.05, (-0.49, 0.33), (-0.44, 0.12), texture="van", taper=0.84, weight=0.8),
    CarShape("panel_van", 5.40, 2.02, 2.40, 1.22, 1.05, 1.30, (-0.495, 0.38), (-0.49, 0.22), 0.30, 0.35, (-0.31, 0.34), "van", 0.88,
             0.12, weight=0.9, kind="van"),
    CarShape("delivery_van", 4.50, 1.84, 1.86, 1.12, 0.92, 1.15, (-0.495, 0.34), (-0.485, 0.16), 0.26, 0.32, (-0.30, 0.32), "van",
             0.88, 0.05, weight=0.7, kind="van"),
    CarShape("passenger_van", 5.20, 2.00, 2.12, 1.20, 1.02, 1.24, (-0.495, 0.37), (-0.485, 0.22), 0.30, 0.34, (-0.30, 0.34), "van",
             0.88, weight=0.6, kind="van"),
    CarShape("pickup", 5.40, 1.96, 1.84, 1.12, 1.06, 1.12, (-0.11, 0.22), (-0.07, 0.08), 0.38, 0.40, (-0.31, 0.33), "coupe", 0.86,
             bed=True, weight=1.0, kind="pickup"),
    CarShape("pickup_crew", 5.80, 2.02, 1.92, 1.16, 1.10, 1.16, (-0.18, 0.22), (-0.15, 0.08), 0.40, 0.42, (-0.31, 0.34), "sedan", 0.86,
             bed=True, weight=1.0, kind="pickup"),
)  # fmt: skip


def wheel(
    palette: Palette, radius: float, width: float, y: float, x: float, picture: str, image: np.ndarray
) -> list[Mesh]:
    """A wheel whose outer face is at `y` (its sign tells the side): tyre and a drawn disc."""
    sign = float(np.sign(y))
    tread = (
        revolve([(radius, 0), (radius, width)], 14)
        .transformed(rotation_x(np.pi / 2))
        .moved(x, y if sign > 0 else y + width, radius)
    )
    inside = disc(radius, (x, y - sign * width, radius), -sign, 10)
    return [
        palette.paint(merge([tread, inside]), RUBBER),
        palette.picture(disc(radius, (x, y, radius), sign), picture, image),
    ]


def _body(shape: CarShape) -> Mesh:
    """The painted lower body: a loft along x, bumpers drawn in, shoulders rounded."""
    s, half = shape, shape.width / 2
    stations = [  # x fraction, width factor, underside, top
        (-0.500, 0.80, s.clearance + 0.16, s.deck * 0.80),
        (-0.490, 0.90, s.clearance + 0.08, s.deck * 0.94),
        (-0.455, 0.97, s.clearance + 0.04, s.deck),
        (
            max(s.base[0], -0.44) + 0.02,
            1.0,
            s.clearance,
            (s.deck + s.belt) / 2 if s.base[0] > -0.47 else s.deck,
        ),
        (-0.05, 1.0, s.clearance - 0.02, s.belt),
        (s.base[1] - 0.03, 1.0, s.clearance - 0.02, s.belt),
        (s.base[1] + 0.5 * (0.44 - s.base[1]), 0.98, s.clearance, 0.5 * (s.belt + s.hood) + 0.04),
        (0.44, 0.94, s.clearance + 0.02, s.hood),
        (0.480, 0.88, s.clearance + 0.03, s.hood - 0.09),
        (0.500, 0.76, s.clearance + 0.06, s.hood - 0.20),
    ]
    rings = []
    for x, factor, low, top in stations:
        w, h = half * factor, top - low
        y = np.array([-0.90, -0.985, -1.0, -0.965, -0.88, 0.0, 0.88, 0.965, 1.0, 0.985, 0.90]) * w
        z = low + h * np.array([0.0, 0.10, 0.52, 0.86, 0.985, 1.02, 0.985, 0.86, 0.52, 0.10, 0.0])
        rings.append(np.stack([np.full(11, x * s.length), y, z], -1))
    return loft(np.array(rings)[:, ::-1], crease=38.0)


def _side_texcoords(mesh: Mesh, shape: CarShape) -> Mesh:
    """Sides show the door seams of the drawn texture; everything that faces up, forward or back takes its plain upper edge."""
    sideways = np.abs(mesh.normals[..., 1]).mean(1, keepdims=True) > 0.72
    along = mesh.vertices[..., 0] / shape.length + 0.5
    height = np.clip(mesh.vertices[..., 2] / (shape.belt + 0.1), 0, 1)
    u = np.where(sideways, along, 0.5)
    v = np.where(
        sideways,
        0.04 + 0.86 * (1 - height),
        np.where(mesh.normals[..., 2].mean(1, keepdims=True) < -0.5, 0.97, 0.015),
    )
    return Mesh(mesh.vertices, mesh.normals, np.stack([u, v], -1))


def _cabin(shape: CarShape) -> tuple[Mesh, Mesh]:
    """Glasshouse and painted roof with pillars; both as meshes (glass, paint)."""
    s = shape
    wide, narrow = s.width / 2 * 0.93, s.width / 2 * s.taper
    rear, front = s.base[0] * s.length, s.base[1] * s.length
    roof_rear, roof_front, sill, top = (
        s.roof[0] * s.length,
        s.roof[1] * s.length,
        s.belt - 0.06,
        s.height - 0.045,
    )
    low = np.array([[rear, -wide, sill], [front, -wide, sill], [front, wide, sill], [rear, wide, sill]])
    high = np.array(
        [
            [roof_rear, -narrow, top],
            [roof_front, -narrow, top],
            [roof_front, narrow, top],
            [roof_rear, narrow, top],
        ]
    )
    glass = loft(np.stack([low, high]), crease=20.0)
    paint: list[Mesh] = []
    ring = high + np.array([[-0.02, -0.015, 0], [0.03, -0.015, 0], [0.03, 0.015, 0], [-0.02, 0.015, 0]])
    upper = ring * [0.97, 0.93, 1.0] + [0.0, 0.0, 0.05]
    paint.append(loft(np.stack([ring - [0, 0, 0.02], ring + [0, 0, 0.015], upper]), crease=50.0))
    pillars = [(0, 0.10), (1, 0.07), (2, 0.07), (3, 0.10)]
    for corner, thickness in pillars:
        direction = 1.0 if corner in (0, 3) else -1.0
        side = -1.0 if corner in (0, 1) else 1.0
        a, b = low[corner] + [0, 0.012 * side, 0], high[corner] + [0, 0.012 * side, 0]
        across = np.array([direction * thickness, 0, 0])
        inward = np.array([-0.012 * direction, -0.13 * side, 0])
        face = np.array([a, a + across, b + across, b])
        edge = np.array([a + inward, a, b, b + inward])
        for corners in (face, edge):
            normal = np.cross(corners[1] - corners[0], corners[2] - corners[0])
            outward = np.array([-direction, side, 0.2])
            paint.append(quad(corners if normal @ outward > 0 else corners[::-1]))
    posts = [0.5 * (rear + front) - 0.02 * s.length] + (
        [0.5 * rear + 0.5 * roof_rear + 0.30] if s.base[0] < -0.45 else []
    )
    for x in posts:
        for side in (-1.0, 1.0):
            start, stop = (
                np.array([x, side * (wide + 0.01), sill]),
                np.array([x - 0.05, side * (narrow + 0.01), top]),
            )
            corners = np.array(
                [start - [0.05, 0, 0], start + [0.05, 0, 0], stop + [0.04, 0, 0], stop - [0.04, 0, 0]]
            )
            paint.append(quad(corners if side < 0 else corners[::-1]))
    if s.glass_from > -0.5:  # sheet metal over the rear windows of a van
        window = s.glass_from * s.length
        for side in (-1.0, 1.0):
            y0, y1 = side * (wide + 0.008), side * (narrow + 0.008)
            corners = np.array(
                [[rear, y0, sill], [window, y0, sill], [window - 0.05, y1, top], [roof_rear, y1, top]]
            )
            paint.append(quad(corners if side < 0 else corners[::-1]))
        back = np.array([[rear - 0.008, wide, sill], [rear - 0.008, -wide, sill], [roof_rear - 0.008, -narrow, top],
                         [roof_rear - 0.008, narrow, top]])  # fmt: skip
        paint.append(quad(back))
    return glass, merge(paint)


def _details(shape: CarShape, palette: Palette, rng: np.random.Generator) -> tuple[list[Mesh], list[Mesh]]:
    """Wheels, arches, lamps, grille, plates, bumper trims; and the mirrors, which lie outside the box."""
    s, half, end = shape, shape.width / 2, shape.length / 2
    rim = ((190, 192, 195), (120, 122, 126), (60, 60, 64))[rng.integers(3)]
    spokes = int(rng.choice([5, 6, 8, 10]))
    meshes: list[Mesh] = []
    for fraction in s.axles:
        x = fraction * s.length
        for side in (-1.0, 1.0):
            y = side * (half - 0.002)
            arch = disc(s.wheel_radius * 1.16, (x, y + 0.008 * side, s.wheel_radius * 1.02), side)
            meshes.append(palette.paint(arch, (0.045, 0.045, 0.05)))
            meshes += wheel(
                palette,
                s.wheel_radius,
                0.22,
                y + 0.014 * side,
                x,
                f"wheel{rim[0]}_{spokes}",
                wheel_picture(rim, spokes),
            )
    lamp_y, lamp_z = half * 0.62, s.hood - 0.17
    for side in (-1.0, 1.0):
        meshes.append(palette.paint(box((0.10, 0.34, 0.13), (end * 0.966, side * lamp_y, lamp_z)), LAMP))
        meshes.append(
            palette.paint(
                box((0.06, 0.12, 0.07), (end * 0.974, side * (lamp_y + 0.12), lamp_z - 0.02)), INDICATOR
            )
        )
        tall = 0.34 if s.base[0] < -0.47 else 0.15
        meshes.append(
            palette.paint(box((0.08, 0.26, tall), (-end * 0.972, side * half * 0.70, s.deck * 0.80)), TAIL)
        )
    meshes.append(
        palette.paint(box((0.06, s.width * 0.44, 0.14), (end * 0.982, 0, s.hood - 0.24)), (0.06, 0.06, 0.07))
    )
    meshes.append(palette.paint(box((0.05, s.width * 0.10, 0.05), (end * 0.992, 0, s.hood - 0.22)), CHROME))
    bumper = s.clearance + 0.16
    for direction in (-1.0, 1.0):
        meshes.append(
            palette.paint(
                box((0.07, s.width * 0.66, 0.15), (direction * end * 0.985, 0, bumper - 0.02)),
                (0.13, 0.13, 0.14),
            )
        )
        meshes.append(
            palette.paint(
                box((0.02, 0.50, 0.11), (direction * (end + 0.006), 0, bumper + 0.17)), (0.92, 0.92, 0.88)
            )
        )
    for side in (-1.0, 1.0):
        sill = box((s.length * 0.40, 0.05, 0.10), (0.01 * s.length, side * (half - 0.03), s.clearance - 0.01))
        meshes.append(palette.paint(sill, (0.09, 0.09, 0.10)))
        for x in (0.06, -0.15):
            meshes.append(
                palette.paint(
                    box((0.16, 0.03, 0.03), (x * s.length, side * (half + 0.0), s.belt - 0.13)),
                    (0.35, 0.36, 0.37),
                )
            )
    mirrors = []
    for side in (-1.0, 1.0):
        mirrors.append(
            palette.paint(
                box((0.12, 0.20, 0.14), (s.base[1] * s.length - 0.22, side * (half + 0.09), s.belt + 0.05)),
                BLACK,
            )
        )
    return meshes, mirrors


def _bed(shape: CarShape, palette: Palette) -> Mesh:
    """The open load bed of a pick-up: a dark floor let into the rear deck."""
    rear, front = -0.47 * shape.length, shape.base[0] * shape.length - 0.12
    return palette.paint(
        box((front - rear, shape.width * 0.78, 0.02), ((front + rear) / 2, 0, shape.deck + 0.035)),
        (0.12, 0.12, 0.12),
    )


def build_car(shape: CarShape, palette: Palette, rng: np.random.Generator) -> ObjectModel:
    """One car of the catalogue."""
    glass, roof = _cabin(shape)
    body = _side_texcoords(_body(shape), shape)
    roof = roof.with_texcoord((0.5, 0.015))
    meshes, mirrors = _details(shape, palette, rng)
    if shape.bed:
        meshes.append(_bed(shape, palette))
    height = glass.vertices[..., 2]
    sky = np.stack(
        [np.full_like(height, 0.5), 1 - (height - shape.belt) / max(shape.height - shape.belt, 0.1)], -1
    )
    parts = [
        Part(merge([body, roof]), f"paint:{shape.texture}", tint=True),
        Part(Mesh(glass.vertices, glass.normals, np.clip(sky, 0.02, 0.98)), "glass"),
        details(meshes),
        Part(merge(mirrors), "palette", counts=False),
    ]
    vans = tuple(p for p in PAINTS if min(p) > 0.5) + ((0.92, 0.92, 0.92),) * 3
    return model_from_parts(
        shape.name, "truck" if shape.kind == "pickup" else "car", parts, weight=shape.weight, kind=shape.kind,
        colours=vans if shape.kind == "van" else PAINTS,
        wheelbase=(shape.axles[1] - shape.axles[0]) * shape.length, rear_axle=shape.axles[0] * shape.length,
    )  # fmt: skip


def add_cars(catalogue: Catalogue) -> None:
    """Every shape of `SHAPES`, each in two slightly different proportions."""
    for shape in SHAPES:
        for variant in range(2):
            stretch = catalogue.rng.uniform(0.96, 1.05, 3) * catalogue.size_factor
            varied = replace(
                shape, name=f"{shape.name}_{variant}", length=shape.length * stretch[0], width=shape.width * stretch[1],
                height=shape.height * stretch[2], belt=shape.belt * stretch[2], hood=shape.hood * stretch[2],
                deck=shape.deck * stretch[2], wheel_radius=shape.wheel_radius * stretch[2],
            )  # fmt: skip
            catalogue.add(build_car(varied, catalogue.palette, catalogue.rng))
