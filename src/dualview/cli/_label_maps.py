"""What `dualview evaluate --label-maps` adds to frames for an oracle."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dualview.detectors.detector import Settings
    from dualview.scene.assembler import ClosedFrame

Complete = Callable[["ClosedFrame"], "ClosedFrame | None"]
_ENOUGH = 0.9  # of the scored instants; at the ends of a recording some may lack a map


def label_map_reader(
    arguments: argparse.Namespace, detector: Settings, tolerance_s: float
) -> Callable[[str | Path, Sequence[int]], Complete | None]:
    """(recording, stamps (ns) at which it is scored) -> what gives its frames their label maps, or None for a frame without
    one, which the detector can't see; None for detectors that don't read any.

    Raises ConfigError if a detector reads label maps and the folder isn't named, holds none that fit, or (when asked for a
    recording) none of it, or none within `tolerance_s` of many stamps.
    """
    oracle = getattr(detector, "oracle", None)
    grid = detector.bev_grid
    if oracle is None or not oracle.map_channels or grid is None:
        return lambda recording, scored_ns: None
    from dualview.errors import ConfigError
    from dualview.evaluation.keyframes import match_stamps
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

    def of(recording: str | Path, scored_ns: Sequence[int]) -> Complete:
        path = Path(recording).expanduser().resolve()
        stamps = maps.stamps(path).tolist()
        if not stamps:
            raise ConfigError(f"{maps.directory} holds no label maps of {path.name}: make them first")
        found = sum(match is not None for match in match_stamps(scored_ns, stamps, tolerance_s))
        if found < _ENOUGH * len(scored_ns):
            raise ConfigError(
                f"{maps.directory} has label maps for {found} of the {len(scored_ns)} labelled instants of {path.name}, the others would "
                "count as missed: make them at the images' rate (`dualview label-maps --rate HZ --teacher-rate HZ`), or score fewer "
                "instants (--keyframe-interval S)"
            )

        def complete(closed: ClosedFrame) -> ClosedFrame | None:
            label = maps.dense(path, closed.stamp_ns)
            return None if label is None else replace(closed, label_map=label.features.numpy())

        return complete

    return of
