"""Pedestrians of many looks, and the riders of two-wheelers."""

from __future__ import annotations

import numpy as np

from dualview.scene.synthetic.meshes import Mesh, box, ellipsoid, merge, revolve, rotation_y, tube
from dualview.scene.synthetic.object_model import Catalogue, Limb, ObjectModel, Part, model_from_parts
from dualview.scene.synthetic.palette import Palette

SKIN = ((0.95, 0.79, 0.67), (0.87, 0.68, 0.54), (0.72, 0.52, 0.38), (0.52, 0.35, 0.24), (0.35, 0.23, 0.16))
HAIR = (
    (0.08, 0.06, 0.05),
    (0.20, 0.13, 0.08),
    (0.42, 0.28, 0.14),
    (0.75, 0.60, 0.35),
    (0.55, 0.55, 0.55),
    (0.50, 0.20, 0.10),
)
TOPS = (
    (0.92, 0.92, 0.90),
    (0.12, 0.12, 0.14),
    (0.16, 0.22, 0.40),
    (0.62, 0.12, 0.14),
    (0.25, 0.42, 0.30),
    (0.80, 0.68, 0.25),
    (0.45, 0.60, 0.78),
    (0.75, 0.45, 0.55),
    (0.40, 0.30, 0.24),
    (0.50, 0.50, 0.52),
    (0.85, 0.45, 0.20),
    (0.35, 0.22, 0.45),
    (0.75, 0.72, 0.62),
)
BOTTOMS = (
    (0.14, 0.17, 0.28),
    (0.22, 0.28, 0.42),
    (0.10, 0.10, 0.11),
    (0.45, 0.38, 0.28),
    (0.30, 0.30, 0.32),
    (0.62, 0.58, 0.50),
    (0.25, 0.22, 0.20),
)
SHOES = ((0.10, 0.09, 0.09), (0.85, 0.85, 0.84), (0.30, 0.20, 0.13), (0.55, 0.12, 0.12))
STRIDE_SWING = 0.42  # rad, largest angle of a leg from the vertical


def _pick(rng: np.random.Generator, options: tuple) -> tuple[float, float, float]:
    return options[int(rng.integers(len(options)))]


def torso(width: float, depth: float, low: float, high: float, taper: float = 0.9) -> Mesh:
    """A torso: elliptic sections from hips to shoulders."""
    span = high - low
    body = revolve(
        [(0.0, 0.0), (0.86, 0.0), (0.84, 0.35 * span), (1.0, 0.80 * span), (0.80, 0.96 * span), (0.30, span)],
        8,
        crease=60.0,
    )
    scale = np.array([depth / 2, width / 2 * taper / 0.9, 1.0])
    normals = body.normals / scale
    return Mesh(
        body.vertices * scale + [0, 0, low],
        normals / np.linalg.norm(normals, axis=-1, keepdims=True),
        body.texcoords,
    )


def head(
    palette: Palette,
    rng: np.random.Generator,
    z: float,
    skin: tuple,
    scale: float = 1.0,
    helmet: tuple | None = None,
) -> list[Mesh]:
    """Neck, head and hair (or a helmet) with the chin at height z."""
    meshes = [palette.paint(tube((0, 0, z - 0.07), (0.01, 0, z + 0.05), 0.055 * scale), skin)]
    meshes.append(
        palette.paint(
            ellipsoid((0.095 * scale, 0.078 * scale, 0.118 * scale)).moved(0.015, 0, z + 0.115), skin
        )
    )
    if helmet is not None:
        meshes.append(
            palette.paint(
                ellipsoid((0.145 * scale, 0.115 * scale, 0.115 * scale)).moved(-0.005, 0, z + 0.175), helmet
            )
        )
        return meshes
    style = rng.random()
    hair = _pick(rng, HAIR)
    meshes.append(
        palette.paint(
            ellipsoid((0.105 * scale, 0.090 * scale, 0.095 * scale)).moved(-0.012, 0, z + 0.155), hair
        )
    )
    if style < 0.3:
        meshes.append(palette.paint(ellipsoid((0.06, 0.085, 0.17)).moved(-0.065, 0, z + 0.06), hair))
    elif style < 0.45:
        cap = _pick(rng, TOPS)
        meshes.append(palette.paint(ellipsoid((0.112, 0.096, 0.075)).moved(-0.005, 0, z + 0.185), cap))
        meshes.append(palette.paint(box((0.11, 0.13, 0.02), (0.12, 0, z + 0.175)), cap))
    return meshes


def build_pedestrian(
    palette: Palette, rng: np.random.Generator, name: str, height: float, worker: bool = False
) -> ObjectModel:
    """A standing or walking person; legs and arms swing about hips and shoulders."""
    skin, top, bottom, shoes = _pick(rng, SKIN), _pick(rng, TOPS), _pick(rng, BOTTOMS), _pick(rng, SHOES)
    if worker:
        top, bottom = (
            ((0.95, 0.42, 0.06), (0.80, 0.92, 0.15))[int(rng.integers(2))],
            _pick(rng, ((0.14, 0.17, 0.28), (0.95, 0.42, 0.06))),
        )
    stout = rng.uniform(0.88, 1.22)
    s = height / 1.75
    hip, shoulder, chin = 0.86 * s, 1.43 * s, 1.51 * s
    width, depth = 0.40 * s * stout, 0.25 * s * stout
    core = [palette.paint(torso(width, depth, hip - 0.05, shoulder + 0.04), top)]
    core.append(palette.paint(ellipsoid((depth * 0.50, width * 0.44, 0.14 * s), 8, 4).moved(z=hip), bottom))
    core += head(palette, rng, chin, skin, s**0.5, (0.95, 0.85, 0.15) if worker else None)
    extra = rng.random()
    if worker:
        for z in (0.35, 0.6):
            core.append(
                palette.paint(
                    torso(
                        width * 1.03,
                        depth * 1.03,
                        hip + z * (shoulder - hip),
                        hip + (z + 0.1) * (shoulder - hip),
                    ),
                    (0.92, 0.92, 0.86),
                )
            )
    elif extra < 0.22:
        bag = box((0.15 * s, 0.28 * s, 0.42 * s), (-depth * 0.5 - 0.05, 0, 1.20 * s))
        core.append(palette.paint(bag, _pick(rng, TOPS)))
    elif extra < 0.36:
        core.append(
            palette.paint(
                box((0.28 * s, 0.10 * s, 0.24 * s), (0.0, -width * 0.60, 0.78 * s)), _pick(rng, BOTTOMS)
            )
        )
        core.append(
            palette.paint(
                tube((0.02, -width * 0.56, 0.9 * s), (0.0, width * 0.2, 1.42 * s), 0.015, segments=4),
                (0.15, 0.12, 0.1),
            )
        )
    skirt = not worker and rng.random() < 0.18
    coat = not worker and not skirt and rng.random() < 0.22
    if skirt or coat:
        cloth = top if coat or rng.random() < 0.5 else bottom
        low = (0.50 if skirt else 0.55) * s
        flare = revolve([(1.25, low), (1.0, hip - 0.02), (0.86, hip + 0.1)], 12, crease=70.0)
        scale = np.array([depth / 2 * 1.1, width / 2 * 0.95, 1.0])
        core.append(palette.paint(Mesh(flare.vertices * scale, flare.normals, flare.texcoords), cloth))
    parts = [Part(merge(core))]
    bare = skirt or (not worker and rng.random() < 0.12)
    sleeve = top if worker or rng.random() < 0.65 else skin
    for side in (-1.0, 1.0):
        y = side * 0.095 * s * stout
        leg = [
            palette.paint(
                tube((0, y, hip), (0.015, y, 0.47 * s), 0.085 * s * stout, 0.060 * s * stout), bottom
            )
        ]
        leg.append(
            palette.paint(
                tube((0.015, y, 0.48 * s), (-0.02, y, 0.08 * s), 0.060 * s * stout, 0.042 * s),
                skin if bare else bottom,
            )
        )
        leg.append(
            palette.paint(
                ellipsoid((0.135 * s, 0.050 * s, 0.055 * s), 6, 3).moved(0.045, y, 0.055 * s), shoes
            )
        )
        parts.append(Part(merge(leg), limb=Limb((0.0, y, hip), side * STRIDE_SWING)))
        y = side * (width / 2 + 0.025)
        arm = [
            palette.paint(
                tube(
                    (0, y, shoulder - 0.03), (-0.03, y + side * 0.03, 1.13 * s), 0.052 * s * stout, 0.042 * s
                ),
                top,
            )
        ]
        arm.append(
            palette.paint(
                tube(
                    (-0.03, y + side * 0.03, 1.13 * s),
                    (0.05, y + side * 0.03, 0.90 * s),
                    0.040 * s,
                    0.032 * s,
                ),
                sleeve,
            )
        )
        arm.append(
            palette.paint(ellipsoid((0.045, 0.035, 0.06), 5, 3).moved(0.06, y + side * 0.03, 0.86 * s), skin)
        )
        parts.append(Part(merge(arm), limb=Limb((0.0, y, shoulder - 0.03), -side * STRIDE_SWING * 0.8)))
    model = model_from_parts(
        name,
        "pedestrian",
        parts,
        kind="worker" if worker else ("child" if height < 1.45 else "adult"),
        top_speed=1.8,
    )
    # The box holds the mean stride, as an annotator's would.
    length = max(model.size[0], 2 * 0.75 * hip * np.sin(STRIDE_SWING) + 0.10)
    return ObjectModel(
        model.name,
        model.class_name,
        model.parts,
        (float(length), model.size[1], model.size[2]),
        kind=model.kind,
        top_speed=1.8,
    )


def rider(
    palette: Palette,
    rng: np.random.Generator,
    seat: tuple[float, float],
    bar: tuple[float, float],
    foot: tuple[float, float],
    lean: float,
    helmet: bool,
) -> list[Mesh]:
    """A seated person; seat, handlebar and pedals are (x, z) in m, `lean` tilts the torso forward (rad)."""
    skin, top, bottom = _pick(rng, SKIN), _pick(rng, TOPS), _pick(rng, BOTTOMS)
    shell = (
        _pick(rng, ((0.9, 0.9, 0.9), (0.1, 0.1, 0.1), (0.8, 0.15, 0.1), (0.15, 0.3, 0.7), (0.95, 0.8, 0.1)))
        if helmet
        else None
    )
    upper = [
        palette.paint(torso(0.42, 0.25, -0.05, 0.58), top),
        *head(palette, rng, 0.64, skin, helmet=shell),
    ]
    upper = [m.transformed(rotation_y(lean), (seat[0], 0, seat[1])) for m in upper]
    shoulder = np.array([seat[0] + 0.53 * np.sin(lean), 0, seat[1] + 0.53 * np.cos(lean)])
    meshes = upper
    for side in (-1.0, 1.0):
        reach = np.array([0, side * 0.22, 0])
        hand = np.array([bar[0], side * 0.27, bar[1]])
        elbow = (shoulder + reach + hand) / 2 + [-0.03, side * 0.05, -0.08]
        meshes.append(palette.paint(tube(shoulder + reach, elbow, 0.052, 0.042), top))
        meshes.append(palette.paint(tube(elbow, hand, 0.042, 0.032), top if rng.random() < 0.6 else skin))
        hip = np.array([seat[0], side * 0.10, seat[1]])
        ankle = np.array([foot[0] + side * 0.06, side * 0.13, foot[1] + side * 0.07 + 0.07])
        knee = (hip + ankle) / 2 + [0.27, side * 0.03, 0.10]
        meshes.append(palette.paint(tube(hip, knee, 0.085, 0.06), bottom))
        meshes.append(palette.paint(tube(knee, ankle, 0.06, 0.045), bottom))
        meshes.append(
            palette.paint(
                ellipsoid((0.13, 0.045, 0.05), 6, 3).moved(*(ankle + [0.04, 0, -0.02])), _pick(rng, SHOES)
            )
        )
    return meshes


def add_people(catalogue: Catalogue) -> None:
    """Adults, children and road workers."""
    rng, factor = catalogue.rng, catalogue.size_factor
    for index in range(26):
        catalogue.add(
            build_pedestrian(
                catalogue.palette,
                rng,
                f"adult_{index}",
                factor * float(np.clip(rng.normal(1.71, 0.09), 1.5, 1.95)),
            )
        )
    for index in range(5):
        catalogue.add(
            build_pedestrian(catalogue.palette, rng, f"child_{index}", factor * rng.uniform(1.05, 1.4))
        )
    for index in range(4):
        catalogue.add(
            build_pedestrian(
                catalogue.palette, rng, f"worker_{index}", factor * rng.uniform(1.68, 1.86), worker=True
            )
        )


__all__ = ["STRIDE_SWING", "add_people", "build_pedestrian", "rider"]
