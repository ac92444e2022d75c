"""Who takes part in traffic: vehicles and people of a drive, and the car that carries the sensors."""

from __future__ import annotations

import numpy as np

from dualview.scene.synthetic.actors import Actor, MovingActor, StaticActor
from dualview.scene.synthetic.city import City
from dualview.scene.synthetic.collisions import remove_collisions
from dualview.scene.synthetic.domains import Domain
from dualview.scene.synthetic.object_model import Catalogue
from dualview.scene.synthetic.roads import Leg, all_legs, random_route, sidewalk_route
from dualview.scene.synthetic.traffic import WARM_UP, Mover, Simulation, speed_profile


def populate(
    city: City,
    catalogue: Catalogue,
    rng: np.random.Generator,
    domain: Domain,
    still: list[StaticActor],
    seconds: float,
) -> tuple[list[Actor], MovingActor]:
    """All actors of a drive and, apart from them, the vehicle that carries the sensors."""
    legs = all_legs(city)
    movers: list[Mover] = []
    occupied: dict[Leg, list[tuple[float, float]]] = {}

    def vehicle(name: str, kinds: tuple[str, ...], leg: Leg, start: float) -> None:
        model = catalogue.of_kind(rng, *kinds)
        colour = model.colours[int(rng.integers(len(model.colours)))] if model.colours else (1.0, 1.0, 1.0)
        cruise = min(float(rng.normal(11.0, 1.8)), model.top_speed)
        cruise = max(min(cruise, rng.normal(4.8, 0.8)) if model.class_name == "bicycle" else cruise, 2.5)
        lateral = 0.0
        if model.class_name in ("bicycle", "motorcycle"):
            lateral = rng.uniform(0.75, 1.05) if model.class_name == "bicycle" else rng.normal(0, 0.4)
        trailer = catalogue.of_kind(rng, "trailer") if model.kind == "tractor" else None
        room = model.size[0] + (trailer.size[0] if trailer else 0.0)
        if any(a - room - 4 < start < b + model.size[0] + 4 for a, b in occupied.get(leg, [])):
            return
        occupied.setdefault(leg, []).append((start - room, start + model.size[0]))
        length = max((WARM_UP + seconds + 4) * cruise, 60.0) + start + 90.0
        path = random_route(city, rng, leg, length, lateral, change_lanes=0.0 if lateral else 0.35)
        limit = speed_profile(path, cruise)
        movers.append(
            Mover(
                name,
                model,
                colour,
                path,
                start,
                min(cruise, limit[int(start)]) * 0.8,
                cruise,
                limit,
                trailer=trailer,
            )
        )

    kinds = ["car", "van", "pickup", "truck", "tractor", "bus", "motorcycle", "bicycle", "machine"]
    weights = np.array([0.48, 0.06, 0.05, 0.06, 0.045, 0.10, 0.11, 0.12, 0.035])
    for n in range(int(1.8 * len(legs) * domain.density)):
        kind = str(rng.choice(kinds, p=weights / weights.sum()))
        leg = legs[int(rng.integers(len(legs)))]
        if kind in ("bicycle", "bus", "machine"):  # keep right
            rightmost = city.street(leg.along_v, leg.start[0] if leg.along_v else leg.start[1]).lanes - 1
            leg = Leg(leg.start, leg.end, rightmost)
        vehicle(f"v{n:03d}", (kind,), leg, float(rng.uniform(6, 70)))
    for n in range(int(95 * domain.density)):
        model = catalogue.of_kind(rng, "adult", "adult", "child")
        path, waits = sidewalk_route(city, rng, 1.7 * (WARM_UP + seconds) + 20)
        cruise = float(np.clip(rng.normal(1.3, 0.2), 0.8, 1.9))
        movers.append(
            Mover(
                f"p{n:03d}",
                model,
                (1, 1, 1),
                path,
                float(rng.uniform(0, 12)),
                cruise,
                cruise,
                np.zeros(0),
                waits,
                person=True,
            )
        )
    moving = Simulation(city, movers, still).run(seconds)
    ego = choose_ego(rng, city, moving, seconds)
    return remove_collisions([*still, *(a for a in moving if a is not ego)], ego, seconds), ego


def choose_ego(
    rng: np.random.Generator, city: City, moving: list[MovingActor], seconds: float
) -> MovingActor:
    """One of the cars, more likely one that gets on and that drives amid the city; some stand at a light all the time, as in life."""
    cars = [
        a for a in moving if a.crossings is None and a.model.class_name == "car" and a.model.kind == "car"
    ]
    if not cars:
        raise ValueError("no car found a place in this world: raise the density of traffic")
    reach = max(abs(s.position) for s in (*city.u_streets, *city.v_streets))
    weights = []
    for car in cars:
        pose = car.pose(seconds / 2)
        driven = (car.distance(seconds) - car.distance(0.0)) / seconds
        amid = 1.0 if max(abs(pose.x), abs(pose.y)) < 0.75 * reach else 0.25
        weights.append(amid * (0.5 + driven))
    return cars[int(rng.choice(len(cars), p=np.array(weights) / np.sum(weights)))]
