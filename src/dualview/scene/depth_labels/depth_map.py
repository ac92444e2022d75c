"""One depth map: what it means, how it is stored, and what it says of a rectangle.

Stored as a 16-bit PNG that any viewer opens, smaller than the image but over its whole field. Its text fields say how numbers become
values: `kind` "inverse" (relative inverse depth: larger is nearer, scale and shift unknown) or "metric" (m along the optical axis); value
= offset + scale * number; number 0 = not known.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from PIL import Image, PngImagePlugin

from dualview.errors import ImageError

Kind = Literal["inverse", "metric"]
_LEVELS = 8191  # finer steps are noise that doesn't compress: at 50 m one step is about 0.15 m
_METRIC_STEP = 1 / 256  # m, as KITTI stores depth
MIN_PIXELS = 10  # known pixels that a rectangle's median needs


@dataclass(frozen=True)
class DepthMap:
    """values float32 [h, w], NaN = not known; the map spans the whole recorded image, whatever its size. kind: see the module's text."""

    values: np.ndarray
    kind: Kind

    def resized(self, width: int) -> DepthMap:
        """At most `width` columns, the mean over what each new pixel covers; pixels that touch unknown ones may become unknown."""
        height, given = self.values.shape
        if given <= width:
            return self
        size = (width, max(round(height * width / given), 1))
        return DepthMap(cv2.resize(self.values, size, interpolation=cv2.INTER_AREA), self.kind)

    def box_values(self, rectangles: np.ndarray, image_size: tuple[int, int]) -> np.ndarray:
        """Median [n] over the central half (in width and height) of rectangles [n, 4] (px of a recorded image of (height, width)).

        NaN where fewer than ten pixels are known. The middle belongs to the object more likely than the borders; so we read the depth
        targets of "2D supervised fine-tuning".
        """
        height, width = self.values.shape
        scale = np.array([width / image_size[1], height / image_size[0]])
        out = np.full(len(rectangles), np.nan)
        for i, box in enumerate(np.asarray(rectangles, np.float64).reshape(-1, 4)):
            center, half = (box[:2] + box[2:]) / 2 * scale, (box[2:] - box[:2]) / 4 * scale
            low = np.clip(np.floor(center - half), 0, None).astype(int)
            high = np.clip(np.ceil(center + half), 0, [width, height]).astype(int)
            patch = self.values[low[1] : high[1], low[0] : high[0]]
            known = patch[np.isfinite(patch)]
            if len(known) >= MIN_PIXELS:
                out[i] = np.median(known)
        return out


def write_depth(depth: DepthMap, path: Path) -> None:
    """Store a map; the file appears when it is complete."""
    known = np.isfinite(depth.values)
    if depth.kind == "metric":
        offset, scale = 0.0, _METRIC_STEP
    else:
        low, high = (
            (float(depth.values[known].min()), float(depth.values[known].max()))
            if known.any()
            else (0.0, 1.0)
        )
        scale = max(high - low, 1e-9) / (_LEVELS - 1)
        offset = low - scale  # number 1 is the lowest value
    numbers = np.round((np.where(known, depth.values, offset) - offset) / scale)
    numbers = np.where(known, np.clip(numbers, 1, 65535), 0).astype(np.uint16)
    text = PngImagePlugin.PngInfo()
    for key, value in (("kind", depth.kind), ("scale", repr(scale)), ("offset", repr(offset))):
        text.add_text(key, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    Image.fromarray(numbers).save(partial, format="PNG", pnginfo=text)
    partial.replace(path)


def read_depth(path: Path) -> DepthMap:
    """A stored map. Raises ImageError if the file is damaged or is no depth map."""
    try:
        with Image.open(path) as image:
            numbers = np.asarray(image, np.float32)
            text = dict(getattr(image, "text", {}))
        kind, scale, offset = text["kind"], float(text["scale"]), float(text["offset"])
        if kind not in ("inverse", "metric") or numbers.ndim != 2:
            raise ValueError("it has an unknown kind or more than one channel")
    except (OSError, KeyError, ValueError, SyntaxError) as error:
        raise ImageError(
            f"{path} is no depth map of dualview ({error}): delete it and run dualview label-depth again"
        ) from error
    return DepthMap(np.where(numbers > 0, offset + scale * numbers, np.nan).astype(np.float32), kind)
