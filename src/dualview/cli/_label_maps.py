"""What `dualview evaluate --label-maps` adds to frames for an oracle."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dualview.detectors.detector import Settings
    from dualview.scene.assembler import ClosedFrame

Complete = Callable[["ClosedFrame"], "ClosedFrame"]


def label_map_reader(
    arguments: argparse.Namespace, detector: Settings
) -> Callable[[str | Path], Complete | None]:
    """Recording -> what gives its frames their label maps (all zero for a frame without one); None for detectors that
    don't read any.

    Raises ConfigError if a detector reads label maps and the folder isn't named, holds none that fit, or (when asked for a
    recording) none of it.
    """
    oracle = getattr(detector, "oracle", None)
    grid = detector.bev_grid
    if oracle is None or not oracle.map_channels or grid is None:
        return lambda recording: None
    import numpy as np

    from dualview.errors import ConfigError
    from dualview.teachers.label_store import open_label_maps

    if arguments.label_maps is None:
        raise ConfigError(f"{detector.name} reads label maps: name their folder with --label-maps DIR")
    if arguments.corruptions:
        raise ConfigError(
            f"{detector.name} reads label maps, which --corruptions don't change: leave them out"
        )
    maps = open_label_maps(arguments.label_maps, grid)
    if maps.channels != oracle.map_channels:
        raise ConfigError(
            f"{detector.name} reads label maps of {oracle.map_channels} channels, those in {maps.directory} have "
            f"{maps.channels}: make others (`dualview label-maps --pca {oracle.map_channels}`)"
        )
    empty = np.zeros((maps.channels, grid.rows, grid.columns), np.float16)

    def of(recording: str | Path) -> Complete:
        path = Path(recording).expanduser().resolve()
        if not len(maps.stamps(path)):
            raise ConfigError(f"{maps.directory} holds no label maps of {path.name}: make them first")

        def complete(closed: ClosedFrame) -> ClosedFrame:
            label = maps.dense(path, closed.stamp_ns)
            return replace(closed, label_map=empty if label is None else label.features.numpy())

        return complete

    return of
