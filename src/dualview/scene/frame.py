"""One instant of one vehicle, as every detector, trainer and drawing sees it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dualview.geometry.boxes import Boxes3D
from dualview.geometry.rigid import invert_rigid


@dataclass(frozen=True)
class SurroundFrame:
    """The images of N >= 1 cameras around one anchor instant, with everything that relates them to space and time.

    Pixel convention: an image spans [0, W] x [0, H] and pixel (0, 0) covers [0, 1) x [0, 1), so resizing by r multiplies the
    upper two rows of `intrinsics` by r exactly. (ROS camera_info counts from the first pixel's centre; the assembler
    converts.) Cameras are always in the order of the rig file; a camera without a usable image keeps its slot, black and
    masked.
    """

    stamp_ns: int  # anchor instant, ns since epoch
    images: Tensor  # uint8 [N, 3, H, W] RGB, undistorted, at network size
    camera_stamps_ns: Tensor  # int64 [N] exposure of each image; the anchor's stamp where masked
    intrinsics: Tensor  # float32 [N, 3, 3] px of `images`
    ego_from_camera: Tensor  # float32 [N, 4, 4] m; camera = optical frame (z forward, x right, y down)
    world_from_ego: Tensor  # float64 [N, 4, 4] ego pose at each camera's own stamp
    world_from_ego_anchor: Tensor  # float64 [4, 4] ego pose at `stamp_ns`
    camera_mask: Tensor  # bool [N], False: missing, stale or broken
    camera_names: tuple[str, ...] = ()
    points: Tensor | None = None  # float32 [P, 5] LiDAR returns, ego frame at the anchor: x, y, z, intensity, age s; see sweeps.py
    # float16 [C, Y, X], zero where nothing is known: features of the ground around, ego frame at the anchor, for oracles that read them
    label_map: Tensor | None = None

    def __post_init__(self) -> None:
        count = self.images.shape[0]
        expected = {
            "camera_stamps_ns": (count,), "intrinsics": (count, 3, 3), "ego_from_camera": (count, 4, 4),
            "world_from_ego": (count, 4, 4), "world_from_ego_anchor": (4, 4), "camera_mask": (count,),
        }  # fmt: skip
        for name, shape in expected.items():
            if tuple(getattr(self, name).shape) != shape:
                raise ValueError(f"SurroundFrame.{name} must be {list(shape)}, got {list(getattr(self, name).shape)}")

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) of the images, px."""
        return int(self.images.shape[-2]), int(self.images.shape[-1])

    def camera_from_ego_anchor(self) -> Tensor:
        """Transforms [N, 4, 4] (float64) from the ego frame at the anchor stamp to each camera at its own stamp.

        camera_from_ego(t_camera) @ ego(t_camera)_from_world @ world_from_ego(t_anchor): a still world point lands on its
        pixel although the cameras fire at different times and the vehicle moves between them.
        """
        camera_from_ego = invert_rigid(self.ego_from_camera.double())
        return camera_from_ego @ invert_rigid(self.world_from_ego) @ self.world_from_ego_anchor

    def image_from_ego_anchor(self) -> Tensor:
        """Projection matrices [N, 4, 4] (float64): ego points at the anchor stamp -> (u z, v z, z, 1), pixels of `images`."""
        intrinsics = torch.eye(4, dtype=torch.float64).repeat(self.images.shape[0], 1, 1)
        intrinsics[:, :3, :3] = self.intrinsics.double()
        return intrinsics @ self.camera_from_ego_anchor()


@dataclass(frozen=True)
class Annotations:
    """Ground truth at one keyframe.

    `boxes` are in the world frame (centre float64) with `label` an index into `class_names` and `track_id` an integer made from the
    instance name (`instance_ids`, same order); `num_lidar_points` [M] int64, -1 where unknown; `visibility` [M] float32 in 0..1, NaN where
    unknown; `attributes` the attribute names of each box ("vehicle.moving"), empty where the recording has none.
    """

    stamp_ns: int
    boxes: Boxes3D
    class_names: tuple[str, ...]
    instance_ids: tuple[str, ...]
    num_lidar_points: Tensor
    visibility: Tensor
    attributes: tuple[tuple[str, ...], ...] = ()

    def __getitem__(self, index: Tensor) -> Annotations:
        """Some of the objects: int64 [K], or bool [M]."""
        chosen = index.nonzero()[:, 0] if index.dtype == torch.bool else index
        places = chosen.tolist()
        return replace(
            self,
            boxes=self.boxes[chosen],
            instance_ids=tuple(self.instance_ids[i] for i in places),
            num_lidar_points=self.num_lidar_points[chosen],
            visibility=self.visibility[chosen],
            attributes=tuple(self.attributes[i] for i in places) if self.attributes else (),
        )
