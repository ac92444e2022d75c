"""Label maps of the small world, written as `dualview label-maps` does, without a teacher."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from small_world import START_NS

from dualview.geometry.bev_grid import BevGrid
from dualview.teachers.bev_pooling import BevLabel
from dualview.teachers.label_store import DRIVE_FILE, FORMAT, SET_FILE, grid_entry, recording_key, write_label

GRID = BevGrid(-32.0, -32.0, 4.0, 16, 16)  # of the small recipe's BEV map
CHANNELS = 6


def write_maps(
    folder: Path,
    recordings: Sequence[Path],
    grid: BevGrid = GRID,
    channels: int = CHANNELS,
    frames: Sequence[int] = range(24),
    label_at: Callable[[Path, int], BevLabel] | None = None,
) -> Path:
    """Maps of the given frames (10 Hz) of each recording; label_at(recording, frame): what they hold."""
    label_at = label_at or (lambda recording, frame: ramp(grid, channels, frame))
    folder.mkdir(parents=True, exist_ok=True)
    content = {"format": FORMAT, "grid": grid_entry(grid), "channels": channels, "components": None}
    (folder / SET_FILE).write_text(json.dumps(content))
    for recording in recordings:
        own = folder / recording_key(recording)
        own.mkdir(exist_ok=True)
        stamps = [START_NS + frame * 100_000_000 for frame in frames]
        for frame, stamp in zip(frames, stamps, strict=True):
            write_label(own, stamp, label_at(recording, frame))
        (own / DRIVE_FILE).write_text(json.dumps({"source": str(recording.resolve()), "stamps": stamps}))
    return folder


def ramp(grid: BevGrid, channels: int, frame: int) -> BevLabel:
    """Every other row is known; vectors depend smoothly on the place."""
    cells = torch.arange(grid.rows * grid.columns)
    cells = cells[(cells // grid.columns) % 2 == frame % 2]
    place = torch.stack([cells // grid.columns, cells % grid.columns], 1) / 8.0
    turns = torch.arange(1, channels + 1) * 0.7
    return BevLabel(cells, torch.cos(place.sum(1, keepdim=True) * turns), torch.ones(len(cells)))
