"""A recording as a video, or as a strip of a few of its frames."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from dualview.drawing.frame_picture import frame_picture
from dualview.drawing.recording import frames_per_second, recording_views
from dualview.drawing.video import VideoWriter, strip, write_picture
from dualview.drawing.view import LabelledBoxes
from dualview.errors import BagError
from dualview.scene.assembler import ClosedFrame
from dualview.scene.bag_reader import BagReader
from dualview.scene.offline import iterate_frames
from dualview.scene.rig import Rig

Tracks = Mapping[int, LabelledBoxes] | None


def draw_video(
    path: Path,
    bag: Path,
    rig: Rig,
    tracks: Tracks,
    reach: float = 50.0,
    progress: Callable[[int], None] | None = None,
    **options: Any,
) -> int:
    """Write all frames of a recording as mp4 at the recording's own rate; returns their number.

    tracks, options: as `recording_views` takes them. Raises BagError if no frame can be made of the recording.
    """
    stamps = _stamps(bag, rig)
    path.parent.mkdir(parents=True, exist_ok=True)
    with VideoWriter(path, frames_per_second(stamps)) as video:
        for view in recording_views(bag, rig, tracks, **options):
            video.add(frame_picture(view, reach))
            if progress:
                progress(video.count)
    return video.count


def draw_strip(
    path: Path, bag: Path, rig: Rig, tracks: Tracks, count: int = 3, reach: float = 50.0, **options: Any
) -> int:
    """Write `count` frames, evenly spread over the recording, one below the other; returns how many there are."""
    stamps = _stamps(bag, rig)
    count = max(1, min(count, len(stamps)))
    chosen = {stamps[round((i + 0.5) * len(stamps) / count - 0.5)] for i in range(count)}
    views = recording_views(bag, rig, tracks, stamps=chosen, **options)
    write_picture(path, strip([frame_picture(view, reach) for view in views]))
    return len(chosen)


def _stamps(bag: Path, rig: Rig) -> list[int]:
    with BagReader(bag) as reader:
        stamps = [c.stamp_ns for c in iterate_frames(reader, rig) if isinstance(c, ClosedFrame)]
    if not stamps:
        raise BagError(f"no frame can be made of {bag} with rig '{rig.name}': check its camera_info and tf")
    return stamps
