"""A constant-velocity Kalman filter for the tracker: what several frames say of where an object is and how fast.

Cameras tell the speed of an object badly from one or two frames; its places over a few frames tell it better (AB3DMOT: Weng et
al. 2020). State and noise are alike along world x and y and independent, so three numbers are the whole covariance. Values and
functions: a motion in, a motion out, float64.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

# Standard deviation (m/s2) of what changes an object's velocity; objects of the last two classes don't move at all.
ACCELERATIONS = {
    "car": 1.0, "truck": 0.75, "bus": 0.75, "trailer": 0.5, "pedestrian": 0.25, "motorcycle": 1.0, "bicycle": 0.5,
    "construction_vehicle": 0.25, "barrier": 0.0, "traffic_cone": 0.0,
}  # fmt: skip
_OTHER_ACCELERATION = 0.5
_STANDING_VARIANCE = 1e-4  # (m/s)2, of what can't move


@dataclass(frozen=True)
class MotionFilterConfig:
    """Standard deviations of a detection: place_error (m) near the vehicle, and so much more per metre of distance;
    velocity_error (m/s) of the velocity that the network gives at first, velocity_error_again of those that it gives of the same
    object later, which weigh less because a network that is wrong once is wrong again. agility: factor on all `ACCELERATIONS`.
    smoothing: share of the filtered place in the one that is reported (0: where it was detected). Errors of a network aren't independent
    from frame to frame, as the filter takes them to be, so half of each is better than either.
    """

    place_error: float = 0.3
    place_error_per_meter: float = 0.015
    velocity_error: float = 2.0
    velocity_error_again: float = 3.5
    agility: float = 1.0
    smoothing: float = 0.0

    def __post_init__(self) -> None:
        if min(self.place_error, self.velocity_error, self.velocity_error_again) <= 0 or min(self.place_error_per_meter, self.agility) < 0:
            raise ValueError(f"{self}: the errors must be above 0, place_error_per_meter and agility not below")
        if not 0.0 <= self.smoothing <= 1.0:
            raise ValueError(f"tracking.motion.smoothing {self.smoothing} must lie in 0..1")


@dataclass(frozen=True)
class Motion:
    """K objects. place [K, 2] m and velocity [K, 2] m/s over ground, world frame; of either axis the variances of place
    [K] and velocity [K] and their covariance `mixed` [K].
    """

    place: Tensor
    velocity: Tensor
    place_variance: Tensor
    mixed: Tensor
    velocity_variance: Tensor

    @staticmethod
    def empty() -> Motion:
        """No objects."""
        pairs, numbers = torch.zeros(0, 2, dtype=torch.float64), torch.zeros(0, dtype=torch.float64)
        return Motion(pairs, pairs, numbers, numbers, numbers)

    def __getitem__(self, index: Tensor) -> Motion:
        """The objects that a mask or an index tensor picks."""
        return Motion(**{f.name: getattr(self, f.name)[index] for f in fields(self)})

    def updated(self, which: Tensor, by: Motion) -> Motion:
        """These objects, in which those of a mask are replaced."""
        changed = {f.name: getattr(self, f.name).clone() for f in fields(self)}
        for name, value in changed.items():
            value[which] = getattr(by, name)
        return Motion(**changed)

    def joined(self, other: Motion) -> Motion:
        """These objects, then the others."""
        names = [f.name for f in fields(self)]
        return Motion(**{name: torch.cat([getattr(self, name), getattr(other, name)]) for name in names})


def observed(
    place: Tensor, velocity: Tensor, distance: Tensor, moves: Tensor, again: Tensor, config: MotionFilterConfig
) -> Motion:
    """What one detection each says: place [K, 2] m, velocity [K, 2] m/s, distance [K] m from the vehicle. Those that can't move
    (`moves` False [K]) stand still, whatever the network says. again [K]: the object was seen before.
    """
    velocity_error = torch.where(again, config.velocity_error_again, config.velocity_error).double()
    error = config.place_error + config.place_error_per_meter * distance.double()
    return Motion(
        place.double(),
        torch.where(moves[:, None], velocity.double(), 0.0),
        error.square(),
        torch.zeros_like(error),
        torch.where(moves, velocity_error.square(), _STANDING_VARIANCE),
    )


def predicted(motion: Motion, seconds: float, acceleration: Tensor) -> Motion:
    """The same objects `seconds` later; acceleration [K] m/s2 is constant meanwhile, and unknown."""
    noise = acceleration.double().square()
    place, mixed, velocity = motion.place_variance, motion.mixed, motion.velocity_variance
    return Motion(
        motion.place + seconds * motion.velocity,
        motion.velocity,
        place + 2 * seconds * mixed + seconds**2 * velocity + noise * seconds**4 / 4,
        mixed + seconds * velocity + noise * seconds**3 / 2,
        velocity + noise * seconds**2,
    )


def corrected(motion: Motion, seen: Motion) -> Motion:
    """The objects after one detection each: first its place, then its velocity, two independent measurements."""
    gain = motion.place_variance / (motion.place_variance + seen.place_variance)
    velocity_gain = motion.mixed / (motion.place_variance + seen.place_variance)
    off = seen.place - motion.place
    place, velocity = motion.place + gain[:, None] * off, motion.velocity + velocity_gain[:, None] * off
    place_variance = (1 - gain) * motion.place_variance
    mixed = (1 - gain) * motion.mixed
    velocity_variance = motion.velocity_variance - velocity_gain * motion.mixed

    place_gain = mixed / (velocity_variance + seen.velocity_variance)
    gain = velocity_variance / (velocity_variance + seen.velocity_variance)
    off = seen.velocity - velocity
    return Motion(
        place + place_gain[:, None] * off,
        velocity + gain[:, None] * off,
        place_variance - place_gain * mixed,
        (1 - gain) * mixed,
        (1 - gain) * velocity_variance,
    )


def accelerations(class_names: tuple[str, ...]) -> Tensor:
    """float64 [classes], m/s2; 0: objects of this class don't move."""
    return torch.tensor([ACCELERATIONS.get(name, _OTHER_ACCELERATION) for name in class_names], dtype=torch.float64)

