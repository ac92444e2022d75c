"""What a frozen backbone says of every stored frame, kept beside the drive: most of a training step's time on a CPU is the
backbone, and a frozen one says the same each time.

A drive's folder gains one file a level, `features-<key>-<stride>.f16` (float16 [F, N, C, h, w]), and where training mirrors the
world another for the mirrored images; the key is made of the backbone's name, weights and precision, so another backbone never
reads them.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dualview.detectors.detector import Detector
from dualview.detectors.inputs import DetectorInputs, normalize_images
from dualview.detectors.prediction import Prediction
from dualview.detectors.result_cache import network_digest
from dualview.errors import ConfigError
from dualview.networks.image_backbone import ImageBackbone
from dualview.training.array_file import reserve, write_error
from dualview.training.drive_store import Drive, DriveSummary, drive_lock
from dualview.training.objectives import Objective, SampleNeeds
from dualview.training.recipe import Recipe
from dualview.training.samples import FrameView, TrainingBatch

EXTRA = "image_features"


@dataclass(frozen=True)
class FeatureFiles:
    """Where the maps of a backbone lie: its key, and for each level stride and channels."""

    key: str
    strides: tuple[int, ...]
    channels: tuple[int, ...]

    def of(
        self, drive: DriveSummary, image_size: tuple[int, int], mirrored: bool = False
    ) -> list[tuple[Path, tuple[int, ...]]]:
        """File and shape [F, N, C, h, w] of each level of a drive whose images are (height, width)."""
        height, width = image_size
        shape, name = (len(drive), drive.cameras), f"features-{self.key}{'-mirrored' if mirrored else ''}"
        return [
            (drive.folder / f"{name}-{stride}.f16", (*shape, channels, height // stride, width // stride))
            for stride, channels in zip(self.strides, self.channels, strict=True)
        ]

    def complete(self, drive: DriveSummary, image_size: tuple[int, int], mirrored: bool = False) -> bool:
        """Whether every level is there, whole."""
        levels = self.of(drive, image_size, mirrored)
        return all(path.is_file() and path.stat().st_size == 2 * np.prod(shape) for path, shape in levels)


@dataclass(frozen=True)
class FeatureReader:
    """The maps of a sample's images, as they are or mirrored, float16 [1, N, C, h, w] a level."""

    files: FeatureFiles

    def __call__(self, view: FrameView) -> list[Tensor]:
        maps = []
        for path, shape in self.files.of(view.drive, view.inputs.image_size, view.draw.image.mirrors):
            stored = np.memmap(path, np.float16, "r", shape=shape)
            maps.append(torch.from_numpy(np.array(stored[view.request.frame]))[None])
        return maps


class KnownFeatures(Objective):
    """No objective but an input: the frozen backbone's maps from the store."""

    def __init__(self, files: FeatureFiles) -> None:
        super().__init__()
        self._files = files

    @property
    def needs(self) -> SampleNeeds:
        """The maps of every sample."""
        return SampleNeeds(readers=((EXTRA, FeatureReader(self._files)),))

    def complete(self, inputs: DetectorInputs, batch: TrainingBatch) -> DetectorInputs:
        """`inputs.image_features`."""
        levels = zip(*batch.extras[EXTRA], strict=True)
        return replace(inputs, image_features=tuple(torch.cat(level).float() for level in levels))

    def losses(self, prediction: Prediction, batch: TrainingBatch) -> dict[str, Tensor]:
        """None."""
        return {}


def backbone_key(backbone: ImageBackbone, precision: str) -> str:
    """What tells two backbones apart, in 16 hexadecimal digits."""
    return network_digest(backbone, f"{backbone.strides} {precision}")


def known_features(
    recipe: Recipe, detector: Detector, drives: Sequence[DriveSummary], tell: Callable[[str], None]
) -> KnownFeatures | None:
    """What `recipe.cache_features` asks for: the store of all drives, filled where it isn't; of several runs at once, one fills
    each drive. None if it doesn't ask.

    Raises ConfigError if the backbone isn't frozen as a whole, or the detector has none; BagError if the disk is full.
    """
    if not recipe.cache_features:
        return None
    backbone = detector.image_backbone
    if backbone is None or not detector.takes_known_features:
        raise ConfigError(f"{detector.config.name} can't start from a backbone's maps: leave cache_features out")
    learning = sum(p.requires_grad for p in backbone.parameters())
    if learning:
        raise ConfigError(
            f"cache_features needs the whole backbone frozen, but {learning} of its tensors learn: "
            "name image_backbone in frozen (with start_from), or raise freeze_stages"
        )
    files = FeatureFiles(backbone_key(backbone, recipe.precision), backbone.strides, backbone.channels)
    size = detector.config.image_size
    bev = recipe.augmentation.bev
    mirrors = recipe.augmentation.mirror == "together" and bev is not None and (bev.flip_x or bev.flip_y)
    variants = (False, True) if mirrors else (False,)
    missing = [(d, mirrored) for d in drives for mirrored in variants if not files.complete(d, size, mirrored)]
    if missing:
        frames, folders = sum(len(drive) for drive, _ in missing), {drive.folder for drive, _ in missing}
        tell(f"the backbone's maps of {frames} frames of {len(folders)} drives are computed once")
    was_training = backbone.training
    backbone.eval()
    busy = functools.cache(lambda: tell("another run is at work on the same drives: waiting for it where it is ahead"))
    for number, (summary, mirrored) in enumerate(missing):
        with drive_lock(summary.folder, busy):
            if not files.complete(summary, size, mirrored):  # else another run has filled it by now
                levels = files.of(summary, size, mirrored)
                store_features(Drive(summary.folder), levels, backbone, recipe.precision, mirrored)
        if (number + 1) % 10 == 0:
            tell(f"{number + 1} of {len(missing)} parts")
    backbone.train(was_training)
    return KnownFeatures(files)


@torch.inference_mode()
def store_features(
    drive: Drive,
    levels: Sequence[tuple[Path, tuple[int, ...]]],
    backbone: ImageBackbone,
    precision: str,
    mirrored: bool = False,
) -> None:
    """Write the maps of one drive, of its images left for right if `mirrored`, to `levels` (see `FeatureFiles.of`); the files
    get their names when all of them are whole. Hold the drive's lock meanwhile. Raises BagError, a DiskFullError if there is no
    room.
    """
    written = [path.with_name(f".{path.name}.{os.getpid()}.partial") for path, _ in levels]
    device = next(backbone.parameters()).device
    try:
        with contextlib.ExitStack() as stack:
            # Written, not mapped into memory: where a full disk can't take a mapped page, it kills the process.
            targets = [stack.enter_context(path.open("wb")) for path in written]
            for target, (_, shape) in zip(targets, levels, strict=True):
                reserve(target, 2 * int(np.prod(shape)))
            for index in range(len(drive)):
                stored_images = drive.frame(index).frame.images
                images = normalize_images((stored_images.flip(-1) if mirrored else stored_images).to(device))
                with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
                    maps = backbone(images.contiguous(memory_format=torch.channels_last))
                for target, found, (_, shape) in zip(targets, maps, levels, strict=True):
                    assert found.shape == shape[1:]
                    target.write(found.float().clamp(-6e4, 6e4).half().cpu().numpy().tobytes())
        for temporary, (path, _) in zip(written, levels, strict=True):
            os.replace(temporary, path)
    except OSError as error:
        raise write_error(
            f"the backbone's maps of {drive.folder.name} can't be written", error, ", or leave cache_features out"
        ) from error
    finally:
        for temporary in written:
            temporary.unlink(missing_ok=True)
