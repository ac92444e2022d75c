"""A whole world, drawn from a seed: plan, weather, everybody in it. No renderer yet."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dualview.scene.synthetic.actors import Actor, MovingActor
from dualview.scene.synthetic.catalogue import build_catalogue
from dualview.scene.synthetic.city import City, plan_city
from dualview.scene.synthetic.domains import Domain
from dualview.scene.synthetic.object_model import Catalogue
from dualview.scene.synthetic.placement import furnish
from dualview.scene.synthetic.population import populate
from dualview.scene.synthetic.roads import all_legs


@dataclass(frozen=True)
class Weather:
    """Light and air of one drive. Colours and strengths 0..1."""

    sun: np.ndarray  # unit vector [3] towards the sun, world
    sun_strength: float
    ambient: float
    cloud_cover: float
    fog_end: float  # m
    horizon: tuple[float, float, float]


@dataclass(frozen=True)
class World:
    """Everything there is in one drive. Times are seconds from its beginning."""

    seed: int
    domain: Domain
    catalogue: Catalogue
    city: City
    weather: Weather
    actors: tuple[Actor, ...]
    ego: MovingActor


def draw_weather(rng: np.random.Generator, domain: Domain) -> Weather:
    """Random light within what the domain allows."""
    elevation, azimuth = np.radians(rng.uniform(*domain.sun_elevation)), rng.uniform(0, 2 * np.pi)
    cover = float(rng.uniform(*domain.cloud_cover))
    sun = np.array(
        [np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation)]
    )
    strength = float(rng.uniform(*domain.sun_strength)) * (1 - 0.35 * cover)
    low = float(np.clip(1 - np.degrees(elevation) / 40, 0, 1))  # a low sun makes the horizon warmer
    red, green, blue = (
        float(np.clip(c + low * d, 0, 1)) for c, d in zip(domain.horizon, (0.08, 0.0, -0.08), strict=True)
    )
    return Weather(
        sun,
        strength,
        float(rng.uniform(*domain.ambient)) + 0.06 * cover,
        cover,
        float(rng.uniform(*domain.fog_end)),
        (red, green, blue),
    )


def build_world(seed: int, seconds: float, domain: Domain) -> World:
    """The world of `seed`, with traffic for a drive of `seconds`."""
    catalogue = build_catalogue(seed, domain.size_factor)
    rng = np.random.default_rng([seed, 2])
    city = plan_city(rng, domain)
    weather = draw_weather(np.random.default_rng([seed, 3]), domain)
    still = furnish(city, catalogue, np.random.default_rng([seed, 4]), domain, all_legs(city))
    actors, ego = populate(city, catalogue, np.random.default_rng([seed, 5]), domain, still, seconds)
    still_reach, moving_reach = domain.reach
    near = tuple(a for a in actors if comes_near(a, ego, seconds, moving_reach if a.moving else still_reach))
    return World(seed, domain, catalogue, city, weather, near, ego)


def comes_near(actor: Actor, ego: MovingActor, seconds: float, reach: float) -> bool:
    """Is an actor ever within `reach` (m) of the vehicle during the drive (looked at every half second)?"""
    for time in np.arange(0.0, seconds + 0.5, 0.5):
        here, there = ego.pose(float(time)), actor.pose(float(time))
        if (here.x - there.x) ** 2 + (here.y - there.y) ** 2 < reach**2:
            return True
    return False
