"""From `SurroundFrame`s to the batched tensors that the networks take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from dualview.errors import ConfigError
from dualview.geometry.rigid import invert_rigid
from dualview.scene.frame import SurroundFrame

IMAGE_MEAN = (123.675, 116.28, 103.53)  # RGB, 0..255: ImageNet's, as every backbone here was trained with
IMAGE_STD = (58.395, 57.12, 57.375)


@dataclass(frozen=True)
class DetectorInputs:
    """A batch of B instants of B vehicles with N cameras each.

    images [B, N, 3, H, W] float, normalised RGB. image_from_working [B, N, 4, 4] float64: points of the
    working frame at the anchor stamp -> (u z, v z, z, 1), px; camera exposure times, image and BEV
    augmentation included. camera_mask bool [B, N]. stamps [B] float64 s; world_from_working [B, 4, 4]
    float64. For the depth network: intrinsics [B, N, 3, 3] px and working_from_camera [B, N, 4, 4], both
    before augmentation, image_augmentation [B, N, 3, 3] and bev_augmentation [B, 3, 3] (None = identity). points:
    B clouds float32 [P, 5] (x, y, z m of the working frame, BEV augmentation included; intensity; age s), None
    where nobody asked for them. label_map: float16 [B, C, Y, X], features of the ground, zero where nothing is known (BEV
    augmentation included); None but for the oracles that read it. image_features: the backbone's maps [B, N, C, h, w] of
    these images, where they are known already (a frozen backbone says the same of an image every time). colors [B, N, 3, H, W]
    float32, RGB 0..255: the images' own colours, where training changed those of `images`; None: `images` has them.
    """

    images: Tensor
    image_from_working: Tensor
    camera_mask: Tensor
    stamps: Tensor
    world_from_working: Tensor
    intrinsics: Tensor
    working_from_camera: Tensor
    image_augmentation: Tensor | None = None
    bev_augmentation: Tensor | None = None
    points: tuple[Tensor, ...] | None = None
    label_map: Tensor | None = None
    image_features: tuple[Tensor, ...] | None = None
    colors: Tensor | None = None

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width), px."""
        return int(self.images.shape[-2]), int(self.images.shape[-1])

    @property
    def focal_length(self) -> Tensor:
        """Focal length [B, N] px in the network's image: how far a pixel moves for one unit of x / z."""
        image_from_camera = self.intrinsics
        if self.image_augmentation is not None:
            image_from_camera = self.image_augmentation.to(self.intrinsics) @ self.intrinsics
        return image_from_camera[..., :2, 0].norm(dim=-1)

    def to(self, device: torch.device | str) -> DetectorInputs:
        """The same batch on another device."""
        given = {f.name: getattr(self, f.name) for f in fields(self)}
        moved: dict[str, Any] = {k: v.to(device, non_blocking=True) for k, v in given.items() if isinstance(v, Tensor)}
        for name in ("points", "image_features"):
            if given[name] is not None:
                moved[name] = tuple(tensor.to(device, non_blocking=True) for tensor in given[name])
        return replace(self, **moved)

    @staticmethod
    def concatenated(parts: Sequence[DetectorInputs]) -> DetectorInputs:
        """One batch of several."""
        merged: dict[str, Any] = {}
        for field in fields(DetectorInputs):
            values = [getattr(part, field.name) for part in parts]
            if any(value is None for value in values):
                merged[field.name] = None
            elif isinstance(values[0], Tensor):
                merged[field.name] = torch.cat(values)
            elif field.name == "image_features":
                merged[field.name] = tuple(torch.cat(level) for level in zip(*values, strict=True))
            else:
                merged[field.name] = tuple(item for value in values for item in value)
        return DetectorInputs(**merged)


def normalize_images(images: Tensor) -> Tensor:
    """uint8 RGB [..., 3, H, W] -> float32, ImageNet mean and deviation taken out."""
    mean = torch.tensor(IMAGE_MEAN, device=images.device).view(3, 1, 1)
    deviation = torch.tensor(IMAGE_STD, device=images.device).view(3, 1, 1)
    return images.to(torch.float32, copy=True).sub_(mean).div_(deviation)  # in place: a third of the memory traffic


def image_colors(images: Tensor) -> Tensor:
    """What `normalize_images` was given: [..., 3, H, W] float32, RGB, whole numbers 0..255."""
    mean = torch.tensor(IMAGE_MEAN, device=images.device).view(3, 1, 1)
    deviation = torch.tensor(IMAGE_STD, device=images.device).view(3, 1, 1)
    return (images.float() * deviation + mean).round().clamp(0, 255)


def inputs_from_frames(
    frames: Sequence[SurroundFrame],
    image_size: tuple[int, int],
    working_from_ego: Tensor | None = None,
    device: torch.device | str = "cpu",
) -> DetectorInputs:
    """One batch of `frames`, one element a frame.

    image_size: (height, width) that the detector works at. working_from_ego [4, 4]: the detector's working
    frame, the ego frame if None. Matrices are computed in float64. Masked cameras get identity matrices, so
    that whatever a broken camera_info says can't reach the network.

    Raises ConfigError if a frame has no cameras or images of another size, if frames differ in their number
    of cameras, or if the calibration or pose of a camera that is used isn't finite.
    """
    _check_frames(frames, tuple(image_size))
    working_from_ego = (
        torch.eye(4, dtype=torch.float64) if working_from_ego is None else working_from_ego.double()
    )
    ego_from_working = invert_rigid(working_from_ego)
    mask = torch.stack([frame.camera_mask for frame in frames])
    images = torch.stack([frame.images for frame in frames]).to(device, non_blocking=True)
    inputs = DetectorInputs(
        images=normalize_images(images),
        image_from_working=_or_identity(
            torch.stack([frame.image_from_ego_anchor() @ ego_from_working for frame in frames]), mask
        ),
        camera_mask=mask,
        stamps=torch.tensor([frame.stamp_ns * 1e-9 for frame in frames], dtype=torch.float64),
        world_from_working=torch.stack([f.world_from_ego_anchor.double() @ ego_from_working for f in frames]),
        intrinsics=_or_identity(torch.stack([frame.intrinsics for frame in frames]), mask),
        working_from_camera=_or_identity(
            torch.stack([working_from_ego @ frame.ego_from_camera.double() for frame in frames]), mask
        ),
    )
    for index, frame in enumerate(frames):
        for camera in range(mask.shape[1]):
            if not inputs.image_from_working[index, camera].isfinite().all():
                name = frame.camera_names[camera] if frame.camera_names else f"number {camera}"
                raise ConfigError(
                    f"the calibration or pose of camera {name} isn't finite: "
                    "mask this camera or recalibrate it"
                )
        if not inputs.world_from_working[index].isfinite().all():
            raise ConfigError("the ego pose of the frame isn't finite: check the odometry")
    return inputs.to(device)


def _check_frames(frames: Sequence[SurroundFrame], image_size: tuple[int, ...]) -> None:
    for frame in frames:
        if frame.images.shape[0] == 0:
            raise ConfigError("the frame has no cameras; a detector needs at least one: check the rig file")
        if frame.image_size != image_size:
            raise ConfigError(
                f"the frame's images are {frame.image_size[0]}x{frame.image_size[1]} (height x width), "
                f"this detector works at {image_size[0]}x{image_size[1]}: build frames with "
                "detector.config.image_size"
            )
        if frame.images.shape[0] != frames[0].images.shape[0]:
            raise ConfigError(
                f"frames with {frames[0].images.shape[0]} and {frame.images.shape[0]} cameras "
                "can't share a batch; batch drives of the same rig"
            )


def _or_identity(matrices: Tensor, mask: Tensor) -> Tensor:
    """matrices [B, N, R, R] where `mask` [B, N] holds, identity elsewhere."""
    identity = torch.eye(matrices.shape[-1], dtype=matrices.dtype)
    return torch.where(mask[..., None, None], matrices, identity)
