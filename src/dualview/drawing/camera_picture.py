"""One camera's image with the boxes that it sees."""

from __future__ import annotations

import cv2
import numpy as np
import torch

from dualview.drawing import projection
from dualview.drawing.palette import BACKGROUND, FAINT, PANEL, TRUTH, WARNING, class_color, faded
from dualview.drawing.text import TextLayer
from dualview.drawing.view import FrameView, LabelledBoxes

_SHIFT = 4  # OpenCV's fixed-point bits for lines between pixels
_FARTHEST = 1e5  # px; keeps cut edges inside OpenCV's integers
_LABEL_HEIGHT = 16  # px; smaller boxes get no words
_THIN_HEIGHT = 36  # px; smaller boxes get thin lines


def camera_picture(
    view: FrameView, camera: int, text: TextLayer, origin: tuple[float, float] = (0.0, 0.0)
) -> np.ndarray:
    """uint8 [H, W, 3]: the image of camera `camera` with labels (thin, white) and tracks (class colours, front face filled).

    Words go to `text`, at positions shifted by `origin` (px), since they are drawn on the whole picture at once.
    """
    frame = view.frame
    name = frame.camera_names[camera] if frame.camera_names else f"camera {camera}"
    height, width = frame.image_size
    if not bool(frame.camera_mask[camera]):
        picture = np.full((height, width, 3), PANEL, np.uint8)
        centre = (origin[0] + width / 2, origin[1] + height / 2)
        text.add((centre[0], centre[1] - 8), "no image", 15, WARNING, anchor="mm")
        reason = view.problems.get(name, "")
        text.add((centre[0], centre[1] + 12), reason[:70], 10, FAINT, anchor="mm")
    else:
        picture = np.ascontiguousarray(frame.images[camera].permute(1, 2, 0).numpy())
        image_from_ego = frame.image_from_ego_anchor()[camera]
        if view.truth is not None:
            _draw(picture, view.truth, image_from_ego, 1, None, origin)
        if view.tracks is not None:
            _draw(picture, view.tracks, image_from_ego, 2, text, origin)
    text.add((origin[0] + 7, origin[1] + 6), name.replace("_", " "), 12, backing=BACKGROUND)
    return picture


def _draw(
    picture: np.ndarray,
    labelled: LabelledBoxes,
    image_from_ego: torch.Tensor,
    thickness: int,
    text: TextLayer | None,
    origin: tuple[float, float],
) -> None:
    """Draw boxes on `picture`, the far ones first; without `text` they are labels: white, thin, nameless."""
    labelled = labelled.drawable()
    corners = projection.homogeneous_corners(labelled.boxes, image_from_ego)
    edges, seen = projection.visible_edges(corners)
    inside = projection.shows(edges, seen, picture.shape[:2])
    order = np.argsort(-corners[..., 2].mean(1))
    for index in (i for i in order if inside[i]):
        color = TRUTH if text is None else class_color(labelled.name(index))
        if text is not None:
            _fill(picture, projection.visible_face(corners[index]), color, 0.35)
        pixels = np.clip(edges[index][seen[index]], -_FARTHEST, _FARTHEST)
        wide = 1 if np.ptp(pixels[..., 1]) < _THIN_HEIGHT else thickness
        lines = np.round(pixels * (1 << _SHIFT)).astype(np.int32)
        cv2.polylines(picture, list(lines), False, color, wide, cv2.LINE_AA, _SHIFT)
        if text is not None:
            _name(text, labelled, int(index), pixels.reshape(-1, 2), picture.shape[:2], origin)


def _fill(picture: np.ndarray, polygon: np.ndarray, color: tuple[int, int, int], share: float) -> None:
    """Lay a translucent polygon [K, 2] over the picture; only its own rectangle is touched."""
    if len(polygon) < 3:
        return
    height, width = picture.shape[:2]
    polygon = np.clip(polygon, -_FARTHEST, _FARTHEST)
    low = np.clip(np.floor(polygon.min(0)).astype(int), 0, (width, height))
    high = np.clip(np.ceil(polygon.max(0)).astype(int) + 1, 0, (width, height))
    if (high <= low).any():
        return
    patch = picture[low[1] : high[1], low[0] : high[0]]
    painted = patch.copy()
    points = np.round((polygon - low) * (1 << _SHIFT)).astype(np.int32)
    cv2.fillPoly(painted, [points], color, cv2.LINE_AA, _SHIFT)
    cv2.addWeighted(painted, share, patch, 1 - share, 0, dst=patch)


def _name(
    text: TextLayer,
    labelled: LabelledBoxes,
    index: int,
    pixels: np.ndarray,
    size: tuple[int, int],
    origin: tuple[float, float],
) -> None:
    low, high = pixels.min(0), pixels.max(0)
    if high[1] - low[1] < _LABEL_HEIGHT:
        return
    x = float(np.clip((low[0] + high[0]) / 2, 14, size[1] - 14))
    y = float(np.clip(low[1] - 4, 32, size[0] - 4))
    identity = int(labelled.boxes.track_id[index])
    words = str(identity) if identity >= 0 else labelled.name(index)
    color = faded(class_color(labelled.name(index)), 0.55, (255, 255, 255))
    text.add((origin[0] + x, origin[1] + y), words, 10, color, BACKGROUND, "ms")
