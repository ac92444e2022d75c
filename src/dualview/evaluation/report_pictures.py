"""The pictures of a report and the sections around them: curves, worst frames, identity switches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dualview.drawing.frame_picture import frame_picture
from dualview.drawing.palette import class_color
from dualview.drawing.recording import recording_views
from dualview.drawing.video import write_picture
from dualview.drawing.view import LabelledBoxes
from dualview.errors import BagError
from dualview.evaluation.accumulation import IdSwitch
from dualview.evaluation.detection import DetectionScores
from dualview.evaluation.keyframes import Keyframe
from dualview.evaluation.protocol import Protocol
from dualview.evaluation.run import Drive
from dualview.evaluation.switch_strips import keyframes_around, nearest_frames, switch_strip, worst_switches
from dualview.evaluation.worst_frames import FrameErrors, worst_frames
from dualview.scene.frame import SurroundFrame
from dualview.scene.rig import Rig

_CAMERA_WIDTH = 960  # px, of the images that strips cut their windows from


def draw_curves(path: Path, detection: DetectionScores, protocol: Protocol) -> None:
    """One panel for each distance threshold with the curves of all classes that have labels."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4 * len(protocol.distance_thresholds), 4), layout="constrained")
    FigureCanvasAgg(figure)
    recall = np.linspace(0, 1, 101)
    panels = figure.subplots(1, len(protocol.distance_thresholds), sharey=True, squeeze=False)[0]
    for panel, distance in zip(panels, protocol.distance_thresholds, strict=True):
        for name, scores in detection.classes.items():
            if scores.label_count:
                color = tuple(0.85 * c / 255 for c in class_color(name))
                label = f"{name.replace('_', ' ')} {scores.average_precision[distance]:.2f}"
                panel.plot(recall, scores.precision[distance], color=color, label=label)
        panel.axvspan(0, protocol.min_recall, color="0.93")
        panel.axhspan(0, protocol.min_precision, color="0.93")
        panel.set(title=f"within {distance:g} m", xlabel="recall", xlim=(0, 1), ylim=(0, 1.02))
        if panel.get_legend_handles_labels()[0]:
            panel.legend(fontsize=7, title="AP", title_fontsize=7)
    panels[0].set_ylabel("precision")
    figure.savefig(path, dpi=90)


def worst_frames_section(
    folder: Path,
    drives: Sequence[Drive],
    keyframes: Sequence[Keyframe],
    rig: Rig,
    protocol: Protocol,
    count: int,
) -> str:
    """Pictures of the `count` worst keyframes, as Markdown; empty without any."""
    lines = []
    for number, errors in enumerate(worst_frames(keyframes, protocol, count), 1):
        name = f"worst_{number}.png"
        if _draw_frame(
            folder / name, errors, next(d for d in drives if d.name == errors.keyframe.drive), rig
        ):
            stamp = errors.keyframe.annotations.stamp_ns
            lines.append(f"{number}. {errors.keyframe.drive}, stamp {stamp}: {errors.misses} missed, {errors.false_alarms} false "
                         f"alarms (boxes from score {errors.threshold:.2f} on)\n\n   ![]({name})")  # fmt: skip
    return "## Worst frames\n\n" + "\n\n".join(lines) if lines else ""


def _draw_frame(path: Path, errors: FrameErrors, drive: Drive, rig: Rig) -> bool:
    """Draw the frame nearest to the keyframe with the boxes that count; False if the recording has none there."""
    prediction = errors.keyframe.prediction
    stamp = errors.keyframe.annotations.stamp_ns
    # the drive's own frame: the keyframe's prediction was moved to the keyframe's stamp
    nearest = min(drive.predictions, key=lambda p: abs(p.stamp_ns - stamp), default=None)
    if prediction is None or nearest is None:
        return False
    kept = nearest.boxes[nearest.boxes.score >= errors.threshold]
    tracks = {nearest.stamp_ns: LabelledBoxes(kept, nearest.class_names)}
    for view in recording_views(drive.path, rig, tracks, stamps={nearest.stamp_ns}, subtitle=drive.name):
        write_picture(path, frame_picture(view))
        return True
    return False


def switches_section(
    folder: Path,
    switches: Sequence[Mapping[str, Any]],
    drives: Sequence[Drive],
    keyframes: Sequence[Keyframe],
    rig: Rig,
    protocol: Protocol,
    count: int,
) -> str:
    """Strips of the `count` worst identity switches (metrics.json's `worst_id_switches`), as Markdown; empty without any."""
    chosen = worst_switches([IdSwitch(**s) for s in switches], count)
    if not chosen:
        return ""
    lines = [
        "## Identity switches",
        "The worst are those where an id is lost that the object had kept for longest, at each class's best score threshold; one of each "
        "object. Blue: the old id. Orange: the new one. White: labels, the object's own thicker. From above, up is away from the "
        "vehicle and the arcs are 5 m apart.",
    ]
    around = [
        keyframes_around(switch, [k for k in keyframes if k.drive == switch.drive]) for switch in chosen
    ]
    frames = {
        drive.name: _frames(drive, [k for ks in around for k in ks if k.drive == drive.name], rig, protocol)
        for drive in drives
    }
    for number, (switch, row) in enumerate(zip(chosen, around, strict=True), 1):
        name = f"id_switch_{number}.png"
        write_picture(folder / name, switch_strip(switch, row, frames[switch.drive]))
        seconds = (switch.stamp_ns - switch.last_ns) / 1e9
        lines.append(
            f"{number}. {switch.drive}, stamp {switch.stamp_ns}: {switch.class_name} '{switch.instance_id}', {switch.distance:.0f} m away, "
            f"had id {switch.before} for {switch.held} keyframes and gets {switch.after}, {seconds:.2f} s after it was last found"
            f"\n\n   ![]({name})"
        )
    return "\n\n".join(lines)


def _frames(
    drive: Drive, keyframes: Sequence[Keyframe], rig: Rig, protocol: Protocol
) -> dict[int, SurroundFrame]:
    """Keyframe's stamp -> the drive's frame nearest to it; empty where the recording or its images aren't at hand."""
    near = nearest_frames(keyframes, [p.stamp_ns for p in drive.predictions], protocol.tolerance_s)
    if not near:
        return {}
    try:
        views = recording_views(
            drive.path, rig, width=_CAMERA_WIDTH, truth=False, lidar=False, stamps=set(near.values())
        )
        found = {view.frame.stamp_ns: view.frame for view in views}
    except BagError:
        return {}
    return {keyframe: found[frame] for keyframe, frame in near.items() if frame in found}
