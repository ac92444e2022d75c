"""Procedural house fronts. A facade picture covers a fixed number of bays and storeys and tiles in both directions."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from dualview.scene.synthetic.textures import noise, tinted

BAYS, STOREYS = 4, 4  # of one facade picture
SIZE = 512


@dataclass(frozen=True)
class FacadeStyle:
    """How a wall looks. Fractions are of a bay's width or a storey's height."""

    wall: tuple[float, float, float]
    material: str  # brick, plaster, concrete, curtain
    window: tuple[float, float]  # width, height
    frame: tuple[float, float, float]
    panes: tuple[int, int]
    glass: tuple[float, float, float]
    balcony: bool = False
    shutters: bool = False


def random_style(
    rng: np.random.Generator,
    palette: tuple[tuple[float, float, float], ...],
    glass: tuple[float, float, float],
) -> FacadeStyle:
    """A random wall from a palette of wall colours."""
    material = str(rng.choice(["brick", "plaster", "plaster", "concrete", "curtain"]))
    wall = palette[int(rng.integers(len(palette)))]
    red, green, blue = (float(np.clip(c * rng.uniform(0.85, 1.1), 0, 1)) for c in wall)
    wall = (red, green, blue)
    if material == "brick":
        wall = ((0.52, 0.27, 0.20), (0.60, 0.38, 0.28), (0.45, 0.30, 0.25), (0.66, 0.56, 0.44))[
            int(rng.integers(4))
        ]
    if material == "curtain":
        wall = ((0.30, 0.33, 0.36), (0.22, 0.26, 0.30), (0.55, 0.57, 0.58))[int(rng.integers(3))]
    width = rng.uniform(0.88, 0.96) if material == "curtain" else rng.uniform(0.34, 0.72)
    height = rng.uniform(0.72, 0.92) if material == "curtain" else rng.uniform(0.46, 0.64)
    frame = ((0.93, 0.93, 0.91), (0.25, 0.25, 0.26), (0.45, 0.34, 0.25), (0.80, 0.78, 0.72))[
        int(rng.integers(4))
    ]
    panes = ((1, 1), (2, 1), (2, 2), (3, 1))[int(rng.integers(4))]
    plain = material in ("plaster", "brick")
    return FacadeStyle(
        wall,
        material,
        (width, height),
        frame,
        panes,
        glass,
        plain and rng.random() < 0.25,
        plain and rng.random() < 0.25,
    )


def _wall(rng: np.random.Generator, style: FacadeStyle) -> np.ndarray:
    shade = 0.6 * noise(rng, SIZE, (2, 4, 8)) + 0.15 * rng.normal(0, 1, (SIZE, SIZE)).astype(np.float32)
    image = tinted(style.wall, shade, 0.10, noise(rng, SIZE, (2, 4)))
    if style.material == "brick":
        for row, y in enumerate(range(0, SIZE, 8)):
            cv2.line(image, (0, y), (SIZE, y), tuple(int(255 * min(1, c * 1.22)) for c in style.wall), 1)
            for x in range(8 * (row % 2), SIZE, 16):
                cv2.line(image, (x, y), (x, y + 8), tuple(int(255 * min(1, c * 1.18)) for c in style.wall), 1)
                if rng.random() < 0.25:
                    image[y + 1 : y + 8, x + 1 : x + 16] = np.clip(
                        image[y + 1 : y + 8, x + 1 : x + 16] * rng.uniform(0.8, 1.12), 0, 255
                    )
    elif style.material == "concrete":
        for x in np.linspace(0, SIZE, BAYS + 1):
            cv2.line(image, (int(x), 0), (int(x), SIZE), tuple(int(200 * c) for c in style.wall), 2)
        for y in np.linspace(0, SIZE, STOREYS + 1):
            cv2.line(image, (0, int(y)), (SIZE, int(y)), tuple(int(190 * c) for c in style.wall), 3)
    return image


def _window(
    rng: np.random.Generator, image: np.ndarray, x0: int, y0: int, x1: int, y1: int, style: FacadeStyle
) -> None:
    """One window: reveal, reflecting glass, curtains or light, frame, sill."""
    cv2.rectangle(image, (x0 - 3, y0 - 3), (x1 + 3, y1 + 3), tuple(int(140 * c) for c in style.wall), -1)
    rows = np.linspace(0, 1, y1 - y0, dtype=np.float32)[:, None, None]
    tone = np.asarray(style.glass, np.float32) * rng.uniform(0.55, 1.0)
    glass = tone * (0.95 - 0.5 * rows) * np.ones((1, x1 - x0, 1), np.float32)
    if rng.random() < 0.12:
        glass = glass * 0.4 + np.array([0.75, 0.60, 0.35], np.float32) * 0.6
    image[y0:y1, x0:x1] = (np.clip(glass, 0, 1) * 255).astype(np.uint8)
    if style.material != "curtain" and rng.random() < 0.55:
        curtain = int((x1 - x0) * rng.uniform(0.12, 0.30))
        colour = (np.array([0.80, 0.78, 0.72]) * 255 * rng.uniform(0.5, 0.9)).astype(np.uint8)
        image[y0:y1, x0 : x0 + curtain] = colour
        image[y0:y1, x1 - curtain : x1] = colour
    elif rng.random() < 0.25:
        image[y0 : y0 + int((y1 - y0) * rng.uniform(0.2, 0.8)), x0:x1] = (
            np.array([0.72, 0.72, 0.70]) * 200
        ).astype(np.uint8)
    frame = tuple(int(255 * c) for c in style.frame)
    cv2.rectangle(image, (x0, y0), (x1, y1), frame, 2)
    for i in range(1, style.panes[0]):
        x = x0 + (x1 - x0) * i // style.panes[0]
        cv2.line(image, (x, y0), (x, y1), frame, 2)
    for i in range(1, style.panes[1]):
        y = y0 + (y1 - y0) * i // style.panes[1]
        cv2.line(image, (x0, y), (x1, y), frame, 2)


def facade(rng: np.random.Generator, style: FacadeStyle) -> np.ndarray:
    """Upper storeys of a house front, uint8 [512, 512, 3]."""
    image = _wall(rng, style)
    bay, storey = SIZE // BAYS, SIZE // STOREYS
    width, height = int(bay * style.window[0]), int(storey * style.window[1])
    for row in range(STOREYS):
        for column in range(BAYS):
            x0, y0 = (
                column * bay + (bay - width) // 2,
                row * storey + (storey - height) // 2 - (0 if style.material == "curtain" else 6),
            )
            _window(rng, image, x0, max(y0, 4), x0 + width, max(y0, 4) + height, style)
            base = max(y0, 4) + height
            if style.material != "curtain":
                cv2.rectangle(
                    image,
                    (x0 - 6, base + 2),
                    (x0 + width + 6, base + 7),
                    tuple(int(255 * min(1, c * 1.2)) for c in style.wall),
                    -1,
                )
            if style.shutters:
                for edge in (x0 - width // 3, x0 + width):
                    shutter = tuple(int(255 * c) for c in (0.22, 0.38, 0.32))
                    cv2.rectangle(image, (edge, max(y0, 4)), (edge + width // 3, base), shutter, -1)
                    for y in range(max(y0, 4) + 3, base, 5):
                        cv2.line(
                            image,
                            (edge + 2, y),
                            (edge + width // 3 - 2, y),
                            tuple(int(c * 0.75) for c in shutter),
                            1,
                        )
            if style.balcony and (row + column) % 2 == 0:
                cv2.rectangle(image, (x0 - 14, base - 22), (x0 + width + 14, base + 12), (70, 72, 75), 2)
                for x in range(x0 - 14, x0 + width + 14, 6):
                    cv2.line(image, (x, base - 22), (x, base + 8), (70, 72, 75), 1)
                cv2.rectangle(image, (x0 - 16, base + 8), (x0 + width + 16, base + 15), (150, 150, 148), -1)
    return image


def ground_floor(rng: np.random.Generator, style: FacadeStyle, shop: bool) -> np.ndarray:
    """The ground floor of a house front: shop windows with signs, or doors and windows; uint8 [256, 512, 3]."""
    image = cv2.resize(_wall(rng, style), (512, 512))[:256].copy()
    for x0, x1 in ((14, 166), (182, 334), (350, 498)):
        door = rng.random() < 0.35
        if shop:
            colour = tuple(int(c) for c in rng.integers(40, 220, 3))
            cv2.rectangle(image, (x0, 22), (x1, 66), colour, -1)
            bright = (240, 240, 235) if sum(colour) < 400 else (30, 30, 35)
            at = x0 + 16
            while at < x1 - 26:  # a name that nobody can read
                step = int(rng.integers(8, 18))
                cv2.rectangle(image, (at, 34), (at + step - 5, 54), bright, -1 if rng.random() < 0.5 else 3)
                at += step + 2
            _window(
                rng,
                image,
                x0,
                76,
                x1,
                226,
                FacadeStyle(style.wall, "curtain", (1, 1), (0.2, 0.2, 0.2), (2, 1), style.glass),
            )
            for _ in range(6):  # goods behind the glass
                gx, gy = int(rng.integers(x0 + 5, x1 - 22)), int(rng.integers(130, 200))
                cv2.rectangle(
                    image,
                    (gx, gy),
                    (gx + int(rng.integers(8, 20)), 222),
                    tuple(int(c) for c in rng.integers(50, 190, 3)),
                    -1,
                )
            if rng.random() < 0.4:
                for i, x in enumerate(range(x0 - 4, x1 + 4, 12)):
                    cv2.rectangle(
                        image, (x, 66), (min(x + 12, x1 + 4), 96), colour if i % 2 else (235, 233, 228), -1
                    )
        elif door:
            middle = (x0 + x1) // 2
            wood = ((90, 55, 35), (40, 70, 60), (120, 30, 30), (50, 55, 65))[int(rng.integers(4))]
            cv2.rectangle(image, (middle - 40, 60), (middle + 40, 256), (200, 198, 190), -1)
            cv2.rectangle(image, (middle - 32, 68), (middle + 32, 256), wood, -1)
            cv2.rectangle(image, (middle - 22, 80), (middle + 22, 130), (70, 85, 95), -1)
            cv2.circle(image, (middle + 24, 175), 4, (210, 190, 110), -1)
        else:
            _window(rng, image, x0 + 26, 64, x1 - 26, 176, style)
    image[232:] = (image[232:] * 0.72).astype(np.uint8)
    return image


def roof_tiles(rng: np.random.Generator, base: tuple[float, float, float]) -> np.ndarray:
    """Rows of roof tiles, uint8 [256, 256, 3]."""
    image = tinted(base, noise(rng, 256, (4, 8, 16)), 0.18)
    for y in range(0, 256, 16):
        cv2.line(image, (0, y), (256, y), tuple(int(150 * c) for c in base), 2)
        for x in range(0 if (y // 16) % 2 else 8, 256, 16):
            cv2.line(image, (x, y), (x, y + 16), tuple(int(190 * c) for c in base), 1)
    return image
