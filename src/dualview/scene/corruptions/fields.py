"""Random fields that corruptions are made of: streaks, plasma and snow. All lengths are px."""

from __future__ import annotations

import math

import cv2
import numpy as np

from dualview.scene.corruptions.catalogue import REFERENCE_WIDTH, MotionBlur, Snow


def streak_kernel(blur: MotionBlur, angle: float, scale: float = 1.0) -> np.ndarray:
    """A filter [K, K] float32 (K odd, sum 1): half a Gaussian from the middle in the direction `angle` (rad, y downwards).

    scale: px of the image per px of the parameters. Every px of the streak goes whole to the pixel that it lies in: sharing
    it out among neighbours would blur across the streak too. In larger images a px is a short line, so that no gaps open.
    """
    steps = np.arange(2 * round(blur.radius) + 1)
    parts = 2 * math.ceil(scale) - 1
    within = (np.arange(parts) - parts // 2) / parts
    along = ((steps[:, None] + within) * scale).ravel()
    weight = np.repeat(np.exp(-0.5 * (steps / blur.sigma) ** 2), parts)
    half = math.ceil(float(np.abs(along).max())) + 1
    columns = half + np.floor(along * math.cos(angle) + 0.5).astype(int)
    rows = half + np.floor(along * math.sin(angle) + 0.5).astype(int)
    kernel = np.zeros((2 * half + 1, 2 * half + 1))
    np.add.at(kernel, (rows, columns), weight)
    return (kernel / kernel.sum()).astype(np.float32)


def plasma(size: int, decay: float, random: np.random.Generator) -> np.ndarray:
    """A cloudy field [size, size] float32 in 0..1, periodic in both directions; size: a power of two.

    Midpoint displacement (Fournier, Fussell and Carpenter 1982) on a torus: each octave halves the grid, puts a point into the
    middle of four and shifts it at random, first in the middle of squares, then of the diamonds that these leave. ImageNet-C's
    generator takes its roughness twice when it shifts a point, so with its parameters the shifts of an octave are `decay`
    squared times smaller than those of the octave before.
    """
    if size < 1 or size & (size - 1):
        raise ValueError(f"the size of a plasma field must be a power of two, got {size}")
    field, amplitude = np.zeros((1, 1), np.float32), 1.0
    while len(field) < size:
        count = len(field)

        def shifts(count: int = count, amplitude: float = amplitude) -> np.ndarray:
            return (amplitude * (2 * random.random((count, count), np.float32) - 1)).astype(np.float32)

        below = np.roll(field, -1, 0)
        middle = (field + below + np.roll(field, -1, 1) + np.roll(below, -1, 1)) / 4 + shifts()
        finer = np.empty((2 * count, 2 * count), np.float32)
        finer[0::2, 0::2], finer[1::2, 1::2] = field, middle
        finer[0::2, 1::2] = (field + np.roll(field, -1, 1) + middle + np.roll(middle, 1, 0)) / 4 + shifts()
        finer[1::2, 0::2] = (field + below + middle + np.roll(middle, 1, 1)) / 4 + shifts()
        field, amplitude = finer, amplitude / decay**2
    field -= field.min()
    return field / max(float(field.max()), 1e-12)


def snow_layer(
    image_size: tuple[int, int], snow: Snow, angle: float, random: np.random.Generator
) -> np.ndarray:
    """How much falling flakes brighten each pixel: [height, width] float32 in 0..1 for images of that size.

    Made as wide as the parameters want it and resized, since flakes are points whose size isn't a matter of the image's.
    """
    height, width = image_size
    full = (max(round(height * REFERENCE_WIDTH / width), 1), REFERENCE_WIDTH)
    grains = tuple(int(np.ceil(side / snow.flake)) for side in full)
    noise = snow.mean + snow.deviation * random.standard_normal(grains, np.float32)
    layer = cv2.resize(noise.astype(np.float32), full[::-1], interpolation=cv2.INTER_LINEAR)
    layer = np.where(layer < snow.threshold, np.float32(0), np.clip(layer, 0, 1))
    layer = cv2.filter2D(layer, -1, streak_kernel(snow.streak, angle), borderType=cv2.BORDER_REFLECT)
    if full == image_size:
        return layer
    shrink = cv2.INTER_AREA if width < REFERENCE_WIDTH else cv2.INTER_LINEAR
    return cv2.resize(layer, (width, height), interpolation=shrink)
