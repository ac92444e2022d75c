"""The recipe's section that lets a LiDAR teacher help: which teacher, which paper, and what is changed of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from dualview.detectors.json_config import override
from dualview.errors import ConfigError
from dualview.supervision.distillation import DistillationSettings

METHODS = {"tig-bev": DistillationSettings.tig_bev, "rayd3d": DistillationSettings.rayd3d}


@dataclass(frozen=True)
class LidarDistillation:
    """method: "tig-bev" (arXiv 2212.13979) or "rayd3d" (arXiv 2603.07493), as published as far as they say. teacher: a
    checkpoint of a LiDAR detector (.safetensors, or its name in models/); not needed where only depth losses are left.
    overrides: fields of `DistillationSettings` by dotted path; null turns a part off ("inner_depth: null"), {} adds one
    with its defaults ("rays: {}" beside TiG-BEV).
    """

    method: Literal["tig-bev", "rayd3d"]
    teacher: str | None = None
    overrides: dict = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.settings.needs_teacher and not self.settings.needs_object_depth:
            raise ValueError("every part is turned off in overrides: leave the section out, or leave one part on")
        if self.settings.needs_teacher and self.teacher is None:
            raise ValueError(
                f"{self.method} distils a LiDAR teacher: set teacher to the weights of one (`dualview train centerpoint_tiny` "
                "trains it), or leave only depth losses on"
            )

    @property
    def settings(self) -> DistillationSettings:
        """What is on, with which weights. Raises ConfigError for a wrong override."""
        try:
            return override(METHODS[self.method](), self.overrides)
        except ConfigError as error:
            raise ConfigError(f"lidar_distillation.overrides: {error}") from error

    def asks_for(self, part: str) -> bool:
        """Whether the recipe itself names a part, rather than the method's defaults."""
        return any(path.split(".")[0] == part for path in self.overrides)
