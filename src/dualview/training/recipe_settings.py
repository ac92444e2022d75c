"""The parts of a recipe: which recordings, how clips walk through them, augmentation, losses, optimiser."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from dualview.scene.augmentation.bev import BevAugmentationSettings
from dualview.scene.augmentation.corruption import CorruptionAugmentationSettings
from dualview.scene.augmentation.grid_mask import GridMaskSettings
from dualview.scene.augmentation.image import ImageAugmentationSettings
from dualview.scene.augmentation.photometric import PhotometricSettings
from dualview.supervision.denoising import DenoisingConfig


@dataclass(frozen=True)
class DataSettings:
    """Which recordings, and what of them.

    train: bag files, rosbag2 folders, folders full of recordings, or patterns such as
    drives/*.mcap; "~" and environment variables are filled in. rig: a rig's name or file. cache: folder where
    drives are kept at network size (0.8 gigabytes for a thousand frames of six 128x352 images). max_rate:
    frames per second that are kept. interpolate: frames between two annotated keyframes at most `max_gap` (s)
    apart get boxes in between. max_range (m) and min_lidar_points say which boxes count; a box whose points
    weren't counted counts if it isn't known to be hidden. broken: what to do with a recording that can't be
    read. workers: processes that load (0: in the training process).
    """

    train: tuple[str, ...] = ()
    rig: str = "synthetic"
    cache: str = "~/.cache/dualview/drives"
    max_rate: float = 10.0
    interpolate: bool = True
    max_gap: float = 0.75
    max_range: float = 55.0
    min_lidar_points: int = 1
    broken: Literal["stop", "skip"] = "stop"
    workers: int = 1

    @property
    def cache_folder(self) -> Path:
        """`cache`, with "~" and environment variables filled in."""
        return Path(os.path.expandvars(self.cache)).expanduser()

    def __post_init__(self) -> None:
        require_positive(self, "max_rate", "max_gap", "max_range")


@dataclass(frozen=True)
class ClipSettings:
    """How a slot of the batch walks a drive.

    max_frames: frames until it moves on to another drive. min_rate, max_rate: each clip has its own rate
    (frames per second), drawn between them evenly on a logarithmic scale. skip_probability: before each
    frame, one frame more is left out. reverse_probability: the clip is played backwards (velocities stay
    physical).
    """

    max_frames: int = 40
    min_rate: float = 1.0
    max_rate: float = 10.0
    skip_probability: float = 0.5
    reverse_probability: float = 0.1

    def __post_init__(self) -> None:
        require_positive(self, "max_frames", "min_rate", "max_rate")
        require_fractions(self, "skip_probability", "reverse_probability")
        if self.min_rate > self.max_rate:
            raise ValueError(f"min_rate {self.min_rate} must not be above max_rate {self.max_rate}")


@dataclass(frozen=True)
class AugmentationSettings:
    """null turns one off. camera_dropout: probability that a clip lacks one camera. corruption: RoboBEV's corruptions, off
    unless asked for ({} = with the defaults): a detector that trained with them isn't surprised by them in evaluation.
    mirror: "apart" mirrors images and BEV map each by its own draw, as published; "together" mirrors the images exactly
    when the map is mirrored, as in a mirrored world. Apart, the side of a car that one sees doesn't tell any more where it
    heads; with few drives to learn from, headings and velocities need "together".
    """

    image: ImageAugmentationSettings | None = field(default_factory=ImageAugmentationSettings)
    bev: BevAugmentationSettings | None = field(default_factory=BevAugmentationSettings)
    photometric: PhotometricSettings | None = field(default_factory=PhotometricSettings)
    grid_mask: GridMaskSettings | None = field(default_factory=GridMaskSettings)
    camera_dropout: float = 0.05
    corruption: CorruptionAugmentationSettings | None = None
    mirror: Literal["apart", "together"] = "apart"

    def __post_init__(self) -> None:
        require_fractions(self, "camera_dropout")


@dataclass(frozen=True)
class LossSettings:
    """Weights of the loss terms beside those of classes and boxes, which are Sparse4Dv3's.

    denoising null: none. one_to_many: in the single-frame layers each box may be matched by so many instances
    (1 = one to one). box_threshold: matched instances below this class probability get no box loss, as
    published; 0 teaches boxes from the first step. heatmap, center_box: of the centre head, if the detector
    has one; center_velocity: of velocities among its numbers (published: 0.2, for BEVDet4D 1). lift_depth,
    dense_depth: of the two depth outputs; max_depth in m. cones_without_heading, reversible_barriers: traffic cones
    have no heading, barriers no front.
    """

    denoising: DenoisingConfig | None = field(default_factory=DenoisingConfig)
    one_to_many: int = 1
    box_threshold: float = 0.05
    heatmap: float = 1.0
    center_box: float = 0.25
    center_velocity: float = 0.2
    lift_depth: float = 0.15
    dense_depth: float = 0.1
    max_depth: float = 60.0
    cones_without_heading: bool = True
    reversible_barriers: bool = True

    def __post_init__(self) -> None:
        require_positive(self, "one_to_many", "max_depth")
        for name in ("box_threshold", "heatmap", "center_box", "center_velocity", "lift_depth", "dense_depth"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be 0 or more, got {getattr(self, name)}")


@dataclass(frozen=True)
class OptimizerSettings:
    """AdamW. schedule "cosine": linear warm-up over `warmup_steps` from `warmup_from` of the rate, then half a cosine down
    to `final_factor` of it. "steps": the same warm-up, then a tenth of the rate at each of `decay_at` (fractions of the
    run). "cyclic": from a tenth up to the rate at 40 % of the run, then down to `final_factor`, without warm-up, and AdamW's
    first beta the other way round.

    backbone_factor, neck_factor, bev_factor: on the rates of the image backbone, of the feature pyramid and of the BEV
    branch. clip: largest L2 norm of the gradient. ema: decay of the averaged weights that are saved (0 = none).
    """

    learning_rate: float = 2e-4
    weight_decay: float = 1e-3
    backbone_factor: float = 0.5
    neck_factor: float = 1.0
    bev_factor: float = 1.0
    warmup_steps: int = 500
    final_factor: float = 1e-3
    clip: float = 25.0
    ema: float = 0.999
    schedule: Literal["cosine", "steps", "cyclic"] = "cosine"
    warmup_from: float = 1 / 3
    decay_at: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        require_positive(self, "learning_rate", "clip")
        require_fractions(self, "warmup_from")
        if (self.schedule == "steps") != bool(self.decay_at) or any(not 0 < at < 1 for at in self.decay_at):
            raise ValueError(
                f"decay_at {list(self.decay_at)} must name fractions of the run for schedule 'steps', and nothing otherwise"
            )
        if not 0.0 <= self.ema < 1.0:
            raise ValueError(f"ema {self.ema} must lie in 0..1, 1 left out")


def require_positive(settings: Any, *names: str) -> None:
    """Raises ValueError for the first of these fields that is zero or less."""
    for name in names:
        if getattr(settings, name) <= 0:
            raise ValueError(f"{name} must be positive, got {getattr(settings, name)}")


def require_fractions(settings: Any, *names: str) -> None:
    """Raises ValueError for the first of these fields that lies outside 0..1."""
    for name in names:
        if not 0.0 <= getattr(settings, name) <= 1.0:
            raise ValueError(f"{name} must lie in 0..1, got {getattr(settings, name)}")
