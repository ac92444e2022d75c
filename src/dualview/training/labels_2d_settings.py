"""What a recipe says of 2D labels (its section `labels_2d`)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from dualview.supervision.image_box_matching import ImageBoxConfig
from dualview.training.label_distance import TYPICAL_HEIGHTS


@dataclass(frozen=True)
class Labels2DSettings:
    """Learning from rectangles in the images ("2D supervised fine-tuning"): which recordings, which depth, which weights.

    train: recordings of which only the 2D labels are used, named as in `data.train`; 3D labels that they may hold are never looked
    at. rig: theirs (null = `data.rig`). share: of the batch's slots that walk them, if `data.train` names recordings too; without
    any, all slots do. on_source: the 2D labels of the recordings of `data.train` are used as well, beside their 3D labels.
    classes: those that the labeller looked for (null = all of the detector's); in images nothing else is called background.
    min_score: labels below it only say where nothing is judged. So do those of objects beyond `data.max_range`: their depth says where
    they are, or else their height in the image and class_heights (m by class; {} = such labels count wherever they are).

    depth: the model whose maps `dualview label-depth` made (its --model), null = without depth. depth_folder: its --out (null = beside
    the recordings). metric: its --metric, for relative depth. own_depth: what the detector's own depth (`losses.lift_depth`,
    `losses.dense_depth`) learns from in the 2D-labelled recordings: their LiDAR ("lidar", as in the others) or the maps of
    `depth` ("maps").

    depth_of: what the predicted boxes are compared in, their "surface" that looks at the camera, as depth maps show objects, or their
    "center", as the paper may be read.

    weight: of all 2D terms against the 3D ones. giou_weight 0 leaves GIoU out. The other weights and rules are explained at
    `ImageBoxConfig`; depth_scale null compares logarithms of depth.
    """

    train: tuple[str, ...] = ()
    rig: str | None = None
    share: float = 0.5
    on_source: bool = False
    classes: tuple[str, ...] | None = None
    min_score: float = 0.0
    class_heights: dict[str, float] = field(default_factory=lambda: dict(TYPICAL_HEIGHTS))
    depth: str | None = None
    depth_folder: str | None = None
    metric: Literal["boxes", "lidar", "ground"] = "boxes"
    own_depth: Literal["lidar", "maps"] | None = None
    weight: float = 1.0
    class_weight: float = 2.0
    box_weight: float = 0.75
    giou_weight: float = 0.25
    depth_weight: float = 1.0
    depth_scale: float | None = 61.2
    depth_of: Literal["surface", "center"] = "surface"
    max_candidates: int = 300
    background_weight: float = 1.0

    def __post_init__(self) -> None:
        if not 0.0 < self.share < 1.0:
            raise ValueError(
                f"share {self.share} must lie between 0 and 1: it is the part of the slots that walk labels_2d.train"
            )
        weights = ("weight", "class_weight", "box_weight", "giou_weight", "depth_weight", "background_weight")
        for name in weights:
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        if any(height <= 0 for height in self.class_heights.values()):
            raise ValueError(f"class_heights must be positive (m), got {self.class_heights}")
        if self.own_depth == "maps" and self.depth is None:
            raise ValueError("own_depth: maps needs the name of the maps, depth: MODEL")
        if self.max_candidates < 1 or (self.depth_scale is not None and self.depth_scale <= 0):
            raise ValueError("max_candidates and depth_scale must be positive")

    @property
    def loss(self) -> ImageBoxConfig:
        """Weights and rules as the loss takes them."""
        return ImageBoxConfig(
            class_weight=self.class_weight,
            box_weight=self.box_weight,
            giou_weight=self.giou_weight,
            depth_weight=self.depth_weight,
            depth_scale=self.depth_scale,
            depth_of=self.depth_of,
            max_candidates=self.max_candidates,
            background_weight=self.background_weight,
        )
