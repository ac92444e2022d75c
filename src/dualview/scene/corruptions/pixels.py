"""What each corruption does to one image: uint8 [H, W, 3] RGB -> a new one of the same size. Pure functions.

A black image stays black except under brightness, snow and the noise of low light.
"""

from __future__ import annotations

import cv2
import numpy as np

from dualview.scene.corruptions.catalogue import REFERENCE_WIDTH, LowLight, MotionBlur
from dualview.scene.corruptions.fields import streak_kernel

# The benchmark reads its images as BGR and weighs the channels as if they were RGB: red and blue change places.
_GREY = np.array([[0.114, 0.587, 0.299]], np.float32)


def black_out(image: np.ndarray) -> np.ndarray:
    """A crashed camera, a lost frame."""
    return np.zeros_like(image)


def quantize_colors(image: np.ndarray, bits: int) -> np.ndarray:
    """Only the first `bits` bits of each value are kept."""
    return image & np.uint8(0xFF << (8 - bits) & 0xFF)


def blur_by_motion(image: np.ndarray, blur: MotionBlur, angle: float) -> np.ndarray:
    """Every point becomes a streak in the direction `angle` (rad)."""
    kernel = streak_kernel(blur, angle, image.shape[1] / REFERENCE_WIDTH)
    return cv2.filter2D(image, -1, kernel, borderType=cv2.BORDER_REPLICATE)


def brighten(image: np.ndarray, amount: float) -> np.ndarray:
    """The value of HSV raised by `amount` (0..1), hue and saturation kept."""
    values = image.astype(np.float32)
    value = values.max(-1, keepdims=True)
    raised = np.minimum(value + 255 * amount, 255)
    # with hue and saturation kept the channels keep their ratios; black has neither and becomes grey
    return _rounded(np.where(value > 0, values * (raised / np.maximum(value, 1)), raised))


def darken(image: np.ndarray, light: LowLight, random: np.random.Generator) -> np.ndarray:
    """Contrast stretched, squared and cut to `light.ceiling`, then photon noise and the sensor's own noise.

    A pixel of a smaller image has gathered more light: its noise is that of the mean of the pixels it stands for.
    """
    area = (REFERENCE_WIDTH / image.shape[1]) ** 2
    low, high = int(image.min()), int(image.max())
    table = np.clip((np.arange(256) - low) / max(high - low, 1), 0, 1) ** 2 * light.ceiling
    photons = light.photons * area
    seen = np.clip(random.poisson((table * photons)[image]) / photons, 0, 1).astype(np.float32)
    noise = random.standard_normal(image.shape, np.float32) * np.float32(light.noise / np.sqrt(area))
    return _rounded(255 * (seen + noise))


def add_fog(image: np.ndarray, amount: float, thickness: np.ndarray) -> np.ndarray:
    """`thickness` [H, W] (0..1) times `amount` added, then everything scaled so that the brightest possible pixel stays what
    it was.
    """
    values = image.astype(np.float32)
    top = float(values.max())
    return _rounded((values + 255 * amount * thickness[..., None]) * (top / (top + 255 * amount)))


def add_snow(image: np.ndarray, mix: float, layer: np.ndarray) -> np.ndarray:
    """The image whitened, under flakes `layer` [H, W] (0..1) and the same flakes seen upside down."""
    values = image.astype(np.float32)
    white = cv2.transform(values, _GREY).reshape(*image.shape[:2], 1) * 1.5 + 127.5
    values = mix * values + (1 - mix) * np.maximum(values, white)
    return _rounded(values + 255 * (layer + layer[::-1, ::-1])[..., None])


def _rounded(values: np.ndarray) -> np.ndarray:
    return np.clip(values + 0.5, 0, 255).astype(np.uint8)
