"""One frame as one picture: all cameras around, the view from above beside them."""

from __future__ import annotations

import numpy as np
import torch

from dualview.drawing.bev_picture import bev_picture
from dualview.drawing.camera_picture import camera_picture
from dualview.drawing.palette import BACKGROUND, FAINT, INK, TRUTH, class_color
from dualview.drawing.text import TextLayer, text_width
from dualview.drawing.view import FrameView

_HEADER = 34  # px
_GAP = 4


def frame_picture(view: FrameView, reach: float = 50.0) -> np.ndarray:
    """uint8 [H, W, 3] (both even) of one frame: cameras that look forwards in the upper row, the others below, the view from above
    on the right, the title and the classes on top. `reach` m are shown to each side from above."""
    rows = camera_rows(view.frame.ego_from_camera)
    height, width = view.frame.image_size
    columns = max(map(len, rows))
    bev_size = max(len(rows) * height + (len(rows) - 1) * _GAP, 360)
    top = _HEADER
    full_width = columns * (width + _GAP) + bev_size
    full_height = top + bev_size
    picture = np.full((full_height + full_height % 2, full_width + full_width % 2, 3), BACKGROUND, np.uint8)
    text = TextLayer()
    for row, cameras in enumerate(rows):
        indent = (columns - len(cameras)) * (width + _GAP) // 2
        for column, camera in enumerate(cameras):
            x, y = indent + column * (width + _GAP), top + row * (height + _GAP)
            picture[y : y + height, x : x + width] = camera_picture(view, camera, text, (x, y))
    x = columns * (width + _GAP)
    picture[top : top + bev_size, x : x + bev_size] = bev_picture(view, bev_size, text, (x, top), reach)
    text.add((9, _HEADER / 2), view.title, 14, INK, anchor="lm")
    _legend(view, text, picture.shape[1] - 10)
    return text.draw(picture)


def camera_rows(ego_from_camera: torch.Tensor) -> list[list[int]]:
    """Indices of cameras (poses [N, 4, 4]) in rows: the half that looks most forwards, left to right, then the rest as one sees them
    turning round to the left: back left, back, back right."""
    axis = ego_from_camera[:, :2, 2].double()
    azimuth = torch.atan2(axis[:, 1], axis[:, 0])
    count = len(azimuth)
    if count <= 3:
        return [sorted(range(count), key=lambda i: -float(azimuth[i]))]
    forwards = sorted(range(count), key=lambda i: abs(float(azimuth[i])))
    upper, lower = forwards[: (count + 1) // 2], forwards[(count + 1) // 2 :]
    turn = 2 * torch.pi
    return [
        sorted(upper, key=lambda i: -float(azimuth[i])),
        sorted(lower, key=lambda i: float(azimuth[i]) % turn),
    ]


def _legend(view: FrameView, text: TextLayer, right: float) -> None:
    """Names of the classes in the picture, each in its colour, from the right edge leftwards."""
    entries = []
    if view.truth is not None:
        entries.append(("label", TRUTH))
    if view.tracks is not None:
        present = {view.tracks.name(i) for i in range(len(view.tracks.boxes))}
        entries += [(n.replace("_", " "), class_color(n)) for n in view.tracks.class_names if n in present]
    x = right
    for words, color in reversed(entries):
        text.add((x, _HEADER / 2), words, 12, color, anchor="rm")
        x -= text_width(words, 12) + 14
    if not entries:
        text.add((right, _HEADER / 2), "no boxes", 12, FAINT, anchor="rm")
