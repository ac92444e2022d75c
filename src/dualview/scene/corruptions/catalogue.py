"""Which corruptions there are, and how strong each is at its three severities.

Parameters are RoboBEV's (Xie et al. 2023, arXiv 2304.06719, which picks three of five levels for each corruption);
those of motion blur, brightness, fog and snow come from ImageNet-C (Hendrycks and Dietterich 2019, arXiv 1903.12261).
Each table below is in the order of `SEVERITIES`.
"""

from __future__ import annotations

from dataclasses import dataclass

CORRUPTIONS = (
    "camera_crash", "frame_lost", "color_quant", "motion_blur", "brightness", "low_light", "fog", "snow",
)  # fmt: skip
SEVERITIES = ("easy", "moderate", "hard")
TITLES = {
    "camera_crash": "Camera crash", "frame_lost": "Frame lost", "color_quant": "Color quantization",
    "motion_blur": "Motion blur", "brightness": "Brightness", "low_light": "Low light", "fog": "Fog", "snow": "Snow",
}  # fmt: skip

REFERENCE_WIDTH = 1600  # px: the images that the parameters were chosen for
REFERENCE_CAMERAS = 6


@dataclass(frozen=True)
class MotionBlur:
    """A one-sided Gaussian streak: 2 * radius px long, standard deviation sigma px."""

    radius: float
    sigma: float


@dataclass(frozen=True)
class LowLight:
    """ceiling: the brightest value that is left (0..1); photons: a full pixel's mean count; noise: standard deviation of the
    sensor's own noise (0..1).
    """

    ceiling: float
    photons: float
    noise: float


@dataclass(frozen=True)
class Fog:
    """amount: how much is added where the fog is thickest (1 = white); decay: how fast its structure fades with finer scales."""

    amount: float
    decay: float


@dataclass(frozen=True)
class Snow:
    """Flakes are where noise of this mean and deviation, `flake` px a grain, exceeds `threshold`; `streak` is their motion
    blur; `mix`: how much of the clear image is left, the rest is whitened.
    """

    mean: float
    deviation: float
    flake: float
    threshold: float
    streak: MotionBlur
    mix: float


CRASHED_CAMERAS = (2, 4, 5)  # draws with replacement among six cameras: fewer cameras may be hit
LOST_SHARE = (2 / 6, 4 / 6, 5 / 6)  # probability that an image is lost
COLOR_BITS = (4, 3, 2)
MOTION_BLUR = (MotionBlur(15, 5), MotionBlur(15, 12), MotionBlur(20, 15))
BRIGHTNESS = (0.2, 0.4, 0.5)
LOW_LIGHT = (LowLight(0.4, 120, 0.018), LowLight(0.3, 50, 0.026), LowLight(0.2, 30, 0.038))
FOG = (Fog(2.0, 2.0), Fog(2.5, 1.5), Fog(3.0, 1.4))
SNOW = (
    Snow(0.1, 0.3, 3, 0.5, MotionBlur(10, 4), 0.8),
    Snow(0.2, 0.3, 2, 0.5, MotionBlur(12, 4), 0.7),
    Snow(0.55, 0.3, 4, 0.9, MotionBlur(12, 8), 0.7),
)
