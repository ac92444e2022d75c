"""The whole catalogue of a world: every shape of all ten classes."""

from __future__ import annotations

import numpy as np

from dualview.scene.synthetic.buses import add_buses
from dualview.scene.synthetic.cars import add_cars
from dualview.scene.synthetic.heavy_vehicles import add_heavy_vehicles
from dualview.scene.synthetic.object_model import Catalogue
from dualview.scene.synthetic.palette import Palette
from dualview.scene.synthetic.people import add_people
from dualview.scene.synthetic.road_works import add_road_works
from dualview.scene.synthetic.trailers import add_trailers
from dualview.scene.synthetic.two_wheelers import add_two_wheelers


def build_catalogue(seed: int, size_factor: float = 1.0) -> Catalogue:
    """All shapes, drawn from `seed`; `size_factor` makes everything larger or smaller."""
    catalogue = Catalogue(Palette(), np.random.default_rng([seed, 1]), size_factor)
    for add in (
        add_cars,
        add_heavy_vehicles,
        add_trailers,
        add_buses,
        add_two_wheelers,
        add_people,
        add_road_works,
    ):
        add(catalogue)
    return catalogue
