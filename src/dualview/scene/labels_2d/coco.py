"""2D labels from COCO JSON, as CVAT, Label Studio and 2D detectors write it.

An image is known again by its file's name, which must end in <camera>_<stamp in ns>.<suffix>, as `dualview label-2d --export-images` names
them; folders, and prefixes that a tool puts before the name with a dash, don't matter. Every image of the file counts as labelled, also
those without annotations. `iscrowd` becomes the class "ignore".
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dualview.errors import ConfigError
from dualview.scene.bag_messages import Annotation2D
from dualview.scene.calibration import CameraCalibration
from dualview.scene.labels_2d.labels import IGNORE, Labels2D

_MIN_SIDE = 1.0  # px of the recorded image; narrower boxes are slips of the mouse


@dataclass
class CocoReport:
    """What became of a file: images and boxes taken, and what was passed over (reason -> count)."""

    images: int = 0
    boxes: int = 0
    passed_over: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        lines = [f"{self.boxes} boxes in {self.images} labelled images"]
        lines += [f"passed over: {count} {reason}" for reason, count in self.passed_over.items()]
        return "\n".join(lines)


def labels_from_coco(
    path: str | Path,
    cameras: Sequence[str],
    class_names: Sequence[str],
    class_map: Mapping[str, str] | None = None,
    calibrations: Mapping[str, CameraCalibration] | None = None,
) -> tuple[Labels2D, CocoReport]:
    """Labels by camera and stamp.

    class_names: the classes wanted, empty = all. class_map: category -> class; categories that are called like a class (capitals, spaces
    and dashes aside) need no entry. calibrations: the recorded sizes, to which boxes of images that were labelled at another size are
    scaled. Raises ConfigError if the file isn't COCO JSON, or if none of its images is of these cameras.
    """
    content = _read(Path(path))
    report = CocoReport()
    categories = {c["id"]: str(c["name"]) for c in content["categories"]}
    classes = {number: _class_of(name, class_names, class_map or {}) for number, name in categories.items()}
    labels: Labels2D = {}
    places: dict[Any, tuple[str, int, float, float]] = {}
    for image in content["images"]:
        place = parse_image_name(str(image["file_name"]), cameras)
        if place is None:
            report.passed_over["images whose name doesn't end in <camera>_<stamp>"] += 1
            continue
        calibration = (calibrations or {}).get(place[0])
        width, height = image.get("width"), image.get("height")
        scale = (
            (calibration.width / width, calibration.height / height)
            if calibration and width and height
            else (1.0, 1.0)
        )
        places[image["id"]] = (*place, *scale)
        labels.setdefault(place[0], {})[place[1]] = []
        report.images += 1
    if not places:
        first = content["images"][0]["file_name"] if content["images"] else "none"
        raise ConfigError(
            f"no image of {path} is known again (the first is '{first}'): names must end in <camera>_<stamp in ns>.jpg with "
            f"a camera of the rig ({', '.join(cameras)}); label images that `dualview label-2d BAG --export-images DIR` wrote"
        )
    for annotation in content["annotations"]:
        if annotation["image_id"] not in places:
            report.passed_over["boxes of images that aren't known"] += 1
            continue
        camera, stamp, across, down = places[annotation["image_id"]]
        name = IGNORE if annotation.get("iscrowd") else classes.get(annotation["category_id"])
        if name is None:
            category = categories.get(annotation["category_id"], "?")
            report.passed_over[f"boxes of category '{category}', no class here (--classes '{category}=CLASS')"] += 1
            continue
        box = _box(annotation, path, across, down)
        if box[2] - box[0] < _MIN_SIDE or box[3] - box[1] < _MIN_SIDE:
            report.passed_over["boxes narrower or lower than a pixel"] += 1
            continue
        extra = annotation.get("attributes") or {}
        identity = extra.get("track_id", annotation.get("track_id", ""))
        labels[camera][stamp].append(
            Annotation2D(name, float(annotation.get("score", 1.0)), box, str(identity))
        )
        report.boxes += 1
    if content["annotations"] and not report.boxes:
        reasons = "; ".join(f"{count} {what}" for what, count in report.passed_over.most_common(3))
        count = len(content["annotations"])
        raise ConfigError(f"none of the {count} boxes of {path} can be used ({reasons}): its images would count as empty")
    return labels, report


def parse_image_name(file_name: str, cameras: Sequence[str]) -> tuple[str, int] | None:
    """(camera, stamp in ns) of an exported image's file name, None if it is no such name."""
    for camera in sorted(cameras, key=len, reverse=True):  # front_left_camera before left_camera
        found = re.search(rf"(?:^|[/\\-]){re.escape(camera)}_(\d+)\.\w+$", file_name)
        if found:
            return camera, int(found.group(1))
    return None


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path} can't be read: {error}") from error
    except ValueError as error:
        raise ConfigError(f"{path} is not valid JSON: {error}") from error
    wanted = {
        "images": ("id", "file_name"),
        "annotations": ("image_id", "category_id", "bbox"),
        "categories": ("id", "name"),
    }
    for key, inner in wanted.items():
        entries = content.get(key) if isinstance(content, dict) else None
        if not isinstance(entries, list) or not all(
            isinstance(e, dict) and set(inner) <= e.keys() for e in entries
        ):
            raise ConfigError(
                f"{path} is not COCO JSON: '{key}' must be a list of objects with {', '.join(inner)}; export the labels as "
                "'COCO 1.0' (CVAT) or 'COCO' (Label Studio)"
            )
    return content


def _class_of(category: str, class_names: Sequence[str], class_map: Mapping[str, str]) -> str | None:
    if category in class_map:
        return class_map[category]
    plain = _plain(category)
    if plain == IGNORE or not class_names:
        return plain
    return next((name for name in class_names if _plain(name) == plain), None)


def _plain(name: str) -> str:
    """A class name as everybody might write it."""
    return re.sub(r"[\s-]+", "_", name.strip()).lower()


def _box(
    annotation: dict[str, Any], path: str | Path, across: float, down: float
) -> tuple[float, float, float, float]:
    try:
        x, y, width, height = (float(value) for value in annotation["bbox"])
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{path}: bbox must be x, y, width, height, got {annotation['bbox']!r}") from error
    return x * across, y * down, (x + width) * across, (y + height) * down
