"""Everything that decides what a set of label maps looks like."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from dualview.errors import ConfigError
from dualview.geometry.bev_grid import POINT_HEIGHTS, BevGrid
from dualview.teachers.folder_lock import FOLDER_LOCK, LOCK_FILE, WORK, is_held, locked
from dualview.teachers.image_teacher import ImageTeacher, TeacherChoice
from dualview.teachers.label_store import FORMAT, SET_FILE
from dualview.teachers.lifting import LiftSettings
from dualview.teachers.multi_scale import EnsembleSettings


@dataclass(frozen=True)
class LabelSettings:
    """teacher, ensemble, lift: see there. long_side: px of the image that the teacher sees at scale 1 (None:
    1596, or 800 for EfficientNet-Lite). grid, height (m): of the map and of its voxels. rate: labels per
    second; teacher_rate: frames per second whose features are read. components: channels that are kept (None:
    all). accumulation: "full" gathers the street over the drive and every object over its track; "static"
    the street only, and leaves objects out; "none" uses each frame's own sweep.
    """

    teacher: TeacherChoice
    ensemble: EnsembleSettings = field(default_factory=EnsembleSettings)
    lift: LiftSettings = field(default_factory=LiftSettings)
    long_side: int | None = None
    grid: BevGrid = field(default_factory=lambda: BevGrid.centered(51.2, 0.8, *POINT_HEIGHTS))
    height: float = 0.5
    rate: float = 10.0
    teacher_rate: float = 2.0
    components: int | None = None
    accumulation: Literal["full", "static", "none"] = "full"

    def __post_init__(self) -> None:
        for name in ("rate", "teacher_rate", "height", "long_side"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ConfigError(f"{name.replace('_', ' ')} must be above 0, not {value}")

    @property
    def teacher_side(self) -> int:
        """long_side, or the teacher's default."""
        return self.long_side or (800 if self.teacher.name.startswith("efficientnet") else 1596)

    @property
    def label_rate(self) -> float:
        """Labels per second: without accumulation only frames that the teacher saw can have one."""
        return min(self.rate, self.teacher_rate) if self.accumulation == "none" else self.rate

    def entry(self, teacher: ImageTeacher) -> dict[str, Any]:
        """What the set's JSON file holds."""
        kept = asdict(self)
        kept["teacher"] = {"name": self.teacher.name, "fingerprint": teacher.fingerprint}
        kept["ensemble"].pop("batch")
        kept |= {
            "format": FORMAT,
            "channels": self.components or teacher.channels,
            "long_side": self.teacher_side,
        }
        return json.loads(json.dumps(kept))


def claim_folder(directory: Path, settings: LabelSettings, teacher: ImageTeacher) -> None:
    """Make `directory` a set of label maps with these settings, or see that it is one.

    Raises ConfigError if it holds label maps, or some half made, that were made otherwise, naming what differs.
    """
    wanted, path = settings.entry(teacher), directory / SET_FILE
    directory.mkdir(parents=True, exist_ok=True)
    if not path.is_file() or (json.loads(path.read_text()) != wanted and not _is_begun(directory)):
        with locked(directory / FOLDER_LOCK, lambda: None):
            if not path.is_file() or not _is_begun(directory):
                partial = path.with_suffix(".partial")
                partial.write_text(json.dumps(wanted, indent=1))
                partial.replace(path)
    there = json.loads(path.read_text())
    differing = [key for key in sorted({*there, *wanted}) if there.get(key) != wanted.get(key)]
    if differing:
        what = "; ".join(f"{key}: {there.get(key)} there, {wanted.get(key)} asked" for key in differing)
        raise ConfigError(
            f"{directory} holds label maps that were made otherwise ({what}): name another folder, say the same, or delete "
            "it to begin anew"
        )


def _is_begun(directory: Path) -> bool:
    """Whether a set holds anything made with its settings, or somebody is making it."""
    return any(directory.rglob("*.safetensors")) or any(is_held(path) for path in directory.glob(f"{WORK}/*/{LOCK_FILE}"))
