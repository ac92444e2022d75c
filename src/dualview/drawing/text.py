"""Words on pictures: collected while drawing, laid over all at once."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from dualview.drawing.palette import INK, Color


@functools.cache
def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own scalable font, so that pictures look the same on every machine."""
    return ImageFont.load_default(size)


@dataclass(frozen=True)
class _Label:
    position: tuple[float, float]
    text: str
    size: int
    color: Color
    backing: Color | None
    anchor: str


@dataclass
class TextLayer:
    """Labels for one picture."""

    labels: list[_Label] = field(default_factory=list)

    def add(
        self,
        position: tuple[float, float],
        text: str,
        size: int = 11,
        color: Color = INK,
        backing: Color | None = None,
        anchor: str = "la",
    ) -> None:
        """A line of text at (x, y) px; `anchor` as Pillow has it ("la" = left top, "ms" = middle of the baseline)."""
        self.labels.append(_Label(position, text, size, color, backing, anchor))

    def draw(self, picture: np.ndarray) -> np.ndarray:
        """uint8 [H, W, 3] with all labels on it; the argument isn't changed."""
        image = Image.fromarray(picture)
        pen = ImageDraw.Draw(image, "RGBA")
        for label in self.labels:
            if label.backing is not None:
                left, top, right, bottom = pen.textbbox(
                    label.position, label.text, font(label.size), label.anchor
                )
                pen.rounded_rectangle((left - 3, top - 2, right + 3, bottom + 2), 3, (*label.backing, 185))
            pen.text(label.position, label.text, label.color, font(label.size), label.anchor)
        return np.array(image)


def text_width(text: str, size: int) -> float:
    """Width of a line, px."""
    return float(font(size).getlength(text))
