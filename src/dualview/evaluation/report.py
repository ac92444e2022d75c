"""metrics.json and a page to read: tables, precision-recall curves, pictures of the worst frames."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dualview.drawing.frame_picture import frame_picture
from dualview.drawing.palette import class_color
from dualview.drawing.recording import recording_views
from dualview.drawing.video import write_picture
from dualview.drawing.view import LabelledBoxes
from dualview.evaluation.detection import DetectionScores
from dualview.evaluation.keyframes import Keyframe
from dualview.evaluation.metrics import headline
from dualview.evaluation.protocol import Protocol
from dualview.evaluation.robustness import robustness_section
from dualview.evaluation.run import Drive
from dualview.evaluation.worst_frames import FrameErrors, worst_frames
from dualview.scene.rig import Rig


def write_report(
    folder: Path,
    metrics: Mapping[str, Any],
    detection: DetectionScores | None,
    drives: Sequence[Drive],
    keyframes: Sequence[Keyframe],
    rig: Rig,
    protocol: Protocol,
    pictures: int = 3,
) -> Path:
    """Write `folder`/metrics.json and `folder`/report.md with its pictures; returns the path of the page."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
    sections = [_head(metrics)]
    if detection is not None:
        sections.append(_classes(metrics, protocol))
        sections.append(_ranges(metrics))
        _draw_curves(folder / "precision_recall.png", detection, protocol)
        sections.append("## Precision and recall\n\n![precision over recall](precision_recall.png)")
        sections.append(_worst(folder, drives, keyframes, rig, protocol, pictures))
    if "robustness" in metrics:
        sections.append(robustness_section(metrics["robustness"]))
    sections.append(_latency(metrics))
    page = folder / "report.md"
    page.write_text("\n\n".join(s for s in sections if s) + "\n", encoding="utf-8")
    return page


def _head(metrics: Mapping[str, Any]) -> str:
    dropped = (
        ", ".join(f"{count} × {reason}" for reason, count in metrics["frames_dropped"].items()) or "none"
    )
    lines = [
        "# Evaluation",
        f"- weights: {'; '.join(metrics['weights'])}",
        f"- recordings: {', '.join(metrics['drives'])}",
        f"- frames: {metrics['frames']}, dropped: {dropped}",
    ]
    if "note" in metrics:
        lines.append(f"- note: {metrics['note']}")
    lines += ["", "| | |", "|---|---|", *(f"| {name} | **{value}** |" for name, value in headline(metrics))]
    if metrics["scored"]:
        lines += ["", "Matching, averaging and tracking scores are nuscenes-devkit's own. A keyframe is scored with the frame nearest in "
                  f"time (at most {1e3 * metrics['protocol']['tolerance_s']:g} ms away), its boxes moved to the keyframe's stamp by "
                  "their own velocities; a keyframe without output counts as missed. mAP and NDS are over all classes of the "
                  "protocol, as nuScenes has it: a class without labels scores 0."]  # fmt: skip
    return "\n".join(lines)


def _number(value: Any, digits: int = 3) -> str:
    if value is None:
        return "–"
    return str(int(value)) if float(value).is_integer() and digits == 0 else f"{value:.{digits}f}"


def _classes(metrics: Mapping[str, Any], protocol: Protocol) -> str:
    thresholds = [f"ap_{d:g}m" for d in protocol.distance_thresholds]
    errors = ["ATE", "ASE", "AOE", "AVE", "AAE"]
    columns = ["labels", "ap", *thresholds, *errors, "AMOTA", "MOTA", "IDS"]
    titles = ["labels", "AP", *(f"AP {d:g} m" for d in protocol.distance_thresholds), "ATE m", "ASE", "AOE rad", "AVE m/s", "AAE",
              "AMOTA", "MOTA", "IDS"]  # fmt: skip
    lines = ["## Classes", "", f"| class | {' | '.join(titles)} |", "|---" * (len(titles) + 1) + "|"]
    for name, values in metrics["per_class"].items():
        cells = [_number(values.get(c), 0 if c in ("labels", "IDS") else 3) for c in columns]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _ranges(metrics: Mapping[str, Any]) -> str:
    lines = ["## Distance from the vehicle", "", "Over the classes with labels in the range.", "",
             "| range | labels | mAP | NDS | mATE m | mAOE rad | mAVE m/s |", "|---|---|---|---|---|---|---|"]  # fmt: skip
    for name, values in metrics["per_range"].items():
        cells = [str(values["labels"]), *(_number(values[k]) for k in ("mAP", "NDS", "mATE", "mAOE", "mAVE"))]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _latency(metrics: Mapping[str, Any]) -> str:
    if not metrics["latency_ms"]:
        return ""
    lines = ["## Time", "", "| stage | p50 ms | p95 ms | p99 ms |", "|---|---|---|---|"]
    for stage, values in metrics["latency_ms"].items():
        lines.append(f"| {stage} | {values['p50']:.1f} | {values['p95']:.1f} | {values['p99']:.1f} |")
    return "\n".join(lines)


def _draw_curves(path: Path, detection: DetectionScores, protocol: Protocol) -> None:
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


def _worst(
    folder: Path,
    drives: Sequence[Drive],
    keyframes: Sequence[Keyframe],
    rig: Rig,
    protocol: Protocol,
    count: int,
) -> str:
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
