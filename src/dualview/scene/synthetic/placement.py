"""What stands still: parked vehicles, road works, building sites, car parks, parked two-wheelers, people who wait."""

from __future__ import annotations

import numpy as np

from dualview.scene.synthetic.actors import Pose, StaticActor
from dualview.scene.synthetic.city import KERB_HEIGHT, Block, City
from dualview.scene.synthetic.domains import Domain
from dualview.scene.synthetic.object_model import Catalogue, ObjectModel
from dualview.scene.synthetic.roads import Leg, crossing_half


class Placer:
    """Puts still objects onto the plan; an object that would touch an earlier one is left out."""

    def __init__(self, city: City, catalogue: Catalogue, rng: np.random.Generator, domain: Domain) -> None:
        self.city, self.catalogue, self.rng = city, catalogue, rng
        self.density, self.parking = domain.density, domain.density * domain.parking
        self.actors: list[StaticActor] = []
        self._taken: list[tuple[float, float, float]] = []  # x, y, radius of discs

    def put(self, model: ObjectModel, uv: np.ndarray, angle: float, raised: bool, group: str = "") -> bool:
        """Place a model at a grid point with a grid heading (rad); False if there is no room."""
        xy = self.city.warp(np.asarray(uv, np.float64))
        yaw = float(self.city.warp.heading(np.asarray(uv, np.float64), angle))
        length, width, _ = model.size
        count = max(int(np.ceil(max(length, width) / max(min(length, width), 0.5))), 1)
        along = (
            np.array([np.cos(yaw), np.sin(yaw)]) if length >= width else np.array([-np.sin(yaw), np.cos(yaw)])
        )
        reach = (np.arange(count) - (count - 1) / 2) / count * max(length, width)
        discs = [(*(xy + along * r), 0.5 * min(length, width)) for r in reach]
        if self._taken:
            taken = np.array(self._taken)
            for x, y, radius in discs:
                if (np.hypot(taken[:, 0] - x, taken[:, 1] - y) < taken[:, 2] + radius + 0.12).any():
                    return False
        self._taken += discs
        colour = (
            model.colours[int(self.rng.integers(len(model.colours)))] if model.colours else (1.0, 1.0, 1.0)
        )
        pose = Pose(
            float(xy[0]),
            float(xy[1]),
            KERB_HEIGHT if raised else 0.0,
            yaw,
            float(self.rng.uniform(0, 6.3)),
            0.08,
        )
        self.actors.append(StaticActor(f"s{len(self.actors):04d}", model, colour, pose, group))
        return True

    def kerb(self, leg: Leg, along: float, lateral: float) -> tuple[np.ndarray, float]:
        """Grid point `along` m past the first crossing and `lateral` m right of the centre line of a street side; and its heading."""
        street = self.city.street(leg.along_v, leg.start[0] if leg.along_v else leg.start[1])
        half = crossing_half(self.city, leg.start, leg.along_v)
        begin = (
            self.city.v_streets[leg.start[1]] if leg.along_v else self.city.u_streets[leg.start[0]]
        ).position + leg.sign * half
        at = begin + leg.sign * along
        if leg.along_v:
            return np.array([street.position + leg.sign * lateral, at]), np.pi / 2 * leg.sign
        return np.array([at, street.position - leg.sign * lateral]), 0.0 if leg.sign > 0 else np.pi


def side_length(city: City, leg: Leg) -> float:
    """Kerb length (m) of a street side between two crossings."""
    street = city.u_streets if not leg.along_v else city.v_streets
    a, b = (leg.start[0], leg.end[0]) if not leg.along_v else (leg.start[1], leg.end[1])
    return abs(street[a].position - street[b].position) - street[a].half_width - street[b].half_width


def furnish_side(placer: Placer, leg: Leg) -> None:
    """Everything along one side of a street: road works first, then parked vehicles, then what stands on the pavement."""
    rng, city, catalogue = placer.rng, placer.city, placer.catalogue
    street = city.street(leg.along_v, leg.start[0] if leg.along_v else leg.start[1])
    length = side_length(city, leg)
    works: tuple[float, float] | None = None
    if rng.random() < 0.30 * placer.density:
        start = rng.uniform(12, max(length - 34, 13))
        works = (start, start + rng.uniform(12, 20))
        road_works(placer, leg, *works)
    if street.parking:
        along = 9.0 + rng.uniform(0, 4)
        fill = rng.uniform(0.25, 0.85) * placer.parking
        while along < length - 9.0:
            kind = rng.choice(
                ["car", "van", "pickup", "truck", "small_trailer", "trailer", "bus"],
                p=[0.70, 0.08, 0.08, 0.055, 0.04, 0.03, 0.015],
            )
            model = catalogue.of_kind(rng, str(kind))
            along += model.size[0] / 2
            free = (
                works is None
                or along + model.size[0] / 2 < works[0] - 2
                or along - model.size[0] / 2 > works[1] + 2
            )
            if free and rng.random() < fill and along + model.size[0] / 2 < length - 7:
                lateral = street.half_width - 0.18 - model.size[1] / 2 - rng.uniform(0, 0.15)
                point, angle = placer.kerb(leg, along, lateral)
                placer.put(model, point, angle + rng.normal(0, 0.015), raised=False)
            along += model.size[0] / 2 + rng.uniform(0.7, 1.6)
    for _ in range(rng.poisson(1.1 * placer.parking)):  # racks of bicycles, rows of motorcycles
        kind = "parked_bicycle" if rng.random() < 0.5 else "parked_motorcycle"
        start = rng.uniform(8, max(length - 12, 9))
        turn = rng.choice([-1.0, 1.0]) * np.pi / 2 + rng.normal(0, 0.1)
        for n in range(int(rng.integers(1, 5))):
            point, angle = placer.kerb(leg, start + n * 0.95, street.half_width + 1.35)
            placer.put(catalogue.of_kind(rng, kind), point, angle + turn + rng.normal(0, 0.08), raised=True)
    for _ in range(rng.poisson(0.8 * placer.density)):  # people who stand and talk, or wait for a bus
        start, lateral = rng.uniform(6, max(length - 6, 7)), street.half_width + rng.uniform(0.8, 2.2)
        for _ in range(int(rng.integers(1, 5))):
            point, angle = placer.kerb(leg, start + rng.normal(0, 0.9), lateral + rng.normal(0, 0.35))
            placer.put(
                catalogue.of_kind(rng, "adult", "adult", "child"),
                point,
                rng.uniform(-np.pi, np.pi),
                raised=True,
            )


def road_works(placer: Placer, leg: Leg, start: float, stop: float) -> None:
    """A stretch of kerb taken by road works: a machine or a truck, barriers at its ends, cones along the lane, workers."""
    rng, catalogue = placer.rng, placer.catalogue
    street = placer.city.street(leg.along_v, leg.start[0] if leg.along_v else leg.start[1])
    inner = street.lanes * street.lane_width + 0.45 if street.parking else street.half_width - 0.1
    middle = street.half_width - 1.05 if street.parking else street.half_width + 1.8
    raised = not street.parking
    barrier, cone = catalogue.of_kind(rng, "barrier"), catalogue.of_kind(rng, "cone")
    for along in (start, stop):
        for lateral in (middle,) if street.parking else (middle - 0.4,):
            point, angle = placer.kerb(leg, along, lateral)
            placer.put(barrier, point, angle + rng.normal(0, 0.06), raised)
    for along in np.arange(start + 1.2, stop - 0.8, rng.uniform(2.2, 4.0)):
        point, angle = placer.kerb(leg, along, inner + rng.normal(0, 0.04))
        placer.put(cone, point, angle + rng.uniform(-3, 3), raised=False)
    if rng.random() < 0.45:  # a row of barriers towards the pavement
        row = catalogue.of_kind(rng, "barrier", "fence")
        for along in np.arange(start + 1.4, stop - 1.2, row.size[1] + 0.15):
            point, angle = placer.kerb(leg, along, street.half_width + (0.5 if street.parking else 3.0))
            placer.put(row, point, angle + np.pi / 2 + rng.normal(0, 0.03), raised=True)
    big = catalogue.of_kind(
        rng, *(("machine", "machine", "truck") if rng.random() < 0.92 else ("van", "small_trailer"))
    )
    if big.size[0] < stop - start - 2:
        point, angle = placer.kerb(
            leg,
            (start + stop) / 2 + rng.normal(0, 1),
            middle + (big.size[1] - 2.1) / 2 * (0.4 if street.parking else 1),
        )
        placer.put(big, point, angle + (np.pi if rng.random() < 0.3 else 0), raised)
    for _ in range(int(rng.integers(0, 4))):
        point, angle = placer.kerb(leg, rng.uniform(start, stop), street.half_width + rng.uniform(-0.9, 1.4))
        placer.put(catalogue.of_kind(rng, "worker"), point, rng.uniform(-np.pi, np.pi), raised=True)


def furnish_block(placer: Placer, block: Block) -> None:
    """What stands inside a block: machines on a site, rows of a car park, lorries in a yard, people in a park."""
    rng, catalogue = placer.rng, placer.catalogue
    inset = block.sidewalk + 2.5
    low, high = np.array(block.low) + inset, np.array(block.high) - inset
    if block.kind == "site":
        for _ in range(int(rng.integers(4, 7))):
            placer.put(
                catalogue.of_kind(rng, "machine"),
                rng.uniform(low + 3, high - 3),
                rng.uniform(-np.pi, np.pi),
                True,
            )
        for _ in range(4):
            placer.put(
                catalogue.of_kind(rng, "truck", "trailer", "van", "pickup"),
                rng.uniform(low + 4, high - 4),
                rng.choice([0, np.pi / 2]),
                True,
            )
        for _ in range(8):
            placer.put(
                catalogue.of_kind(rng, "worker"), rng.uniform(low, high), rng.uniform(-np.pi, np.pi), True
            )
        fence = catalogue.of_kind(rng, "barrier", "fence")
        edges = [
            (low, np.array([high[0], low[1]])),
            (np.array([high[0], low[1]]), high),
            (high, np.array([low[0], high[1]])),
            (np.array([low[0], high[1]]), low),
        ]
        for a, b in edges:
            way = b - a
            span = float(np.linalg.norm(way))
            for s in np.arange(1.5, span - 1.5, fence.size[1] + 0.2):
                if rng.random() < 0.25:
                    outward = np.arctan2(way[1], way[0]) - np.pi / 2
                    placer.put(fence, a + way * s / span, outward + rng.normal(0, 0.03), True)
        for _ in range(14):
            placer.put(catalogue.of_kind(rng, "cone"), rng.uniform(low, high), 0.0, True)
    elif block.kind in ("lot", "industry"):
        if block.kind == "lot":
            for row, v in enumerate(np.arange(low[1] + 3, high[1] - 2, 8.2)):
                big = row % 3 == 2
                u = low[0] + 2
                while u < high[0] - 2:
                    kinds = (
                        ("truck", "trailer", "bus", "tractor", "small_trailer")
                        if big
                        else ("car", "car", "car", "car", "van", "pickup", "small_trailer")
                    )
                    model = catalogue.of_kind(rng, str(rng.choice(kinds)))
                    u += model.size[1] / 2 + 0.35
                    if rng.random() < 0.55 * placer.parking and model.size[0] < (14 if big else 7):
                        placer.put(
                            model,
                            np.array([u, v]),
                            np.pi / 2 * rng.choice([-1, 1]) + rng.normal(0, 0.02),
                            True,
                        )
                    u += model.size[1] / 2 + 0.45
        else:
            for _ in range(7):  # the yard along the streets
                side = int(rng.integers(4))
                u = low[0] + 6 if side == 0 else high[0] - 6 if side == 1 else rng.uniform(low[0], high[0])
                v = low[1] + 6 if side == 2 else high[1] - 6 if side == 3 else rng.uniform(low[1], high[1])
                model = catalogue.of_kind(
                    rng, str(rng.choice(["truck", "trailer", "trailer", "tractor", "machine", "van"]))
                )
                placer.put(model, np.array([u, v]), np.pi / 2 if side < 2 else 0.0, True)
    elif block.kind == "park":
        for _ in range(10):
            placer.put(
                catalogue.of_kind(rng, "adult", "child"),
                rng.uniform(low, high),
                rng.uniform(-np.pi, np.pi),
                True,
            )
        for _ in range(3):
            placer.put(
                catalogue.of_kind(rng, "parked_bicycle"),
                rng.uniform(low, high),
                rng.uniform(-np.pi, np.pi),
                True,
            )


def furnish(
    city: City, catalogue: Catalogue, rng: np.random.Generator, domain: Domain, legs: list[Leg]
) -> list[StaticActor]:
    """All still objects of a city."""
    placer = Placer(city, catalogue, rng, domain)
    for leg in legs:
        if leg.lane == 0:
            furnish_side(placer, leg)
    for block in city.blocks:
        if all(block.streets):
            furnish_block(placer, block)
    return placer.actors
