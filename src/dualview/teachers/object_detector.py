"""Pseudo-labels in 2D: a 2D detector that the user names looks at the images of a recording."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from PIL import Image

from dualview.errors import ConfigError, ImageError
from dualview.scene.bag_messages import Annotation2D
from dualview.scene.bag_reader import BagReader
from dualview.scene.corruptions.encoded import decode_fully
from dualview.scene.labels_2d.labels import IGNORE, Labels2D
from dualview.scene.messages import image_from_message
from dualview.scene.rig import Rig
from dualview.teachers.hub import open_pipeline


@dataclass(frozen=True)
class Found:
    """One detection: the detector's own name of the class, score in 0..1, box (x min, y min, x max, y max px)."""

    name: str
    score: float
    box: tuple[float, float, float, float]


ObjectDetector = Callable[[np.ndarray, float], list[Found]]
"""(RGB image uint8 [H, W, 3], lowest score) -> what is in it."""


def open_object_detector(model: str, device: str = "cpu") -> ObjectDetector:
    """A detector of the transformers library, by hub name ("facebook/detr-resnet-50") or local folder. Raises WeightsError."""
    pipeline = open_pipeline("object-detection", model, device)

    def detect(image: np.ndarray, threshold: float) -> list[Found]:
        found = []
        for item in pipeline(Image.fromarray(image), threshold=threshold):
            box = item["box"]
            corners = (float(box["xmin"]), float(box["ymin"]), float(box["xmax"]), float(box["ymax"]))
            found.append(Found(str(item["label"]), float(item["score"]), corners))
        return found

    return detect


@dataclass(frozen=True)
class PseudoLabelRule:
    """score: detections at or above it are labels. doubt: those from here to `score` become ignored rectangles, so that a loss neither
    teaches them nor calls what is there background. every_s: at most one image of each camera in so many seconds (0 = all)."""

    score: float = 0.6
    doubt: float = 0.2
    every_s: float = 0.0

    def __post_init__(self) -> None:
        if not 0.0 < self.doubt <= self.score <= 1.0:
            raise ConfigError(
                f"thresholds must be 0 < doubt <= score <= 1, got doubt {self.doubt:g} and score {self.score:g}"
            )


def pseudo_labels(
    bag: BagReader,
    rig: Rig,
    detector: ObjectDetector,
    class_map: Mapping[str, str],
    rule: PseudoLabelRule,
    progress: Callable[[int], None] | None = None,
) -> tuple[Labels2D, Counter[str]]:
    """Labels of a recording's images, and what was passed over: how many detections of which of the detector's classes that have no place
    in `class_map`, and images that can't be decoded. Raises BagError if the recording has none of the cameras.
    """
    bag.check_rig(rig)
    cameras = {camera.image_topic: camera.name for camera in rig.cameras}
    labels: Labels2D = {name: {} for name in rig.camera_names}
    others: Counter[str] = Counter()
    last: dict[str, int] = {}
    done = 0
    for message in bag.messages(list(cameras)):
        name, image = cameras[message.topic], image_from_message(message.message)
        if name in last and image.stamp_ns - last[name] < round(rule.every_s * 1e9) - 1_000_000:
            continue
        last[name] = image.stamp_ns
        try:
            pixels = np.ascontiguousarray(decode_fully(image))
        except ImageError:
            others["images that can't be decoded"] += 1
            continue
        height, width = pixels.shape[:2]
        kept = []
        for found in detector(pixels, rule.doubt):
            if found.name not in class_map:
                others[found.name] += found.score >= rule.score
                continue
            x0, y0, x1, y1 = found.box
            box = (max(x0, 0.0), max(y0, 0.0), min(x1, float(width)), min(y1, float(height)))
            certain = found.score >= rule.score
            if box[2] > box[0] and box[3] > box[1]:
                kept.append(Annotation2D(class_map[found.name] if certain else IGNORE, found.score, box))
        labels[name][image.stamp_ns] = kept
        done += 1
        if progress:
            progress(done)
    return labels, +others
