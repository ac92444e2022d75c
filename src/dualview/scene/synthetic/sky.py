"""The sky as the six faces of a cube: gradient, sun glow, clouds, haze, and a far skyline on the horizon."""

from __future__ import annotations

import cv2
import numpy as np

from dualview.scene.synthetic.textures import noise


def _directions(face: int, size: int) -> np.ndarray:
    """View directions [size, size, 3] in the world (z up) of the pixels of one cube face: right, left, up, down, front, back.

    The faces follow OpenGL's cube map as MuJoCo turns it: its y axis is the world's z.
    """
    grid = (np.arange(size) + 0.5) / size * 2 - 1
    s, t = np.meshgrid(grid, grid)
    one = np.ones_like(s)
    cube = [(one, -t, -s), (-one, -t, s), (s, one, t), (s, -one, -t), (s, -t, one), (-s, -t, -one)][face]
    x, y, z = cube
    direction = np.stack([x, -z, y], -1)
    return direction / np.linalg.norm(direction, axis=-1, keepdims=True)


def skybox(
    rng: np.random.Generator, zenith: tuple[float, float, float], horizon: tuple[float, float, float], sun: np.ndarray,
    sun_colour: tuple[float, float, float], cloud_cover: float, size: int = 384,
) -> np.ndarray:  # fmt: skip
    """Sky cube, uint8 [6 * size, size, 3]. `sun`: unit direction towards the sun; `cloud_cover` 0..1."""
    clouds = noise(rng, 1024, (6, 12, 24, 48, 96), 0.58)
    wisps = noise(rng, 1024, (10, 20, 40, 80), 0.6)
    bearings = np.linspace(0, 2 * np.pi, 2048, endpoint=False)
    skyline = np.zeros(2048)
    for _ in range(170):  # far houses and towers
        start, width = int(rng.integers(2048)), int(rng.integers(6, 40))
        height = float(rng.gamma(2.0, 0.012)) + 0.006
        index = np.arange(start, start + width) % 2048
        skyline[index] = np.maximum(skyline[index], height)
    hills: np.ndarray = 0.012 + 0.012 * np.sum(
        [np.sin(k * bearings + rng.uniform(0, 6.3)) / k for k in (2, 3, 5, 9)], axis=0
    )
    faces = []
    for face in range(6):
        d = _directions(face, size)
        elevation = np.clip(d[..., 2], -1, 1)
        up = np.clip(elevation, 0, 1)[..., None]
        image = np.asarray(horizon) + (np.asarray(zenith) - np.asarray(horizon)) * (1 - np.exp(-4.2 * up)) / (
            1 - np.exp(-4.2)
        )
        toward_sun = np.clip((d * sun).sum(-1), 0, 1)[..., None]
        glow = 0.30 * toward_sun**8 + 0.45 * toward_sun**64 + 0.9 * toward_sun**1500
        image = image + glow * np.asarray(sun_colour)
        plane = d[..., :2] / np.maximum(d[..., 2:], 0.04)
        u = ((plane * 90 + 300) % 1024).astype(np.float32)
        cover = cv2.remap(clouds, u[..., 0], u[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
        cover = cover + 0.35 * cv2.remap(
            wisps, u[..., 1], u[..., 0], cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP
        )
        density = np.clip((cover + 2.2 * cloud_cover - 1.05) * 1.6, 0, 1)[..., None]
        density = density * np.clip((up - 0.03) * 9, 0, 1)
        bright = np.clip(0.74 + 0.22 * (1 - density) + 0.12 * toward_sun, 0, 1) * np.array([1.0, 1.0, 1.02])
        grey = bright * (1 - 0.35 * cloud_cover) * np.mean(horizon) / 0.82
        image = image * (1 - 0.92 * density) + grey * 0.92 * density
        bearing = ((np.arctan2(d[..., 1], d[..., 0]) / (2 * np.pi)) % 1 * 2048).astype(int) % 2048
        for outline, mix in ((hills, 0.16), (skyline, 0.26)):
            behind = elevation < outline[bearing]
            image[behind] = image[behind] * (1 - mix) + mix * np.array([0.30, 0.34, 0.40])
        image[elevation < 0] = np.asarray(horizon)
        faces.append((np.clip(image, 0, 1) * 255).astype(np.uint8))
    return np.concatenate(faces)
