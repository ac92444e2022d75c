"""Domains: how a world looks and is recorded. `default` and `shifted` differ in all that a domain-shift study asks for."""

from __future__ import annotations

from dataclasses import dataclass, replace

from dualview.errors import ConfigError

Colour = tuple[float, float, float]


@dataclass(frozen=True)
class Domain:
    """Ranges that a world is drawn from. Angles in degrees, colours 0..1, lengths in m."""

    name: str
    description: str
    sun_elevation: tuple[float, float]
    sun_strength: tuple[float, float]
    ambient: tuple[float, float]
    sun_colour: Colour
    zenith: Colour
    horizon: Colour
    cloud_cover: tuple[float, float]
    fog_end: tuple[float, float]  # m at which the haze is complete
    asphalt: Colour
    marking: Colour
    centre_marking: Colour
    sidewalk: Colour
    grass: Colour
    foliage: tuple[Colour, ...]
    walls: tuple[Colour, ...]
    roofs: tuple[Colour, ...]
    gain: Colour = (1.0, 1.0, 1.0)  # colour balance of the cameras
    gamma: float = 1.0
    sensor_noise: float = 2.0  # standard deviation, grey levels of 255
    vignette: float = 0.15  # darkening in the corners
    camera_raise: float = 0.0  # m that the cameras sit higher
    focal_factor: float = 1.0
    camera_pitch: float = 0.0  # degrees, positive looks down
    size_factor: float = 1.0  # of all objects
    storeys: tuple[int, int] = (2, 7)
    lane_width: float = 3.5
    density: float = 1.0  # of traffic
    parking: float = 0.8  # how full kerbs, racks and car parks stand; parked vehicles hide what is behind them
    reach: tuple[float, float] = (20.0, 30.0)  # m: what stands still, and who moves, is left out if it never comes nearer to the vehicle


DEFAULT = Domain(
    "default", "a temperate city by day: sun from morning to evening, few or many clouds, light haze",
    (22, 62), (0.80, 1.05), (0.44, 0.56), (1.0, 0.95, 0.86), (0.24, 0.45, 0.78), (0.76, 0.84, 0.91), (0.05, 0.65), (330, 620),
    (0.36, 0.36, 0.37), (0.88, 0.88, 0.86), (0.88, 0.88, 0.86), (0.50, 0.485, 0.46), (0.30, 0.42, 0.17),
    ((0.24, 0.42, 0.14), (0.32, 0.47, 0.17), (0.18, 0.34, 0.13), (0.42, 0.46, 0.18)),
    ((0.80, 0.74, 0.62), (0.72, 0.62, 0.52), (0.85, 0.82, 0.76), (0.62, 0.60, 0.58), (0.78, 0.60, 0.46), (0.66, 0.70, 0.72),
     (0.84, 0.78, 0.56)),
    ((0.50, 0.25, 0.18), (0.36, 0.28, 0.26), (0.30, 0.31, 0.34)),
)  # fmt: skip

SHIFTED = Domain(
    "shifted", "another city in low, foggy light: pale asphalt, yellow lines, autumn trees, higher and longer cameras, larger objects",
    (9, 22), (0.42, 0.60), (0.54, 0.66), (1.0, 0.78, 0.55), (0.52, 0.56, 0.60), (0.78, 0.76, 0.72), (0.6, 1.0), (95, 170),
    (0.47, 0.45, 0.42), (0.88, 0.86, 0.76), (0.88, 0.66, 0.14), (0.48, 0.45, 0.42), (0.45, 0.40, 0.22),
    ((0.58, 0.36, 0.12), (0.62, 0.46, 0.15), (0.45, 0.24, 0.12), (0.38, 0.38, 0.18)),
    ((0.55, 0.52, 0.50), (0.46, 0.50, 0.54), (0.62, 0.56, 0.48), (0.50, 0.42, 0.40), (0.70, 0.70, 0.68)),
    ((0.24, 0.25, 0.27), (0.35, 0.22, 0.20)),
    (1.02, 1.0, 0.95), 1.0, 4.5, 0.35, 0.35, 1.18, 1.5, 1.09, (4, 12), 3.2, 1.0,
)  # fmt: skip

OVERCAST = Domain(
    "overcast", "a grey day without hard shadows, cool colours, dark asphalt as after rain",
    (35, 60), (0.20, 0.30), (0.72, 0.84), (0.92, 0.96, 1.0), (0.62, 0.66, 0.70), (0.80, 0.82, 0.84), (0.85, 1.0), (200, 380),
    (0.25, 0.26, 0.28), (0.84, 0.85, 0.86), (0.84, 0.85, 0.86), (0.46, 0.46, 0.47), (0.25, 0.36, 0.18),
    DEFAULT.foliage, DEFAULT.walls, DEFAULT.roofs, (0.97, 1.0, 1.04), 1.0, 2.8, 0.2,
)  # fmt: skip

CROWDED = replace(
    DEFAULT, name="crowded", description="the default city on a market day: full streets as far as one sees, cars hide cars",
    parking=1.0, reach=(140.0, 140.0),  # a car at that distance is some 7 px high
)  # fmt: skip

DOMAINS = {d.name: d for d in (DEFAULT, SHIFTED, OVERCAST, CROWDED)} | {"city-b": SHIFTED}


def find_domain(name: str) -> Domain:
    """The domain of that name. Raises ConfigError with the names that there are."""
    if name not in DOMAINS:
        raise ConfigError(f"there is no domain called '{name}'; choose one of {', '.join(sorted(DOMAINS))}")
    return DOMAINS[name]
