"""Labels from the renderer: visible pixels, what would be visible without anything in front, and 2D boxes."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from scipy.ndimage import find_objects

from dualview.scene.synthetic.actors import Pose
from dualview.scene.synthetic.object_model import ObjectModel
from dualview.scene.synthetic.renderer import View

_MASK = 110  # px, the longer side of the mask that a silhouette is drawn into
_NEAR = 0.3  # m


@dataclass(frozen=True)
class SeenObject:
    """One actor in one image: visible pixels, pixels of its whole silhouette inside the image, its visible box (x0, y0, x1, y1 px), and how
    much of its unclipped box lies inside the image (0..1)."""

    actor: int
    visible: int
    whole: float
    box: tuple[float, float, float, float]
    inside: float

    @property
    def visibility(self) -> float:
        """Visible share of the silhouette, 0..1."""
        return float(np.clip(self.visible / max(self.whole, 1.0), 0.0, 1.0))


def visible_boxes(segmentation: np.ndarray) -> dict[int, tuple[int, tuple[int, int, int, int]]]:
    """Actor -> (pixels, (x0, y0, x1, y1)) of a segmentation int32 [H, W]; boxes span whole pixels."""
    counts = np.bincount(segmentation.ravel() + 1)
    out = {}
    for actor, place in enumerate(find_objects(segmentation + 1)):
        if place is not None and actor < len(counts) - 1:
            rows, columns = place
            out[actor] = (int(counts[actor + 1]), (columns.start, rows.start, columns.stop, rows.stop))
    return out


def silhouette(model: ObjectModel, pose: Pose, view: View) -> tuple[float, float]:
    """Pixels that a model covers inside an image if nothing hides it, and the share of its projected box that lies inside.

    Its triangles are drawn filled into a mask of about 110 px, so the count is good to some 3 %; limbs are drawn at rest. Triangles
    nearer than 0.3 m to the camera plane are left out.
    """
    triangles = np.concatenate([p.mesh.vertices for p in model.parts if p.counts])
    c, s = np.cos(pose.yaw), np.sin(pose.yaw)
    world = triangles @ np.array([[c, s, 0], [-s, c, 0], [0, 0, 1.0]]) + [pose.x, pose.y, pose.z]
    camera = (world - view.world_from_camera[:3, 3]) @ view.world_from_camera[:3, :3]
    camera = camera[(camera[..., 2] > _NEAR).all(1)]
    if len(camera) == 0:
        return 0.0, 0.0
    k = view.intrinsics
    pixels = camera[..., :2] / camera[..., 2:] * [k[0, 0], k[1, 1]] + k[:2, 2]
    # Front faces of closed surfaces are enough.
    a, b = pixels[:, 1] - pixels[:, 0], pixels[:, 2] - pixels[:, 0]
    pixels = pixels[a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0] < 0]
    if len(pixels) == 0:
        return 0.0, 0.0
    low, high = pixels.reshape(-1, 2).min(0), pixels.reshape(-1, 2).max(0)
    clipped_low, clipped_high = np.maximum(low, 0), np.minimum(high, [view.width, view.height])
    if (clipped_high - clipped_low < 0.5).any():
        return 0.0, 0.0
    inside = float(np.prod(clipped_high - clipped_low) / max(np.prod(high - low), 1e-6))
    scale = _MASK / float((clipped_high - clipped_low).max())
    size = np.ceil((clipped_high - clipped_low) * scale).astype(int) + 1
    mask = np.zeros((size[1], size[0]), np.uint8)
    shape = np.clip((pixels - clipped_low) * scale - 0.5, -20000, 20000)
    for triangle in np.round(shape * 16).astype(np.int32):
        cv2.fillConvexPoly(mask, triangle, 1, cv2.LINE_8, 4)
    return float(mask.sum()) / scale**2, inside


@dataclass(frozen=True)
class Glimpse:
    """What one image holds of the actors near by: visible pixels and boxes, the view, and where everyone was at its exposure."""

    view: View
    boxes: dict[int, tuple[int, tuple[int, int, int, int]]]
    poses: dict[int, Pose]


def seen_objects(glimpse: Glimpse, models: list[ObjectModel], wanted: set[int]) -> list[SeenObject]:
    """The `wanted` actors that are in front of a camera: what it sees of them. Hidden ones have 0 visible pixels."""
    view, out = glimpse.view, []
    rotation, place = view.world_from_camera[:3, :3], view.world_from_camera[:3, 3]
    for actor in sorted(wanted & glimpse.poses.keys()):
        pose = glimpse.poses[actor]
        local = (np.array([pose.x, pose.y, pose.z + models[actor].size[2] / 2]) - place) @ rotation
        reach = np.linalg.norm(models[actor].size) / 2
        slope = max(view.intrinsics[0, 2], view.width - view.intrinsics[0, 2]) / view.intrinsics[0, 0]
        if actor not in glimpse.boxes and (
            local[2] < -reach or abs(local[0]) - reach > (local[2] + reach) * slope
        ):
            continue
        whole, inside = silhouette(models[actor], pose, view)
        if whole < 1.0 and actor not in glimpse.boxes:
            continue
        pixels, box = glimpse.boxes.get(actor, (0, (0, 0, 0, 0)))
        out.append(
            SeenObject(
                actor,
                pixels,
                max(whole, float(pixels)),
                (float(box[0]), float(box[1]), float(box[2]), float(box[3])),
                inside,
            )
        )
    return out
