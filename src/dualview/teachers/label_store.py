"""Label maps on disk, and the class that training reads them with.

One folder a set, `label_maps.json` (how they were made) and, if channels were reduced, `basis.safetensors`; in
it a folder a recording, complete as soon as it exists: `drive.json` and one `<stamp>.safetensors` a frame with
the occupied cells only (cells int32 [K], features float16 [K, C], points int32 [K]).
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dualview.errors import BagError, ConfigError
from dualview.geometry.bev_grid import BevGrid
from dualview.teachers.bev_pooling import BevLabel
from dualview.teachers.feature_basis import FeatureBasis
from dualview.teachers.feature_cloud import read_file, to_half, write_tensors
from dualview.teachers.label_warp import DenseLabel, warp_cells

FORMAT = 1
SET_FILE, DRIVE_FILE, BASIS_FILE = "label_maps.json", "drive.json", "basis.safetensors"
_SAME_NS = 5_000_000  # a label this near is the frame's


def write_label(folder: Path, stamp_ns: int, label: BevLabel) -> None:
    """Write the label of one frame; it appears only when it is whole."""
    write_tensors(
        folder / f"{stamp_ns}.safetensors",
        {
            "cells": label.cells.int(),
            "features": to_half(label.features),
            "points": label.points.clamp(max=2**31 - 1).int(),
        },
    )


def recording_key(path: Path) -> str:
    """A name for the label maps of a recording that a copy of it elsewhere has too: its name, and the names
    and sizes of its files. Raises BagError if it isn't there.
    """
    files = sorted(p for p in path.iterdir() if p.is_file()) if path.is_dir() else [path]
    if not files or not all(p.exists() for p in files):
        raise BagError(f"there is no recording at {path}: check the path")
    content = repr([(p.name, p.stat().st_size) for p in files])
    return f"{path.stem[:40]}-{hashlib.sha256(content.encode()).hexdigest()[:16]}"


@dataclass
class LabelMaps:
    """The label maps of a folder that `dualview label-maps` made. `channels` of their features on `grid` (ego
    frame at the anchor stamp). Frames are read when they are asked for; nothing is kept.

    Raises ConfigError if the folder holds none.
    """

    directory: Path
    grid: BevGrid = field(init=False)
    channels: int = field(init=False)
    settings: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        self.directory = Path(self.directory).expanduser()
        try:
            self.settings = json.loads((self.directory / SET_FILE).read_text())
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"{self.directory} holds no label maps ({error}): make them with `dualview label-maps BAG --out DIR`"
            ) from error
        if self.settings.get("format") != FORMAT:
            raise ConfigError(f"{self.directory} holds label maps of another version: make them again")
        self.grid = BevGrid(**self.settings["grid"])
        self.channels = int(self.settings["channels"])
        self._sources: dict[str, list[Path]] = {}
        self._stamps: dict[Path, Tensor] = {}
        for folder in sorted(p.parent for p in self.directory.glob(f"*/{DRIVE_FILE}")):
            info = json.loads((folder / DRIVE_FILE).read_text())
            self._sources.setdefault(info["source"], []).append(folder)
            self._stamps[folder] = torch.tensor(info["stamps"], dtype=torch.int64)

    def basis(self) -> FeatureBasis | None:
        """What the channels are in the teacher's; None if they are the teacher's own."""
        path = self.directory / BASIS_FILE
        return FeatureBasis.load(path) if self.settings["components"] else None

    def folder_of(self, recording: str | Path) -> Path | None:
        """Where the labels of a recording are: by its content, or, if it isn't there any more, by the path that they were
        made from. None if there are none, or if that path held several recordings one after the other.
        """
        if Path(recording).exists():
            folder = self.directory / recording_key(Path(recording))
            return folder if folder in self._stamps else None
        made = self._sources.get(str(recording), [])
        return made[0] if len(made) == 1 else None

    def stamps(self, recording: str | Path) -> Tensor:
        """int64 [F] (ns), rising: the frames of a recording that have a label."""
        folder = self.folder_of(recording)
        return torch.zeros(0, dtype=torch.int64) if folder is None else self._stamps[folder]

    def examples(self, count: int) -> list[BevLabel]:
        """At most `count` labels, evenly spread over all recordings and frames; the same for the same folder."""
        frames = [
            (folder, stamp) for folder in sorted(self._stamps) for stamp in self._stamps[folder].tolist()
        ]
        count = min(count, len(frames))
        chosen = [frames[round((i + 0.5) * len(frames) / count - 0.5)] for i in range(count)]
        return [_read_label(folder, stamp) for folder, stamp in chosen]

    def sparse(
        self, recording: str | Path, stamp_ns: int, working_from_ego: Tensor | None = None
    ) -> BevLabel | None:
        """The occupied cells of a frame (features float16); None if it has no label within 5 ms.
        working_from_ego [3, 3] or [4, 4]: the BEV augmentation, see `warp_label`.
        """
        folder, stamps = self.folder_of(recording), self.stamps(recording)
        if folder is None or not len(stamps):
            return None
        nearest = int((stamps - stamp_ns).abs().argmin())
        if abs(int(stamps[nearest]) - stamp_ns) > _SAME_NS:
            return None
        label = _read_label(folder, int(stamps[nearest]))
        return label if working_from_ego is None else warp_cells(label, self.grid, working_from_ego)

    def dense(
        self, recording: str | Path, stamp_ns: int, working_from_ego: Tensor | None = None
    ) -> DenseLabel | None:
        """The same as a map."""
        sparse = self.sparse(recording, stamp_ns, working_from_ego)
        return None if sparse is None else dense_label(sparse, self.grid)


def _read_label(folder: Path, stamp_ns: int) -> BevLabel:
    tensors = read_file(folder / f"{stamp_ns}.safetensors")
    return BevLabel(tensors["cells"].long(), tensors["features"], tensors["points"].float())


def open_label_maps(folder: str | Path, grid: BevGrid) -> LabelMaps:
    """The label maps of a folder ("~" and environment variables are filled in) for a detector whose BEV map lies on
    `grid`. Raises ConfigError if it holds none, or they have other cells.
    """
    maps = LabelMaps(Path(os.path.expandvars(str(folder))))
    if _cells(maps.grid) != _cells(grid):
        reach = f"--half-range {grid.columns * grid.resolution / 2:g} --resolution {grid.resolution:g}"
        raise ConfigError(
            f"the label maps in {maps.directory} are on another grid ({_spoken(maps.grid)}) than the detector's BEV map "
            f"({_spoken(grid)}): make others with `dualview label-maps {reach}`, or change overrides.bev.grid"
        )
    return maps


def _cells(grid: BevGrid) -> tuple[float, ...]:
    corner = (round(v, 4) for v in (grid.x_min, grid.y_min, grid.resolution))
    return (*corner, grid.columns, grid.rows)


def _spoken(grid: BevGrid) -> str:
    return (
        f"{grid.columns} x {grid.rows} cells of {grid.resolution:g} m from ({grid.x_min:g}, {grid.y_min:g}) m"
    )


def dense_label(label: BevLabel, grid: BevGrid) -> DenseLabel:
    """All cells of a map, the empty ones zero."""
    features = torch.zeros(label.features.shape[1], grid.rows * grid.columns, dtype=torch.float16)
    features[:, label.cells] = label.features.half().T
    mask = torch.zeros(grid.rows * grid.columns, dtype=torch.bool)
    mask[label.cells] = True
    return DenseLabel(features.view(-1, grid.rows, grid.columns), mask.view(grid.rows, grid.columns))


def grid_entry(grid: BevGrid) -> dict[str, float]:
    """A grid as the JSON file holds it."""
    return asdict(grid)
