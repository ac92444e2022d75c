"""The scene from above: the vehicle in the middle, its front upwards."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import torch

from dualview.drawing.palette import BACKGROUND, FAINT, GRID, INK, PANEL, TRUTH, Color, class_color, faded
from dualview.drawing.text import TextLayer
from dualview.drawing.view import FrameView, LabelledBoxes
from dualview.geometry.rigid import invert_rigid

_FINER = 2  # drawn at twice the size and averaged: smooth lines at every angle
_SHIFT = 4
_EGO_OUTLINE = np.array([[2.6, 0.0], [1.6, 0.95], [-2.0, 0.95], [-2.0, -0.95], [1.6, -0.95]])  # m


def bev_picture(
    view: FrameView, size: int, text: TextLayer, origin: tuple[float, float] = (0.0, 0.0), reach: float = 50.0
) -> np.ndarray:
    """uint8 [size, size, 3]: everything within `reach` m to each side; +x up, +y left.

    LiDAR points grey, labels thin and white, tracks filled in class colours with heading, velocity (one second ahead), trail and id.
    """
    view = replace(view, tracks=view.tracks.drawable() if view.tracks else None)
    canvas = _Canvas(size, reach)
    canvas.ground(view.frame.ego_from_camera.numpy(), view.frame.intrinsics.numpy(), view.frame.image_size,
                  view.frame.camera_mask.numpy())  # fmt: skip
    if view.points is not None:
        canvas.points(view.points)
    ego_from_world = invert_rigid(view.frame.world_from_ego_anchor).numpy()
    colors = {}
    if view.tracks is not None:
        names = [view.tracks.name(i) for i in range(len(view.tracks.boxes))]
        colors = dict(zip(view.tracks.boxes.track_id.tolist(), map(class_color, names), strict=True))
    for identity, trail in view.trails.items():
        flat = np.pad(trail, ((0, 0), (0, 2)), constant_values=((0, 0), (0, 1)))  # [T, 4], z = 0
        flat[:, 2], flat[:, 3] = view.frame.world_from_ego_anchor[2, 3], 1.0
        canvas.trail((flat @ ego_from_world.T)[:, :2], colors.get(identity, FAINT))
    if view.truth is not None:
        canvas.truth(view.truth.drawable())
    if view.tracks is not None:
        canvas.tracks(view.tracks)
    canvas.ego()
    _words(view, canvas, text, origin)
    picture = cv2.resize(canvas.picture, (size, size), interpolation=cv2.INTER_AREA)
    if view.bev_image is not None:
        _inset(picture, view.bev_image, text, origin)
    return picture


def _inset(picture: np.ndarray, bev_image: np.ndarray, text: TextLayer, origin: tuple[float, float]) -> None:
    """The network's own map, small, in the lower right corner, turned so that forward is up here too."""
    size = len(picture) // 5
    turned = np.ascontiguousarray(np.rot90(bev_image))
    corner = len(picture) - size - 6
    picture[corner : corner + size, corner : corner + size] = cv2.resize(
        turned, (size, size), interpolation=cv2.INTER_NEAREST
    )
    cv2.rectangle(picture, (corner - 1, corner - 1), (corner + size, corner + size), FAINT, 1)
    text.add((origin[0] + corner + 5, origin[1] + corner + 4), "BEV map", 10, backing=BACKGROUND)


class _Canvas:
    """The picture at its finer size, and the way from metres to its pixels."""

    def __init__(self, size: int, reach: float) -> None:
        self.size, self.reach = size, reach
        self.scale = _FINER * size / (2 * reach)  # px of the finer picture a metre
        self.picture = np.full((_FINER * size, _FINER * size, 3), BACKGROUND, np.uint8)

    def pixels(self, points: np.ndarray) -> np.ndarray:
        """Ego x, y [..., 2] in m -> u, v of the finer picture."""
        return np.stack(
            [(self.reach - points[..., 1]) * self.scale, (self.reach - points[..., 0]) * self.scale], -1
        )

    def fixed(self, points: np.ndarray) -> np.ndarray:
        """The same in OpenCV's fixed point."""
        return np.round(np.clip(self.pixels(points), -1e5, 1e5) * (1 << _SHIFT)).astype(np.int32)

    def ground(
        self,
        ego_from_camera: np.ndarray,
        intrinsics: np.ndarray,
        image_size: tuple[int, int],
        mask: np.ndarray,
    ) -> None:
        """Fields of view of the cameras, and rings every ten metres."""
        for pose, matrix in zip(ego_from_camera[mask], intrinsics[mask], strict=True):
            rows = np.array([[0.0, 0.0, 0.0], *[
                [(u - matrix[0, 2]) / matrix[0, 0], 0.0, 1.0] for u in np.linspace(0, image_size[1], 9)
            ]])  # fmt: skip
            rays = rows @ pose[:3, :3].T
            length = np.linalg.norm(rays[1:, :2], axis=1, keepdims=True)
            rays[1:, :2] *= 2 * self.reach / np.maximum(length, 1e-6)
            wedge = self.fixed(rays[:, :2] + pose[:2, 3])
            cv2.fillPoly(self.picture, [wedge], PANEL, cv2.LINE_AA, _SHIFT)
        center = tuple(int(v) for v in self.fixed(np.zeros(2)))
        for radius in np.arange(10.0, 2 * self.reach, 10.0):
            cv2.circle(
                self.picture, center, round(radius * self.scale * (1 << _SHIFT)), GRID, 1, cv2.LINE_AA, _SHIFT
            )

    def points(self, points: np.ndarray) -> None:
        """LiDAR returns [P, 3], higher ones lighter; what is above a truck is left out."""
        kept = points[(np.abs(points[:, :2]) < self.reach).all(1) & (points[:, 2] < 4.0)]
        kept = kept[np.argsort(kept[:, 2])]
        pixels = self.pixels(kept[:, :2]).astype(int).clip(0, len(self.picture) - 1)
        share = np.clip((kept[:, 2] + 0.3) / 2.5, 0.0, 1.0)[:, None]
        low, high = np.array((62, 74, 88)), np.array((150, 168, 186))
        self.picture[pixels[:, 1], pixels[:, 0]] = (low + share * (high - low)).astype(np.uint8)

    def trail(self, points: np.ndarray, color: Color) -> None:
        """Past positions [T, 2] (ego frame), the older the fainter."""
        fixed = self.fixed(points)
        for i in range(1, len(fixed)):
            shade = faded(color, 0.15 + 0.6 * i / len(fixed))
            cv2.polylines(self.picture, [fixed[i - 1 : i + 1]], False, shade, _FINER + 1, cv2.LINE_AA, _SHIFT)

    def truth(self, labelled: LabelledBoxes) -> None:
        """Outlines and headings of labels."""
        for outline, center, front, _ in _footprints(labelled):
            cv2.polylines(self.picture, [self.fixed(outline)], True, TRUTH, _FINER, cv2.LINE_AA, _SHIFT)
            self._line(center, front, TRUTH, _FINER)

    def tracks(self, labelled: LabelledBoxes) -> None:
        """Filled boxes with heading and velocity, the best on top."""
        footprints = _footprints(labelled)
        for index in np.argsort(labelled.boxes.score.numpy(), kind="stable"):
            outline, center, front, velocity = footprints[index]
            color = class_color(labelled.name(int(index)))
            fixed = self.fixed(outline)
            cv2.fillPoly(self.picture, [fixed], faded(color, 0.45), cv2.LINE_AA, _SHIFT)
            cv2.polylines(self.picture, [fixed], True, color, _FINER + 1, cv2.LINE_AA, _SHIFT)
            self._line(center, front, color, _FINER + 1)
            if np.isfinite(velocity).all() and np.linalg.norm(velocity) > 0.5:
                self._line(front, front + velocity, faded(color, 0.75, INK), _FINER)

    def _line(self, start: np.ndarray, end: np.ndarray, color: Color, thickness: int) -> None:
        fixed = self.fixed(np.stack([start, end]))
        cv2.polylines(self.picture, [fixed], False, color, thickness, cv2.LINE_AA, _SHIFT)

    def ego(self) -> None:
        """The vehicle itself."""
        outline = self.fixed(_EGO_OUTLINE)
        cv2.fillPoly(self.picture, [outline], (210, 218, 226), cv2.LINE_AA, _SHIFT)


def _footprints(labelled: LabelledBoxes) -> list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """Outline [4, 2], centre [2], middle of the front edge [2], and velocity [2] of each box, ego frame."""
    boxes = labelled.boxes
    corners = boxes.corners().double()[:, [0, 2, 3, 1], :2].numpy()
    center = boxes.center.double()[:, :2].numpy()
    front = corners[:, 2:4].mean(1)
    return list(zip(corners, center, front, boxes.velocity.double()[:, :2].numpy(), strict=True))


def _words(view: FrameView, canvas: _Canvas, text: TextLayer, origin: tuple[float, float]) -> None:
    place = np.array(origin)
    for radius in np.arange(10.0, canvas.reach, 10.0):
        at = (
            canvas.pixels(np.array([radius, 0.0]) * 0.7071 + np.array([0, -radius * 0.7071])) / _FINER + place
        )
        text.add((float(at[0]), float(at[1])), f"{radius:g} m", 9, FAINT, anchor="mm")
    if view.tracks is None:
        return
    boxes = view.tracks.boxes
    near = (boxes.center[:, :2].abs() < canvas.reach - 1).all(-1) & (boxes.track_id >= 0)
    for index in torch.nonzero(near)[:, 0].tolist():
        at = canvas.pixels(boxes.center[index, :2].double().numpy()) / _FINER + place
        lift = 6 + float(boxes.size[index, :2].max()) * canvas.scale / _FINER / 2
        color = faded(class_color(view.tracks.name(index)), 0.5, (255, 255, 255))
        words = str(int(boxes.track_id[index]))
        height = max(float(at[1]) - min(lift, 24), place[1] + 8)
        text.add((float(at[0]), float(height)), words, 9, color, anchor="mm")
