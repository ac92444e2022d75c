"""metrics.json and a page to read: tables, precision-recall curves, pictures of the worst frames and identity switches."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dualview.evaluation.detection import DetectionScores
from dualview.evaluation.keyframes import Keyframe
from dualview.evaluation.metrics import headline
from dualview.evaluation.protocol import Protocol
from dualview.evaluation.report_pictures import draw_curves, switches_section, worst_frames_section
from dualview.evaluation.robustness import robustness_section
from dualview.evaluation.run import Drive
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
        sections.append(_ranges(metrics, protocol))
        draw_curves(folder / "precision_recall.png", detection, protocol)
        sections.append("## Precision and recall\n\n![precision over recall](precision_recall.png)")
        sections.append(worst_frames_section(folder, drives, keyframes, rig, protocol, pictures))
        switches = metrics["worst_id_switches"]
        sections.append(switches_section(folder, switches, drives, keyframes, rig, protocol, pictures))
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
    if metrics["scored"] and metrics["drives_without_labels"]:
        lines.append(f"- not scored, without labels: {', '.join(metrics['drives_without_labels'])}")
    if "note" in metrics:
        lines.append(f"- note: {metrics['note']}")
    lines += ["", "| | |", "|---|---|", *(f"| {name} | **{value}** |" for name, value in headline(metrics))]
    if metrics["scored"]:
        lines += ["", "Matching, averaging and tracking scores are nuscenes-devkit's own. A keyframe is scored with the frame nearest in "
                  f"time (at most {1e3 * metrics['protocol']['tolerance_s']:g} ms away), its boxes moved to the keyframe's stamp by "
                  "their own velocities; a keyframe without output counts as missed. mAP and NDS are over all classes of the "
                  "protocol, as nuScenes has it: a class without labels scores 0. TID and LGD in metrics.json count keyframes as 0.5 s "
                  "each, as nuScenes does, whatever the recording's rate is."]  # fmt: skip
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


def _ranges(metrics: Mapping[str, Any], protocol: Protocol) -> str:
    """The distance bins: what they mean, their summaries, AP and depth error of each class in each."""
    bins, distance = metrics["per_range"], f"{protocol.true_positive_threshold:g}"
    lines = ["## Distance from the vehicle", "",
             "A bin holds the labels and predictions whose own horizontal distance from the vehicle to the middle of the box lies in it "
             "(near edge included, far edge not); a class counts up to its own range only "
             f"({', '.join(f'{n} {r:g} m' for n, r in protocol.class_ranges.items())}). A prediction that lies in another bin than "
             "its label is a false alarm in the one and a miss in the other, so the bins together score lower than the whole. mAP, NDS and "
             "errors are over the classes with labels in the bin, unlike the summary above. Of tracks, the parts in the bin count.", "",
             "| range | labels | mAP | NDS | mATE m | mAOE rad | mAVE m/s | AMOTA | MOTA | id switches |",
             "|---|---|---|---|---|---|---|---|---|---|"]  # fmt: skip
    for name, values in bins.items():
        names = ("mAP", "NDS", "mATE", "mAOE", "mAVE", "AMOTA", "MOTA")
        cells = [str(values["labels"]), *(_number(values.get(k)) for k in names), _number(values.get("IDS"), 0)]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += ["", f"AP at {distance} m by class and distance (labels):", ""]
    lines += _table(["class", *bins], [
        [name, *(_binned_ap(values["per_class"].get(name), distance) for values in bins.values())] for name in protocol.class_ranges
    ])  # fmt: skip
    lines += ["", "### Depth error", "",
              f"Of objects that were found (within {distance} m of their label, whatever the score): error of the horizontal distance from "
              "the vehicle, along the ray to the object; mean |error| in m / as a share of the true distance (bias in m, above zero: "
              f"put too far away; objects). A pair belongs to the bin of its label. No single error is above {distance} m, since "
              "boxes farther off count as misses.", ""]  # fmt: skip
    rows = [["all", metrics["depth_error"], *(values["depth_error"] for values in bins.values())]]
    for name in protocol.class_ranges:
        own = [values["per_class"].get(name, {}).get("depth_error") for values in bins.values()]
        rows.append([name, metrics["per_class"][name]["depth_error"], *own])
    lines += _table(["class", "all", *bins], [[row[0], *map(_depth, row[1:])] for row in rows])
    return "\n".join(lines)


def _table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [
        f"| {' | '.join(titles)} |",
        "|---" * len(titles) + "|",
        *(f"| {' | '.join(row)} |" for row in rows),
    ]


def _binned_ap(values: Mapping[str, Any] | None, distance: str) -> str:
    return "–" if values is None else f"{_number(values[f'ap_{distance}m'])} ({values['labels']})"


def _depth(error: Mapping[str, Any] | None) -> str:
    if not error or not error["matches"]:
        return "–"
    share = 100 * error["mean_rel"]
    return f"{error['mean_abs_m']:.2f} / {share:.1f} % ({error['bias_m']:+.2f}; {error['matches']})"


def _latency(metrics: Mapping[str, Any]) -> str:
    if not metrics["latency_ms"]:
        return ""
    lines = ["## Time", "", "| stage | p50 ms | p95 ms | p99 ms |", "|---|---|---|---|"]
    for stage, values in metrics["latency_ms"].items():
        lines.append(f"| {stage} | {values['p50']:.1f} | {values['p95']:.1f} | {values['p99']:.1f} |")
    return "\n".join(lines)
