"""The choices of RayD3D (arXiv 2603.07493), ray-based distillation, in one place.

The paper fixes the number of negatives, their Gaussian, the temperature 0.07, the form of the losses and their
weight 1. All else is open there; the defaults are this project's reading, the other values the other readings. Of what stands in
the code alone: objects are their boxes' cells (`box_cells.py`), a positive is any of them on the ray, KL is of the teacher's
shares to the student's, and what lies between the maps is `networks/distillation_adapter.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

# A map of 256 cells a side has 1600 half cells at its border; more than this fills the memory.
_MOST_RAYS, _SMALLEST_STEP = 20_000, 0.05


@dataclass(frozen=True)
class RayConfig:
    """Rays. ray_count: rays of a map. ray_step: distance of samples along a ray, cells. origin: "camera_mean":
    one fan from the mean of the cameras' centres; "per_camera": one fan a camera, over its horizontal field of
    view, which share `ray_count`; "frame": one fan from the frame's origin.

    Contrastive term (RCD). contrastive_weight: 0 = off. negatives: of each ray. negative_draw: "gaussian" around
    the positive with deviation `sigma` (cells), or "uniform" (Table 5, "random"). region: odd side of the square
    whose mean is compared, cells. teacher_side: negatives of the teacher's map too. contrastive_temperature;
    xi: added to the denominator. normalize_regions: compare directions, not raw dot products (which overflow).
    contrastive_log: "outer": log of the mean over rays, equation 4 as printed; "inner": mean of logs.

    Weighted term (RWD). weighted_weight: 0 = off. activation_temperature: of the softmax of mean |features|.
    measure: of the difference along a ray (Table 6). renormalize: activations along a ray sum to 1; without it
    the map's softmax is compared as it is. epsilon: inside the logarithms. background: factor on the weight of
    cells without object. detach_weight: no gradient through the weights. channel_reduction: of |L - C|; the mean
    over hundreds of channels has a gradient that is small beside detection's (tools/gradient_shares.py shows it), the sum has not.
    standardize: each channel of both maps to mean 0 and deviation 1 first, for maps of unlike scale.
    """

    ray_count: int = 720
    ray_step: float = 0.5
    origin: Literal["camera_mean", "per_camera", "frame"] = "camera_mean"

    contrastive_weight: float = 1.0
    negatives: int = 5
    negative_draw: Literal["gaussian", "uniform"] = "gaussian"
    sigma: float = 5.0
    region: int = 3
    teacher_side: bool = True
    contrastive_temperature: float = 0.07
    xi: float = 1e-6
    normalize_regions: bool = True
    contrastive_log: Literal["outer", "inner"] = "outer"

    weighted_weight: float = 1.0
    activation_temperature: float = 0.07
    measure: Literal["kl", "js", "cosine"] = "kl"
    renormalize: bool = True
    epsilon: float = 1e-8
    background: float = 0.1
    detach_weight: bool = True
    channel_reduction: Literal["mean", "sum"] = "mean"
    standardize: bool = False

    def __post_init__(self) -> None:
        if self.region < 1 or self.region % 2 == 0:
            raise ValueError(f"region is {self.region} cells: give an odd number, so that it has a middle")
        if self.ray_count < 1 or self.negatives < 1:
            raise ValueError(f"{self.ray_count} rays and {self.negatives} negatives: give 1 or more of each")
        if self.ray_count > _MOST_RAYS or 0 < self.ray_step < _SMALLEST_STEP:
            raise ValueError(
                f"ray_count {self.ray_count} and ray_step {self.ray_step}: at most {_MOST_RAYS} rays, and steps of {_SMALLEST_STEP} "
                "cells or more; a ray for every half cell at the border is enough (360 on 64 cells)"
            )
        for name in (
            "ray_step",
            "sigma",
            "contrastive_temperature",
            "activation_temperature",
            "xi",
            "epsilon",
        ):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} is {getattr(self, name)}: give a positive number")
        if min(self.contrastive_weight, self.weighted_weight, self.background) < 0:
            raise ValueError(f"{self}: weights and background must be 0 (off) or more")
        if not self.contrastive_weight and not self.weighted_weight:
            raise ValueError("both terms of rays have weight 0: turn rays off (rays: null), or give one a weight")
