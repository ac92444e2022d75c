"""Procedural pictures for surfaces: noise, ground, leaves, paint, glass. All uint8 [H, W, 3] RGB; ground and walls tile seamlessly."""

from __future__ import annotations

import cv2
import numpy as np


def noise(
    rng: np.random.Generator,
    size: int,
    octaves: tuple[int, ...] = (4, 8, 16, 32, 64),
    persistence: float = 0.6,
) -> np.ndarray:
    """Tileable fractal value noise [size, size] in about -1..1; `octaves` are lattice counts."""
    total = np.zeros((size, size), np.float32)
    amplitude, norm = 1.0, 0.0
    for cells in octaves:
        lattice = rng.uniform(-1, 1, (cells, cells)).astype(np.float32)
        pad = np.pad(lattice, 3, mode="wrap")
        scale = size / cells
        grid = (np.arange(size, dtype=np.float32) + 0.5) / scale + 2.5
        u, v = np.meshgrid(grid, grid)
        total += amplitude * cv2.remap(pad, u, v, cv2.INTER_CUBIC)
        norm += amplitude
        amplitude *= persistence
    return total / norm * 1.6


def tinted(
    base: tuple[float, float, float], shade: np.ndarray, strength: float, warm: np.ndarray | None = None
) -> np.ndarray:
    """A colour (0..1) modulated by `shade` (about -1..1), optionally drifting between warm and cold; uint8."""
    image = np.asarray(base, np.float32) * (1 + strength * shade[..., None])
    if warm is not None:
        image = image * (1 + warm[..., None] * np.array([0.06, 0.01, -0.06], np.float32))
    return (np.clip(image, 0, 1) * 255).astype(np.uint8)


def asphalt(rng: np.random.Generator, base: tuple[float, float, float], size: int = 1024) -> np.ndarray:
    """Asphalt: grain, worn tracks, cracks, patches. The tile is meant to span some 12 m."""
    grain = rng.normal(0, 1, (size, size)).astype(np.float32)
    shade = (
        0.55 * noise(rng, size, (3, 6, 12, 24))
        + 0.28 * cv2.GaussianBlur(grain, (0, 0), 0.8) * 1.6
        + 0.06 * grain
    )
    image = tinted(base, shade, 0.16, noise(rng, size, (2, 4)))
    for _ in range(7):  # cracks, sealed with tar here and there
        point = rng.uniform(0, size, 2)
        heading = rng.uniform(0, 2 * np.pi)
        dark = 255 * rng.uniform(0.55, 0.8)
        colour = tuple(int(dark * c) for c in base)
        width = int(rng.integers(1, 4))
        for _ in range(int(rng.integers(20, 70))):
            heading += rng.normal(0, 0.35)
            following = point + 9 * np.array([np.cos(heading), np.sin(heading)])
            cv2.line(
                image,
                tuple(int(p) for p in point),
                tuple(int(p) for p in following),
                colour,
                width,
                cv2.LINE_AA,
            )
            point = following
    return image


def paving(
    rng: np.random.Generator,
    base: tuple[float, float, float],
    cells: int = 8,
    size: int = 512,
    staggered: bool = False,
) -> np.ndarray:
    """Paving slabs with joints; each slab has its own shade."""
    image = tinted(
        base, noise(rng, size) * 0.5 + rng.normal(0, 0.4, (size, size)).astype(np.float32) * 0.4, 0.12
    )
    step = size // cells
    for row in range(cells):
        shift = step // 2 if staggered and row % 2 else 0
        for column in range(cells + 1):
            x0, y0 = column * step - shift, row * step
            part = image[y0 : y0 + step, max(x0, 0) : x0 + step]
            part[:] = np.clip(part * rng.uniform(0.90, 1.08), 0, 255).astype(np.uint8)
            cv2.rectangle(image, (x0, y0), (x0 + step, y0 + step), tuple(int(170 * c) for c in base), 2)
    return image


def grass(rng: np.random.Generator, base: tuple[float, float, float], size: int = 512) -> np.ndarray:
    """Lawn or scrub."""
    blades = cv2.GaussianBlur(rng.normal(0, 1, (size, size)).astype(np.float32), (0, 0), 1.0) * 2.0
    return tinted(base, 0.5 * noise(rng, size, (4, 9, 20)) + 0.5 * blades, 0.32, 2 * noise(rng, size, (3, 7)))


def soil(rng: np.random.Generator, base: tuple[float, float, float], size: int = 512) -> np.ndarray:
    """Gravel and earth."""
    stones = cv2.GaussianBlur(rng.normal(0, 1, (size, size)).astype(np.float32), (0, 0), 1.6) * 2.6
    return tinted(base, 0.5 * noise(rng, size, (4, 8, 16)) + 0.45 * stones, 0.28, noise(rng, size, (3, 6)))


def foliage(rng: np.random.Generator, base: tuple[float, float, float], size: int = 256) -> np.ndarray:
    """Leaves: thousands of small strokes from dark to light."""
    image = np.empty((size, size, 3), np.uint8)
    image[:] = [int(255 * 0.42 * c) for c in base]
    for depth in np.linspace(0.45, 1.25, 2600):
        x, y = rng.integers(0, size, 2)
        shade = depth * rng.uniform(0.85, 1.15)
        colour = tuple(
            int(np.clip(255 * c * shade * w, 0, 255))
            for c, w in zip(base, rng.uniform(0.9, 1.1, 3), strict=True)
        )
        axes = (int(rng.integers(3, 7)), int(rng.integers(2, 4)))
        for dx in (0, -size, size):
            if -8 < x + dx < size + 8:
                cv2.ellipse(
                    image, (int(x + dx), int(y)), axes, float(rng.uniform(0, 180)), 0, 360, colour, -1
                )
    return image


def bark(rng: np.random.Generator) -> np.ndarray:
    """Tree bark."""
    streaks = cv2.resize(
        rng.normal(0, 1, (16, 128)).astype(np.float32), (128, 128), interpolation=cv2.INTER_CUBIC
    )
    return tinted((0.36, 0.29, 0.22), streaks, 0.22)


def car_side(rng: np.random.Generator, doors: str, size: int = 512) -> np.ndarray:
    """White paint with door seams, darker towards the sill; row 0 is plain (for everything that isn't a side), the bottom is dirt."""
    image = np.full((size, size, 3), 255, np.uint8)
    seams = {
        "sedan": (0.24, 0.46, 0.70), "hatch": (0.24, 0.47, 0.70), "coupe": (0.36, 0.70), "van": (0.30, 0.52, 0.74),
    }[doors]  # fmt: skip
    top, bottom = int(0.09 * size), int(0.72 * size)
    for x in seams:
        cv2.line(image, (int(x * size), top), (int((x + 0.008) * size), bottom), (95, 95, 98), 2, cv2.LINE_AA)
    cv2.line(
        image,
        (int(seams[0] * size), bottom),
        (int(seams[-1] * size), bottom),
        (110, 110, 112),
        2,
        cv2.LINE_AA,
    )
    crease = int(0.30 * size)
    cv2.line(
        image, (int(0.06 * size), crease), (int(0.94 * size), crease + 4), (205, 205, 206), 5, cv2.LINE_AA
    )
    cv2.line(
        image, (int(0.06 * size), crease - 7), (int(0.94 * size), crease - 3), (255, 255, 255), 4, cv2.LINE_AA
    )
    cv2.rectangle(
        image, (int(0.17 * size), int(0.14 * size)), (int(0.20 * size), int(0.22 * size)), (200, 200, 202), 1
    )
    fade = np.ones(size, np.float32)
    rows = np.linspace(0, 1, size)
    fade[:] = 1.0 - 0.42 * np.clip((rows - 0.45) / 0.5, 0, 1) ** 1.5
    dirt = 1 + 0.03 * noise(rng, size, (4, 8, 16)) * np.clip(rows * 2, 0, 1)[:, None]
    return np.clip(image * fade[:, None, None] * dirt[..., None], 0, 255).astype(np.uint8)


def window_glass(rng: np.random.Generator, sky: tuple[float, float, float]) -> np.ndarray:
    """Car glass: reflects the sky above and the dark of the street below, with a faint skyline between."""
    size = 128
    rows = np.linspace(0, 1, size, dtype=np.float32)[:, None, None]
    top, low = 0.35 + 0.4 * np.asarray(sky, np.float32), np.array([0.06, 0.07, 0.08], np.float32)
    image = np.broadcast_to(low + (top - low) * np.clip(1.0 - 1.25 * rows, 0, 1), (size, size, 3)).copy()
    skyline = 0.30 + 0.12 * np.cumsum(rng.normal(0, 0.12, size)).clip(-1, 1)
    image[np.linspace(0, 1, size)[:, None] > skyline[None]] *= 0.72
    return (np.clip(image, 0, 1) * 255).astype(np.uint8)
