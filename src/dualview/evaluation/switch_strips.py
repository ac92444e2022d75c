"""Identity switches to look at: the keyframes around each, seen from above and, where the recording has images, by a camera."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch

from dualview.drawing import projection
from dualview.drawing.palette import BACKGROUND, FAINT, GRID, INK, PANEL, TRUTH, Color, faded
from dualview.drawing.text import TextLayer
from dualview.drawing.view import in_ego_frame
from dualview.evaluation.accumulation import IdSwitch
from dualview.evaluation.keyframes import Keyframe
from dualview.geometry.boxes import Boxes3D
from dualview.scene.frame import SurroundFrame

BEFORE: Color = (82, 170, 255)  # the id that was lost
AFTER: Color = (255, 166, 87)  # the id that came instead
_SIZE, _GAP, _HEADER = 232, 4, 20  # px
_REACH = 9.0  # m from the object to each side, more for long ones
_SHIFT = 4  # OpenCV's fixed-point bits
_FINER = 2  # drawn larger and averaged: smooth lines at every angle
_FARTHEST = 1e5  # px


def worst_switches(switches: Sequence[IdSwitch], count: int) -> list[IdSwitch]:
    """The first `count` switches (they come worst first), at most one of each object."""
    chosen: dict[tuple[str, str], IdSwitch] = {}
    for switch in switches:
        chosen.setdefault((switch.drive, switch.instance_id), switch)
    return list(chosen.values())[: max(count, 0)]


def keyframes_around(switch: IdSwitch, keyframes: Sequence[Keyframe], most: int = 5) -> list[Keyframe]:
    """At most `most` of a drive's keyframes (by rising stamp): one before the last with the old id, that one, what lies between, the
    switch itself and what follows; one of them shows the object's label."""
    stamps = [k.annotations.stamp_ns for k in keyframes]
    last, now = stamps.index(switch.last_ns), stamps.index(switch.stamp_ns)
    wanted = [now, last, last - 1, now + 1, (last + now) // 2, now + 2, last - 2, now + 3]
    chosen: list[int] = []
    for index in wanted:
        if 0 <= index < len(stamps) and index not in chosen and len(chosen) < most:
            chosen.append(index)
    labelled = [i for i, k in enumerate(keyframes) if switch.instance_id in k.annotations.instance_ids]
    if not set(labelled) & set(chosen):  # scoring lets tracks go on where labels pause, however long
        chosen[-1] = min(labelled, key=lambda i: abs(i - now))
    return [keyframes[i] for i in sorted(chosen)]


def switch_strip(
    switch: IdSwitch, keyframes: Sequence[Keyframe], frames: Mapping[int, SurroundFrame]
) -> np.ndarray:
    """uint8 [H, W, 3]: a column for each of the keyframes, from above (up = away from the vehicle) and, if any of `frames` (keyframe's
    stamp -> frame with images) shows the object, through the camera that has it nearest to its middle."""
    shown = _Shown(switch, keyframes)
    text = TextLayer()
    cameras = [
        _camera(shown, k, frames[k.annotations.stamp_ns], text, (i * (_SIZE + _GAP), _HEADER))
        if k.annotations.stamp_ns in frames
        else None
        for i, k in enumerate(keyframes)
    ]
    rows = 2 if any(c is not None for c in cameras) else 1
    height, width = _HEADER + rows * (_SIZE + _GAP) - _GAP, len(keyframes) * (_SIZE + _GAP) - _GAP
    picture = np.full((height, width, 3), BACKGROUND, np.uint8)
    below = height - _SIZE
    for i, (keyframe, camera) in enumerate(zip(keyframes, cameras, strict=True)):
        x = i * (_SIZE + _GAP)
        if rows == 2:
            empty = np.full((_SIZE, _SIZE, 3), PANEL, np.uint8)
            picture[_HEADER : _HEADER + _SIZE, x : x + _SIZE] = empty if camera is None else camera
        picture[below:, x : x + _SIZE] = _from_above(shown, keyframe, text, (x, below))
        seconds = (keyframe.annotations.stamp_ns - switch.stamp_ns) / 1e9
        words = f"{switch.before} becomes {switch.after}" if seconds == 0 else f"{seconds:+.2f} s"
        text.add((x + 5, _HEADER / 2), words, 12, AFTER if seconds == 0 else INK, anchor="lm")
    return text.draw(picture)


@dataclass(frozen=True)
class _Shown:
    """The switch and the keyframes of its strip."""

    switch: IdSwitch
    keyframes: Sequence[Keyframe]

    def place(self, keyframe: Keyframe) -> int | None:
        """Index of the object's label at a keyframe; None if it isn't labelled there."""
        names = keyframe.annotations.instance_ids
        return names.index(self.switch.instance_id) if self.switch.instance_id in names else None

    def label(self, keyframe: Keyframe) -> Boxes3D:
        """The object's label at the keyframe, or at the nearest one that has it; one box, world frame."""
        with_label = [k for k in self.keyframes if self.place(k) is not None]
        stamp = keyframe.annotations.stamp_ns
        nearest = min(with_label, key=lambda k: abs(k.annotations.stamp_ns - stamp))
        index = self.place(nearest)
        assert index is not None
        return nearest.annotations.boxes[index : index + 1]

    def up(self) -> np.ndarray:
        """Unit vector [2] in the world's xy plane from the vehicle to the object at the switch."""
        keyframe = next(k for k in self.keyframes if k.annotations.stamp_ns == self.switch.stamp_ns)
        offset = self.label(keyframe).center[0, :2].double().numpy() - keyframe.ego_position[:2]
        length = float(np.linalg.norm(offset))
        return offset / length if length > 1e-6 else np.array([1.0, 0.0])

    def tracks(self, keyframe: Keyframe) -> Boxes3D:
        """Predictions that count here: finite, of either id or of a score that the tracking scores count."""
        if keyframe.prediction is None:
            return Boxes3D.empty()
        boxes = keyframe.prediction.boxes
        finite = boxes.center.isfinite().all(-1) & boxes.size.isfinite().all(-1) & boxes.yaw.isfinite()
        own = (boxes.track_id == self.switch.before) | (boxes.track_id == self.switch.after)
        kept = finite & (own | (boxes.score >= self.switch.threshold))
        order = torch.argsort(own[kept].long(), stable=True)  # the two ids are drawn last, on top
        return boxes[kept][order]

    def color(self, identity: int) -> Color:
        return {self.switch.before: BEFORE, self.switch.after: AFTER}.get(identity, FAINT)


def _from_above(
    shown: _Shown, keyframe: Keyframe, text: TextLayer, origin: tuple[float, float]
) -> np.ndarray:
    own = shown.label(keyframe)
    middle, up = own.center[0, :2].double().numpy(), shown.up()
    right = np.array([up[1], -up[0]])
    reach = max(_REACH, 1.5 * float(own.size.max()))
    scale = _SIZE / (2 * reach)  # px a metre

    def pixels(points: np.ndarray) -> np.ndarray:
        offset = points - middle
        return np.stack([_SIZE / 2 + scale * offset @ right, _SIZE / 2 - scale * offset @ up], -1)

    canvas = np.full((_FINER * _SIZE, _FINER * _SIZE, 3), PANEL, np.uint8)

    def lines(points: np.ndarray, color: Color, thick: int, closed: bool = True) -> None:
        fixed = np.clip(_FINER * pixels(points), -_FARTHEST, _FARTHEST) * (1 << _SHIFT)
        cv2.polylines(canvas, [np.round(fixed).astype(np.int32)], closed, color, thick, cv2.LINE_AA, _SHIFT)

    ego = keyframe.ego_position[:2]
    for radius in np.arange(5.0, 120.0, 5.0):  # rings about the vehicle
        turn = np.linspace(0, 2 * np.pi, 181)
        lines(ego + radius * np.stack([np.cos(turn), np.sin(turn)], -1), GRID, 1, closed=False)
    for box in _outlines(_seen_labels(keyframe)):
        lines(box, faded(TRUTH, 0.5), _FINER)
    if shown.place(keyframe) is not None:
        lines(_outlines(own)[0], TRUTH, 2 * _FINER)
    tracks = shown.tracks(keyframe)
    for box, identity in zip(_outlines(tracks), tracks.track_id.tolist(), strict=True):
        color = shown.color(identity)
        lines(box, color, _FINER if color == FAINT else 2 * _FINER)
        inside = (np.abs(pixels(box).mean(0) - _SIZE / 2) < _SIZE / 2 - 8).all()
        at = np.array([pixels(box)[:, 0].mean(), max(pixels(box)[:, 1].min() - 9, 9)])  # above the box
        if identity >= 0 and inside:
            text.add((origin[0] + at[0], origin[1] + at[1]), str(identity), 11, color, BACKGROUND, "mm")
    text.add((origin[0] + 5, origin[1] + _SIZE - 5), f"{np.linalg.norm(middle - ego):.0f} m away", 10, FAINT, anchor="ls")  # fmt: skip
    return cv2.resize(canvas, (_SIZE, _SIZE), interpolation=cv2.INTER_AREA)


def _seen_labels(keyframe: Keyframe) -> Boxes3D:
    """Labels that scoring counts: with LiDAR points, or of an unknown number."""
    return keyframe.annotations.boxes[keyframe.annotations.num_lidar_points != 0]


def _outlines(boxes: Boxes3D) -> np.ndarray:
    """Footprints [M, 4, 2], world frame."""
    return boxes.corners().double()[:, [0, 2, 3, 1], :2].numpy()


def _camera(
    shown: _Shown, keyframe: Keyframe, frame: SurroundFrame, text: TextLayer, origin: tuple[float, float]
) -> np.ndarray | None:
    """The part of a camera's image around the object, with the ids' boxes; None if no camera has it."""
    seconds = (frame.stamp_ns - keyframe.annotations.stamp_ns) / 1e9
    label = in_ego_frame(_moved(shown.label(keyframe), seconds), frame.world_from_ego_anchor)
    projections = frame.image_from_ego_anchor()
    height, width = frame.image_size
    centers = projections @ torch.cat([label.center[0].double(), torch.ones(1, dtype=torch.float64)])
    depth = centers[:, 2]
    middle = centers[:, :2] / depth.clamp(min=1e-6).unsqueeze(-1)
    inside = frame.camera_mask & (depth > 0.5) & (middle >= 0).all(-1)
    inside &= (middle[:, 0] < width) & (middle[:, 1] < height)
    if not bool(inside.any()):
        return None
    camera = int(torch.where(inside, (middle[:, 0] - width / 2).abs(), torch.inf).argmin())
    edges, seen = projection.visible_edges(projection.homogeneous_corners(label, projections[camera]))
    half = float(np.clip(0.9 * np.ptp(edges[0][seen[0]].reshape(-1, 2), axis=0).max(), 36.0, width / 2))
    scale = _SIZE / (2 * half)
    corner = middle[camera].numpy() - half
    image = np.ascontiguousarray(frame.images[camera].permute(1, 2, 0).numpy())
    matrix = np.array([[scale, 0.0, -scale * corner[0]], [0.0, scale, -scale * corner[1]]])
    picture = cv2.warpAffine(image, matrix, (_SIZE, _SIZE), flags=cv2.INTER_LINEAR, borderValue=PANEL)

    def draw(boxes: Boxes3D, colors: Sequence[Color], names: Sequence[str]) -> None:
        ends, visible = projection.visible_edges(projection.homogeneous_corners(boxes, projections[camera]))
        for i, color in enumerate(colors):
            lines = np.clip(scale * (ends[i][visible[i]] - corner), -_FARTHEST, _FARTHEST)
            fixed = np.round(lines * (1 << _SHIFT)).astype(np.int32)
            thick = 2 if color in (BEFORE, AFTER) else 1
            cv2.polylines(picture, list(fixed), False, color, thick, cv2.LINE_AA, _SHIFT)
            if names and len(lines):
                x, y = lines[..., 0].mean(), lines[..., 1].min() - 4
                if 8 < x < _SIZE - 8 and 0 < y < _SIZE:
                    text.add((origin[0] + x, origin[1] + max(y, 14)), names[i], 11, color, BACKGROUND, "ms")

    if shown.place(keyframe) is not None:
        draw(label, [TRUTH], [])
    tracks = in_ego_frame(_moved(shown.tracks(keyframe), seconds), frame.world_from_ego_anchor)
    near = (tracks.center[:, :2] - label.center[:, :2]).norm(dim=-1) < 2 * _REACH
    own = (tracks.track_id == shown.switch.before) | (tracks.track_id == shown.switch.after)
    tracks = tracks[near | own]
    identities = tracks.track_id.tolist()
    draw(tracks, [shown.color(i) for i in identities], [str(i) if i >= 0 else "" for i in identities])
    return picture


def _moved(boxes: Boxes3D, seconds: float) -> Boxes3D:
    """Boxes carried on by their own velocities; those of unknown velocity stay."""
    velocity = torch.nan_to_num(boxes.velocity.double(), nan=0.0)
    return Boxes3D(**{**vars(boxes), "center": boxes.center.double() + seconds * velocity})


def nearest_frames(
    keyframes: Sequence[Keyframe], stamps_ns: Sequence[int], tolerance_s: float
) -> dict[int, int]:
    """Keyframe's stamp -> stamp of the frame nearest to it, for those that have one inside the tolerance."""
    near: dict[int, int] = {}
    for keyframe in keyframes:
        stamp = keyframe.annotations.stamp_ns
        best = min(stamps_ns, key=lambda s: abs(s - stamp), default=None)
        if best is not None and abs(best - stamp) <= round(tolerance_s * 1e9):
            near[stamp] = best
    return near
