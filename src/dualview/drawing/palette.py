"""Colours, RGB 0..255, one place for all pictures."""

from __future__ import annotations

Color = tuple[int, int, int]

BACKGROUND: Color = (13, 17, 23)
PANEL: Color = (22, 27, 34)
GRID: Color = (48, 56, 66)
INK: Color = (230, 237, 243)
FAINT: Color = (139, 148, 158)
TRUTH: Color = (255, 255, 255)
WARNING: Color = (255, 123, 114)

CLASS_COLORS: dict[str, Color] = {
    "car": (82, 170, 255),
    "truck": (255, 166, 87),
    "bus": (255, 214, 80),
    "trailer": (214, 140, 60),
    "construction_vehicle": (200, 200, 90),
    "pedestrian": (255, 110, 160),
    "motorcycle": (190, 130, 255),
    "bicycle": (120, 230, 150),
    "traffic_cone": (255, 110, 70),
    "barrier": (150, 165, 180),
}
_SPARE: tuple[Color, ...] = (
    (64, 224, 208),
    (240, 128, 128),
    (173, 216, 230),
    (222, 184, 135),
    (152, 251, 152),
)


def class_color(name: str) -> Color:
    """The colour of a class; classes that we don't know get one of a few by their name, always the same."""
    return CLASS_COLORS.get(name) or _SPARE[sum(name.encode()) % len(_SPARE)]


def faded(color: Color, share: float, towards: Color = BACKGROUND) -> Color:
    """`color` mixed with `towards`: share 1 is the colour itself, 0 the other."""
    red, green, blue = (round(share * c + (1 - share) * t) for c, t in zip(color, towards, strict=True))
    return red, green, blue
