"""What an object of the synthetic world is made of, and the catalogue that all object builders fill."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dualview.scene.synthetic.meshes import Mesh, merge
from dualview.scene.synthetic.palette import Palette

CLASS_NAMES = (
    "car", "truck", "construction_vehicle", "bus", "trailer", "barrier", "motorcycle", "bicycle", "pedestrian", "traffic_cone",
)  # fmt: skip


@dataclass(frozen=True)
class Limb:
    """How a part swings while its object walks: about the y axis through `pivot` (m), by up to `swing` (rad)."""

    pivot: tuple[float, float, float]
    swing: float


@dataclass(frozen=True)
class Part:
    """A mesh in one material. `tint`: takes the object's own colour. `counts` False: outside the annotated box (mirrors, poles)."""

    mesh: Mesh
    material: str = "palette"  # palette, paint:<texture>, glass, plain
    tint: bool = False
    counts: bool = True
    limb: Limb | None = None


@dataclass(frozen=True)
class ObjectModel:
    """A shape of the catalogue. Its frame: x forward, y left, z up, origin on the ground below the box centre."""

    name: str
    class_name: str
    parts: tuple[Part, ...]
    size: tuple[float, float, float]  # length, width, height of the annotated box, m
    weight: float = 1.0  # relative frequency within its kind
    kind: str = "car"  # what traffic asks for: car, van, truck, bus, trailer, rider, ...
    colours: tuple[tuple[float, float, float], ...] = ()  # paints to choose from
    wheelbase: float = 2.7  # m, distance from the axle that follows the lane to the front axle
    rear_axle: float = -1.35  # m, x of the axle that follows the lane
    top_speed: float = 30.0  # m/s


def model_from_parts(name: str, class_name: str, parts: list[Part], **fields: Any) -> ObjectModel:
    """An ObjectModel whose box is the tight box of its counted parts; the parts are shifted so that the box is centred at x = y = 0."""
    counted = np.concatenate([p.mesh.vertices.reshape(-1, 3) for p in parts if p.counts])
    low, high = counted.min(0), counted.max(0)
    shift = np.array([-(low[0] + high[0]) / 2, -(low[1] + high[1]) / 2, 0.0])
    moved = tuple(
        Part(p.mesh.transformed(translation=shift), p.material, p.tint, p.counts,
             None if p.limb is None else Limb(tuple(np.asarray(p.limb.pivot) + shift), p.limb.swing))
        for p in parts
    )  # fmt: skip
    size = (float(high[0] - low[0]), float(high[1] - low[1]), float(high[2]))
    if "rear_axle" in fields:
        fields["rear_axle"] = float(fields["rear_axle"]) + float(shift[0])
    return ObjectModel(name, class_name, moved, size, **fields)


@dataclass
class Catalogue:
    """All shapes of one world, the palette that their details are painted with, and the drawn textures of their paint."""

    palette: Palette
    rng: np.random.Generator
    size_factor: float = 1.0  # domains with bigger or smaller objects
    models: list[ObjectModel] = field(default_factory=list)

    def add(self, model: ObjectModel) -> None:
        self.models.append(model)

    def choose(self, rng: np.random.Generator, accept: Callable[[ObjectModel], bool]) -> ObjectModel:
        """A random model among those that `accept`, by weight."""
        fitting = [m for m in self.models if accept(m)]
        if not fitting:
            raise ValueError("no model of the catalogue fits what was asked for")
        weights = np.array([m.weight for m in fitting])
        return fitting[int(rng.choice(len(fitting), p=weights / weights.sum()))]

    def of_kind(self, rng: np.random.Generator, *kinds: str) -> ObjectModel:
        """A random model of one of these kinds."""
        return self.choose(rng, lambda m: m.kind in kinds)


def details(parts: list[Mesh]) -> Part:
    """Palette-coloured meshes as one part."""
    return Part(merge(parts), "palette")
