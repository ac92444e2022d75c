"""A frame's cameras beside maps of the ground around: the label map, what the detector's map says of it, and the error."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor

from dualview.detectors.bev_colors import BevColors
from dualview.drawing.frame_picture import camera_rows
from dualview.drawing.palette import BACKGROUND, FAINT, INK, PANEL
from dualview.drawing.text import TextLayer
from dualview.scene.frame import SurroundFrame

_HEADER, _GAP = 26, 4  # px
_EPS = 1e-6


@dataclass(frozen=True)
class MapView:
    """frame: images at the size they are drawn. label [D, Y, X], known bool [Y, X]: the label map and where it is one.
    predicted [D, Y, X]: what the detector's map says of it, through its head; None: nothing is predicted. seen bool [Y, X]:
    cells that some camera sees.
    """

    frame: SurroundFrame
    label: Tensor
    known: Tensor
    predicted: Tensor | None = None
    seen: Tensor | None = None
    title: str = ""


def label_colors(vectors: Tensor) -> BevColors | None:
    """Colours of label vectors [P, D] by their directions, which is all that the cosine loss compares."""
    return BevColors.fit(_unit(vectors.float().T).T)


def map_picture(view: MapView, colors: BevColors) -> np.ndarray:
    """uint8 [H, W, 3]: cameras on the left; then, forward up, the label in `colors`, the prediction in the same ones (dark
    where no camera sees) and the cosine distance between them (black 0, yellow 1; grey where there is no label).
    """
    rows = camera_rows(view.frame.ego_from_camera)
    height, width = view.frame.image_size
    size = max(len(rows) * (height + _GAP) - _GAP, 160)
    columns = max(map(len, rows))
    maps = [("label map", _painted(view.label, colors, view.known))]
    if view.predicted is not None:
        error = cosine_error(view.predicted, view.label)
        maps.append(("predicted", _painted(view.predicted, colors, view.seen, dimmed=0.3)))
        mean = float(error[view.known].mean()) if bool(view.known.any()) else float("nan")
        maps.append((f"cosine distance, mean {mean:.2f}", _heat(error, view.known)))
    full = columns * (width + _GAP) + len(maps) * (size + _GAP)
    picture = np.full((_HEADER + size, full, 3), BACKGROUND, np.uint8)
    text = TextLayer()
    text.add((8, _HEADER / 2), view.title, 13, INK, anchor="lm")
    for row, cameras in enumerate(rows):
        for column, camera in enumerate(cameras):
            x, y = column * (width + _GAP), _HEADER + row * (height + _GAP)
            picture[y : y + height, x : x + width] = view.frame.images[camera].permute(1, 2, 0).numpy()
    for index, (name, painted) in enumerate(maps):
        x = columns * (width + _GAP) + index * (size + _GAP)
        upright = np.ascontiguousarray(painted.transpose(1, 0, 2)[::-1, ::-1])  # x up, y left
        picture[_HEADER:, x : x + size] = cv2.resize(upright, (size, size), interpolation=cv2.INTER_NEAREST)
        text.add((x + size / 2, _HEADER / 2), name, 12, FAINT, anchor="mm")
    return text.draw(picture)


def cosine_error(predicted: Tensor, label: Tensor) -> Tensor:
    """1 - cosine [Y, X] of the vectors of two maps [D, Y, X]."""
    return 1 - (_unit(predicted) * _unit(label)).sum(0)


def _unit(vectors: Tensor) -> Tensor:
    """[D, ...] with vectors of length 1."""
    vectors = vectors.float()
    return vectors / vectors.norm(dim=0, keepdim=True).clamp(min=_EPS)


def _painted(features: Tensor, colors: BevColors, shown: Tensor | None, dimmed: float = 0.0) -> np.ndarray:
    painted = colors.paint(_unit(features))
    if shown is None:
        return painted
    hidden = (dimmed * painted if dimmed else np.full_like(painted, PANEL)).astype(np.uint8)
    return np.where(shown.numpy()[..., None], painted, hidden)


def _heat(error: Tensor, known: Tensor) -> np.ndarray:
    level = (255 * error.clamp(0, 1)).round().to(torch.uint8).numpy()
    heat = cv2.cvtColor(cv2.applyColorMap(level, cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB)
    return np.where(known.numpy()[..., None], heat, np.array(PANEL, np.uint8))
