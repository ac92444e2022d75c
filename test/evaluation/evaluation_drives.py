"""Hand-made drives: labels and predictions whose scores are known or can be computed by other means."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from dualview.evaluation.keyframes import Keyframe, Prediction
from dualview.geometry.boxes import Boxes3D
from dualview.scene.frame import Annotations

CLASS_NAMES = (
    "car", "truck", "bus", "trailer", "construction_vehicle", "pedestrian", "motorcycle", "bicycle", "traffic_cone", "barrier",
)  # fmt: skip
SIZES = {
    "car": (4.6, 1.9, 1.7), "truck": (7.0, 2.5, 2.8), "bus": (11.0, 2.9, 3.4), "trailer": (12.0, 2.9, 3.8),
    "construction_vehicle": (6.5, 2.8, 3.2), "pedestrian": (0.7, 0.7, 1.8), "motorcycle": (2.1, 0.8, 1.5),
    "bicycle": (1.7, 0.6, 1.3), "traffic_cone": (0.4, 0.4, 1.1), "barrier": (0.5, 2.5, 1.0),
}  # fmt: skip
ATTRIBUTES = {
    "pedestrian": "pedestrian.moving",
    "motorcycle": "cycle.with_rider",
    "bicycle": "cycle.with_rider",
}
START_NS = 1_600_000_000_000_000_000
EGO = np.array([600.0, 1200.0, 0.5])


def attribute(name: str) -> str:
    return ATTRIBUTES.get(name, "" if name in ("traffic_cone", "barrier") else "vehicle.moving")


def drive(
    name: str = "drive", frames: int = 10, per_class: int = 2, seed: int = 0, interval_s: float = 0.5
) -> list[Keyframe]:
    """Labels of every class within range, each going straight on at its own speed, with perfect predictions."""
    generator = np.random.default_rng(seed)
    count = per_class * len(CLASS_NAMES)
    label = torch.arange(count) % len(CLASS_NAMES)
    # objects stand on separate lanes, so that no match is in doubt
    start = np.stack(
        [generator.uniform(-12, 12, count), np.linspace(-24, 24, count), generator.uniform(0, 1, count)], -1
    )
    yaw = generator.uniform(-np.pi, np.pi, count)
    speed = np.where(np.isin(label.numpy(), [8, 9]), 0.0, generator.uniform(0.5, 1.5, count))
    velocity = np.stack([speed, np.zeros(count), np.zeros(count)], -1)
    keyframes = []
    for k in range(frames):
        stamp = START_NS + round(k * interval_s * 1e9)
        boxes = Boxes3D(
            center=torch.from_numpy(EGO + start + velocity * k * interval_s),
            size=torch.tensor([SIZES[CLASS_NAMES[i]] for i in label], dtype=torch.float32),
            yaw=torch.from_numpy(yaw).float(),
            velocity=torch.from_numpy(velocity).float(),
            label=label,
            score=torch.ones(count),
            track_id=torch.arange(count),
        )
        names = [CLASS_NAMES[i] for i in label]
        annotations = Annotations(
            stamp, boxes, CLASS_NAMES, tuple(f"{name}-{i}" for i in range(count)), torch.full((count,), 5),
            torch.ones(count), tuple((a,) if (a := attribute(n)) else () for n in names),
        )  # fmt: skip
        score = 0.9 - 0.4 * torch.arange(count) / count
        keyframes.append(
            Keyframe(name, annotations, EGO, Prediction(stamp, replace(boxes, score=score), CLASS_NAMES))
        )
    return keyframes


def with_predictions(keyframes: list[Keyframe], change) -> list[Keyframe]:
    """The same labels with `change(boxes, frame_index)` as predictions."""
    return [
        replace(k, prediction=replace(k.prediction, boxes=change(k.prediction.boxes, i)))
        for i, k in enumerate(keyframes)
    ]


def disturbed(keyframes: list[Keyframe], seed: int = 1) -> list[Keyframe]:
    """Predictions with noise in every number, misses, false alarms, changing classes and identities."""
    generator = torch.Generator().manual_seed(seed)

    def noise(boxes: Boxes3D, frame: int) -> Boxes3D:
        count = len(boxes)
        normal = torch.randn(count, 11, generator=generator)
        kept = torch.rand(count, generator=generator) > 0.15
        changed = replace(
            boxes,
            center=boxes.center + 0.6 * normal[:, :3].double(),
            size=boxes.size * (1 + 0.1 * normal[:, 3:6]).clamp(0.5),
            yaw=boxes.yaw + 0.3 * normal[:, 6],
            velocity=boxes.velocity + 0.4 * normal[:, 7:10],
            score=(boxes.score + 0.1 * normal[:, 10]).clamp(0.01, 0.99),
            track_id=torch.where(torch.arange(count) % 5 == frame % 5, boxes.track_id + 1000, boxes.track_id),
        )
        wild = replace(
            boxes[:6], center=boxes.center[:6] + 8.0, score=torch.full((6,), 0.3) + 0.02 * torch.arange(6),
            track_id=boxes.track_id[:6] + 5000,
        )  # fmt: skip
        far = replace(boxes[:2], center=boxes.center[:2] + 200.0, track_id=boxes.track_id[:2] + 9000)
        parts = (changed[kept], wild, far)
        return Boxes3D(**{f: torch.cat([getattr(p, f) for p in parts]) for f in boxes.__dataclass_fields__})

    return with_predictions(keyframes, noise)
