"""Collects all that a world shows: meshes, pictures, and where they stand. Still free of any renderer."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from dualview.scene.synthetic import facades, textures
from dualview.scene.synthetic.buildings import FACADES, ROOFS, block_buildings
from dualview.scene.synthetic.ground import block_ground, road_markings
from dualview.scene.synthetic.meshes import Mesh
from dualview.scene.synthetic.palette import shade
from dualview.scene.synthetic.roads import all_legs
from dualview.scene.synthetic.street_furniture import (
    SignalHead,
    Standing,
    build_furniture,
    build_trees,
    line_street,
    plant_block,
    signals,
)
from dualview.scene.synthetic.world import World


@dataclass(frozen=True)
class Surface:
    """How a material looks: a picture (uint8 [H, W, 3]) or a plain colour, and how it shines (0..1)."""

    picture: np.ndarray | None = None
    colour: tuple[float, float, float] = (1.0, 1.0, 1.0)
    specular: float = 0.0
    shininess: float = 0.1
    reflectivity: float = 0.3  # LiDAR intensity of a perpendicular hit, 0..1


@dataclass
class Scenery:
    """Materials, world-fixed meshes (with their material), and repeated pieces."""

    surfaces: dict[str, Surface]
    fixed: list[tuple[str, Mesh]] = field(default_factory=list)  # (material, mesh in the world)
    painted: list[tuple[str, Mesh]] = field(
        default_factory=list
    )  # lies on the ground; invisible to the LiDAR's geometry
    pieces: dict[str, list[tuple[str, Mesh]]] = field(default_factory=dict)  # name -> (material, mesh) parts
    standing: list[Standing] = field(default_factory=list)
    heads: list[SignalHead] = field(default_factory=list)


def draw_surfaces(world: World) -> dict[str, Surface]:
    """All materials of a world except the palette, which is complete only when all meshes are."""
    rng, domain = np.random.default_rng([world.seed, 11]), world.domain
    sky = domain.zenith
    vary = rng.uniform(0.88, 1.10)
    asphalt = shade(domain.asphalt, vary)
    worn = 0.86 + 0.14 * np.clip(textures.noise(rng, 256, (8, 16, 32, 64)) + 0.5, 0, 1)

    def paint(colour: tuple[float, float, float]) -> np.ndarray:
        return (np.clip(np.asarray(colour) * worn[..., None], 0, 1) * 255).astype(np.uint8)

    surfaces = {
        "asphalt": Surface(textures.asphalt(rng, asphalt), reflectivity=0.12),
        "asphalt_b": Surface(textures.asphalt(rng, shade(asphalt, 1.12), 512), reflectivity=0.12),
        "paving": Surface(
            textures.paving(
                rng, domain.sidewalk, int(rng.choice([4, 6, 8])), staggered=bool(rng.random() < 0.5)
            ),
            reflectivity=0.25,
        ),
        "paving_b": Surface(
            textures.paving(rng, shade(domain.sidewalk, 0.92), 10, staggered=True),
            reflectivity=0.25,
        ),
        "kerb": Surface(colour=shade(domain.sidewalk, 1.12), reflectivity=0.3),
        "grass": Surface(textures.grass(rng, domain.grass), reflectivity=0.4),
        "soil": Surface(textures.soil(rng, (0.46, 0.38, 0.28)), reflectivity=0.3),
        "marking": Surface(paint(domain.marking), reflectivity=0.75),
        "centre_marking": Surface(paint(domain.centre_marking), reflectivity=0.7),
        "patch": Surface(textures.asphalt(rng, shade(asphalt, 0.72), 256), reflectivity=0.1),
        "bark": Surface(textures.bark(rng), reflectivity=0.3),
        "hedge": Surface(textures.foliage(rng, shade(domain.foliage[0], 0.8)), reflectivity=0.45),
        "glass": Surface(textures.window_glass(rng, sky), specular=0.9, shininess=0.85, reflectivity=0.08),
    }
    for index, leaf in enumerate(domain.foliage):
        surfaces[f"leaves_{index}"] = Surface(textures.foliage(rng, leaf), reflectivity=0.45)
    for doors in ("sedan", "hatch", "coupe", "van"):
        surfaces[f"paint:{doors}"] = Surface(
            textures.car_side(rng, doors), specular=0.55, shininess=0.6, reflectivity=0.5
        )
    glass = tuple(0.35 + 0.35 * np.array(sky))
    for index in range(FACADES):
        style = facades.random_style(rng, domain.walls, glass)
        surfaces[f"facade_{index}"] = Surface(facades.facade(rng, style), reflectivity=0.35)
        surfaces[f"ground_{index}"] = Surface(
            facades.ground_floor(rng, style, shop=bool(rng.random() < 0.6)), reflectivity=0.35
        )
    for index in range(ROOFS):
        surfaces[f"roof_{index}"] = Surface(
            facades.roof_tiles(rng, domain.roofs[index % len(domain.roofs)]), reflectivity=0.3
        )
    return surfaces


def build_scenery(world: World) -> Scenery:
    """Everything that stands in a world besides its actors."""
    palette, city = world.catalogue.palette, world.city
    rng = np.random.default_rng([world.seed, 12])
    scenery = Scenery(draw_surfaces(world))
    legs = all_legs(city)
    for block in city.blocks:
        scenery.fixed += list(block_ground(city, block).items())
        scenery.fixed += list(block_buildings(city, block, world.domain, palette).items())
        scenery.standing += plant_block(city, block)
    scenery.painted += list(road_markings(city, rng, legs).items())
    for index, (trunk, crown) in enumerate(build_trees(rng)):
        leaf = f"leaves_{int(rng.integers(len(world.domain.foliage)))}"
        scenery.pieces[f"tree_{index}"] = [("bark", trunk), (leaf, crown)]
    for name, mesh in build_furniture(palette, rng).items():
        scenery.pieces[name] = [("palette", mesh)]
    for leg in legs:
        if leg.lane == 0:
            scenery.standing += line_street(city, rng, leg)
    posts, scenery.heads = signals(city, legs)
    scenery.standing = clear_of(scenery.standing, world) + posts
    scenery.surfaces["palette"] = Surface(palette.image(), specular=0.15, shininess=0.3, reflectivity=0.4)
    return scenery


def clear_of(standing: list[Standing], world: World) -> list[Standing]:
    """Those that don't stand inside a still object."""
    at = [(a.rest.x, a.rest.y, np.hypot(*a.model.size[:2]) / 2 + 0.3) for a in world.actors if not a.moving]
    if not at:
        return standing
    x, y, radius = np.array(at).T
    return [s for s in standing if (np.hypot(x - s.x, y - s.y) > radius).all()]
