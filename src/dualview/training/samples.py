"""A frame request -> an augmented training sample; samples -> a batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import Dataset

from dualview.detectors.inputs import DetectorInputs
from dualview.geometry.boxes import Boxes3D
from dualview.geometry.rigid import invert_rigid
from dualview.scene.augmentation.bev import BevAugmentation
from dualview.scene.augmentation.corruption import draw_corruption
from dualview.scene.augmentation.grid_mask import draw_grid, mask_images
from dualview.scene.augmentation.image import ImageAugmentation
from dualview.scene.augmentation.photometric import Photometric, distort
from dualview.scene.corruptions.corruption import Corruption
from dualview.scene.frame import SurroundFrame
from dualview.scene.sweeps import LidarInput, moved_cloud
from dualview.supervision.ground_truth import GroundTruth
from dualview.training.clips import FrameRequest
from dualview.training.drive_store import DriveCache, DriveSummary, LabelledFrame, boxes_that_count
from dualview.training.lidar_depth import depth_maps
from dualview.training.recipe_settings import AugmentationSettings, DataSettings
from dualview.training.stream_state import map_tensors


@dataclass(frozen=True)
class TrainingSample:
    """One augmented frame. inputs: a batch of one, its images still uint8. truth: working frame, within `max_range`; beyond: the
    boxes past that, which aren't to be found, though something is there. depth [N, H, W] m, 0 = no return. extras: what
    `ExtraReader`s read, by their names. boxed: the truth is known; False: nothing is said of where boxes are, and both are empty.
    """

    inputs: DetectorInputs
    truth: GroundTruth
    beyond: GroundTruth
    depth: Tensor
    request: FrameRequest
    source: str
    extras: Mapping[str, Any] = field(default_factory=dict)
    boxed: bool = True

    def without_boxes(self, with_depth: bool) -> TrainingSample:
        """The same frame with nothing known of its boxes, nor, unless `with_depth`, of its LiDAR depth."""
        depth = self.depth if with_depth else torch.zeros_like(self.depth)
        return replace(self, truth=self.truth[:0], beyond=self.beyond[:0], depth=depth, boxed=False)

    def describe(self) -> str:
        """Where it comes from, for messages."""
        r = self.request
        return f"{self.source} frame {r.frame} (slot {r.clip[1]}, clip {r.clip[2]}, position {r.position})"


@dataclass(frozen=True)
class TrainingBatch:
    """B samples. first bool [B]: the slot starts a clip. extras: name -> what the reader of that name gave for each of
    the B samples. boxed: which samples' boxes are known (see `TrainingSample`); empty = all.
    """

    inputs: DetectorInputs
    truths: list[GroundTruth]
    beyond: list[GroundTruth]
    depth: Tensor
    first: Tensor
    sources: tuple[str, ...]
    extras: Mapping[str, list[Any]] = field(default_factory=dict)
    boxed: tuple[bool, ...] = ()

    def to(self, device: torch.device | str, **unused: Any) -> TrainingBatch:
        """The same batch on another device."""

        def moved(value: Any) -> Any:
            return map_tensors(value, lambda tensor: tensor.to(device))

        return replace(
            self,
            inputs=self.inputs.to(device),
            truths=moved(self.truths),
            beyond=moved(self.beyond),
            depth=self.depth.to(device),
            first=self.first.to(device),
            extras={name: moved(values) for name, values in self.extras.items()},
        )


class FrameDataset(Dataset):
    """Loads and augments the frames that are asked for. drives are opened when first needed, in the process
    that needs them.
    """

    def __init__(
        self,
        drives: Sequence[DriveSummary],
        augmentation: AugmentationSettings,
        data: DataSettings,
        working_from_ego: Tensor | None = None,
        lidar: LidarInput | None = None,
        readers: Sequence[tuple[str, ExtraReader]] = (),
        lidar_of_2d: bool = False,
        depth_of_2d: Callable[[FrameView], Tensor] | None = None,
        cloud_alone: bool = False,
    ) -> None:
        """lidar: give every sample its cloud of LiDAR points too. readers: what else samples bring, by name. lidar_of_2d: the
        LiDAR depth of drives of which only 2D labels are used counts as well; depth_of_2d: reads them another depth instead.
        cloud_alone: the detector sees nothing but the cloud, so that nothing is said of boxes where a gap between sweeps left it empty.
        """
        self._drives, self._lidar, self._readers = drives, lidar, tuple(readers)
        self._lidar_of_2d, self._depth_of_2d = lidar_of_2d, depth_of_2d
        self._augmentation, self._data, self._cloud_alone = augmentation, data, cloud_alone
        self._working_from_ego = (
            torch.eye(4, dtype=torch.float64) if working_from_ego is None else working_from_ego
        )
        self._open = DriveCache()

    def __getitem__(self, request: FrameRequest) -> TrainingSample:
        drive = self._drives[request.drive]
        opened = self._open(drive.folder)
        points = None if self._lidar is None else opened.cloud(request.frame, self._lidar)
        labelled = opened.frame(request.frame)
        draw = ClipDraw.of(request, labelled.frame, self._augmentation)
        sample = make_sample(
            labelled, request, draw, drive.source, self._augmentation, self._data, self._working_from_ego, points
        )
        if drive.only_2d:
            sample = sample.without_boxes(self._lidar_of_2d)
        elif self._cloud_alone and points is not None and not len(points):
            sample = sample.without_boxes(with_depth=True)
        view = FrameView(drive, labelled, request, draw, self._working_from_ego, sample.inputs)
        if drive.only_2d and self._depth_of_2d is not None:
            sample = replace(sample, depth=self._depth_of_2d(view))
        return replace(sample, extras={name: reader(view) for name, reader in self._readers})


@dataclass(frozen=True)
class ClipDraw:
    """All that is random about a clip."""

    image: ImageAugmentation
    bev: BevAugmentation
    looks: list[Photometric]
    dropped_camera: int | None
    corruption: Corruption | None = None

    @staticmethod
    def of(request: FrameRequest, frame: SurroundFrame, settings: AugmentationSettings) -> ClipDraw:
        """The same for every frame of a clip."""
        random = request.clip_random()
        image, bev, looks = ImageAugmentation.identity(), BevAugmentation.identity(), []
        if settings.image is not None:
            image = ImageAugmentation.draw(random, frame.image_size, settings.image)
        if settings.bev is not None:
            bev = BevAugmentation.draw(random, settings.bev)
        if settings.mirror == "together" and bev.mirrors != image.mirrors:
            image = image.mirrored(frame.image_size)
        cameras = len(frame.images)
        if settings.photometric is not None:
            looks = [Photometric.draw(random, settings.photometric) for _ in range(cameras)]
        dropped = (
            int(random.integers(cameras))
            if random.uniform() < settings.camera_dropout and cameras > 1
            else None
        )
        corruption = None
        if settings.corruption is not None:
            corruption = draw_corruption(request.corruption_random(), settings.corruption)
        return ClipDraw(image, bev, looks, dropped, corruption)


@dataclass(frozen=True)
class FrameView:
    """All that is known of a sample when something else is read for it: its drive, the frame as stored, what was drawn
    for its clip, the working frame before augmentation [4, 4], and the augmented inputs (a batch of one).
    """

    drive: DriveSummary
    labelled: LabelledFrame
    request: FrameRequest
    draw: ClipDraw
    working_from_ego: Tensor
    inputs: DetectorInputs


class ExtraReader(Protocol):
    """Reads one more thing for a sample, in the process that loads it (so it must be picklable): tensors, dataclasses and
    lists of them, or None where the recording has none.
    """

    def __call__(self, view: FrameView) -> Any: ...


def make_sample(
    labelled: LabelledFrame,
    request: FrameRequest,
    draw: ClipDraw,
    source: str,
    augmentation: AugmentationSettings,
    data: DataSettings,
    working_from_ego: Tensor,
    points: Tensor | None = None,
) -> TrainingSample:
    """The augmented sample of one frame. working_from_ego [4, 4]: the detector's working frame before
    augmentation. points [P, 5]: the frame's LiDAR cloud, ego frame.
    """
    ego_from_working = invert_rigid(working_from_ego)
    frame = labelled.frame
    mask = frame.camera_mask.clone()
    if draw.dropped_camera is not None and int(mask.sum()) > 1:
        mask[draw.dropped_camera] = False
    seen = frame if draw.corruption is None else draw.corruption.frame(frame)
    augmented = draw.image.apply(seen)
    images = distort(augmented.images, draw.looks) if draw.looks else augmented.images
    if augmentation.grid_mask is not None:
        visible = draw_grid(request.frame_random(), frame.image_size, augmentation.grid_mask)
        images = images if visible is None else mask_images(images, visible)
    if not mask.all():
        images = images * mask[:, None, None, None]
    cameras = len(frame.images)
    inputs = DetectorInputs(
        images=images[None],
        image_from_working=draw.bev.projection(augmented.image_from_ego_anchor() @ ego_from_working)[None],
        camera_mask=mask[None],
        stamps=torch.tensor([frame.stamp_ns * 1e-9], dtype=torch.float64),
        world_from_working=draw.bev.pose(frame.world_from_ego_anchor @ ego_from_working)[None],
        intrinsics=frame.intrinsics[None],
        working_from_camera=(working_from_ego @ frame.ego_from_camera.double())[None],
        image_augmentation=draw.image.augmented_from_original.float().expand(1, cameras, 3, 3),
        bev_augmentation=draw.bev.matrix.float()[None],
        points=None if points is None else (augmented_cloud(points, draw.bev, working_from_ego),),
    )
    counted = boxes_that_count(labelled.num_lidar_points, labelled.visibility, data.min_lidar_points)
    boxes = draw.bev.boxes(labelled.boxes[counted].transformed(working_from_ego))
    depth = depth_maps(labelled.depth_points, draw.image.augmented_from_original, cameras, frame.image_size)
    depth = depth * mask[:, None, None]
    return TrainingSample(inputs, *ground_truth(boxes, data.max_range), depth, request, source)


def augmented_cloud(points: Tensor, augmentation: BevAugmentation, working_from_ego: Tensor) -> Tensor:
    """A cloud [P, 5] of the ego frame in the augmented working frame."""
    working = moved_cloud(points, working_from_ego)
    return torch.cat([augmentation.points(working[:, :3]), working[:, 3:]], 1)


def ground_truth(boxes: Boxes3D, max_range: float) -> tuple[GroundTruth, GroundTruth]:
    """Boxes within `max_range` (m, in the plane) as the losses take them, the nearest first, and those beyond."""
    distance = boxes.center[:, :2].norm(dim=1)
    order = distance.argsort(stable=True)
    boxes, inside = boxes[order], distance[order] <= max_range
    values = torch.cat([boxes.center, boxes.size, boxes.yaw[:, None], boxes.velocity[:, :2]], 1).float()
    truth = GroundTruth(values, boxes.label, boxes.track_id)
    return truth[inside], truth[~inside]


def collate(samples: list[TrainingSample]) -> TrainingBatch:
    """One batch of samples with the same number of cameras."""
    cameras = {s.inputs.images.shape[1] for s in samples}
    if len(cameras) > 1:
        raise ValueError(
            f"drives with {sorted(cameras)} cameras can't share a batch; train on drives of one rig"
        )
    return TrainingBatch(
        DetectorInputs.concatenated([s.inputs for s in samples]),
        [s.truth for s in samples],
        [s.beyond for s in samples],
        torch.stack([s.depth for s in samples]),
        torch.tensor([s.request.first for s in samples]),
        tuple(s.describe() for s in samples),
        {name: [s.extras[name] for s in samples] for name in samples[0].extras},
        tuple(s.boxed for s in samples),
    )
