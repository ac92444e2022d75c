"""Give a recording 2D labels: import COCO JSON, project its own 3D labels, or let a 2D detector look at it. The result is a copy of the
recording with the labels on /<camera>/annotations_2d. `--export-images` writes the images that a labelling tool needs."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

HELP = "2D labels for a recording: from COCO JSON, from 3D labels, or by a 2D detector"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`dualview label-2d BAG (--coco FILE | --from-3d | --detector NAME | --export-images DIR) [--out OUT.mcap]`."""
    parser.add_argument("bag", metavar="BAG", help="the recording")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--coco", metavar="FILE", help="labels as COCO JSON, of images that --export-images wrote"
    )
    source.add_argument("--from-3d", action="store_true", help="rectangles of the recording's own 3D labels")
    source.add_argument(
        "--detector", metavar="NAME", help="a 2D detector of the transformers library: hub name or folder"
    )
    source.add_argument(
        "--export-images", metavar="DIR", type=Path, help="write the images as files to label"
    )
    parser.add_argument("--out", metavar="OUT.mcap", help="the labelled copy (all but --export-images)")
    parser.add_argument(
        "--rig", help="rig name or file (default: the known one whose cameras the recording has)"
    )
    parser.add_argument(
        "--classes",
        metavar="A=B,...",
        default="",
        help="category A is class B, e.g. person=pedestrian (default for --detector: COCO's road users)",
    )
    parser.add_argument("--every", type=float, default=0.0, metavar="S",
                        help="export or look at one image of each camera in S seconds (default: all)")  # fmt: skip
    parser.add_argument(
        "--score",
        type=float,
        default=0.6,
        help="detections from this score on are labels (default %(default)s)",
    )
    parser.add_argument("--doubt", type=float, default=0.2,
                        help="detections between this and --score mark places that aren't judged (default %(default)s)")  # fmt: skip
    parser.add_argument("--device", default="cpu", help="of the detector: cpu, cuda or cuda:N")
    parser.add_argument("--overwrite", action="store_true", help="replace OUT.mcap if it exists")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def run(arguments: argparse.Namespace) -> int:
    """Make the labels, write the copy, say what is in it and what was passed over."""
    from dualview.cli._copies import tell_left_out
    from dualview.errors import ConfigError
    from dualview.evaluation.run import fitting_rig
    from dualview.scene.bag_reader import BagReader
    from dualview.scene.bag_writer import check_new_recording
    from dualview.scene.labels_2d.attach import attach_labels_2d, export_images
    from dualview.scene.labels_2d.labels import count_classes

    rig = fitting_rig(arguments.bag, arguments.rig)
    if arguments.export_images is not None:
        with BagReader(arguments.bag) as bag, _bar(arguments, "image") as bar:
            count = export_images(
                bag, rig, arguments.export_images, arguments.every, lambda n: bar.update(n - bar.n)
            )
        print(f"{count} images in {arguments.export_images}")
        return 0
    if arguments.out is None:
        raise ConfigError("say with --out OUT.mcap where the labelled copy goes")
    check_new_recording(arguments.out, arguments.overwrite, arguments.bag)
    with BagReader(arguments.bag) as bag:
        labels, told = _labels(arguments, bag, rig)
        total = sum(topic.count for topic in bag.topics.values())
    with _bar(arguments, "message", total) as bar:
        images = attach_labels_2d(
            arguments.bag, arguments.out, rig, labels, arguments.overwrite, lambda n: bar.update(n - bar.n)
        )
    tell_left_out(arguments.bag)
    classes = ", ".join(f"{count} {name}" for name, count in count_classes(labels).most_common())
    print(f"{arguments.out}: {images} labelled images with {classes or 'no boxes'}")
    if told:
        print(told)
    return 0


def _labels(arguments: argparse.Namespace, bag: Any, rig: Any) -> tuple[Any, str]:
    """(labels, what is to be said of them)."""
    from dualview.scene.class_maps import COCO_CLASS_MAP

    class_map = _class_map(arguments.classes)
    if arguments.coco:
        from dualview.scene.labels_2d.coco import labels_from_coco
        from dualview.scene.labels_2d.recorded_images import camera_calibrations

        names = () if rig.class_names is None else (*rig.class_names, *rig.class_map)
        labels, report = labels_from_coco(
            arguments.coco, rig.camera_names, names, class_map, camera_calibrations(bag, rig)
        )
        return labels, str(report)
    if arguments.from_3d:
        from dualview.scene.labels_2d.from_3d import labels_from_3d

        labels, passed = labels_from_3d(bag, rig)
        return labels, f"from 3D labels; {passed}"
    from dualview.teachers.object_detector import PseudoLabelRule, open_object_detector, pseudo_labels

    rule = PseudoLabelRule(arguments.score, arguments.doubt, arguments.every)
    detector = open_object_detector(arguments.detector, arguments.device)
    with _bar(arguments, "image") as bar:
        labels, others = pseudo_labels(
            bag, rig, detector, class_map or COCO_CLASS_MAP, rule, lambda n: bar.update(n - bar.n)
        )
    looked_for = sorted({rig.class_map.get(name, name) for name in (class_map or COCO_CLASS_MAP).values()})
    told = (
        f'by {arguments.detector}, which nobody checked; an "ignore" box is a detection below {arguments.score:g}\n'
        f"it looks for these classes alone, so train with 'labels_2d.classes=[{', '.join(looked_for)}]': others would be called background"
    )
    if others:
        told += "\npassed over: " + ", ".join(f"{count} {name}" for name, count in others.most_common(8))
    return labels, told


def _class_map(text: str) -> dict[str, str]:
    from dualview.errors import ConfigError

    pairs = [part.partition("=") for part in text.split(",") if part.strip()]
    if any(not equals or not a.strip() or not b.strip() for a, equals, b in pairs):
        raise ConfigError(f"--classes '{text}' is not a list like person=pedestrian,auto=car")
    return {a.strip(): b.strip() for a, _, b in pairs}


def _bar(arguments: argparse.Namespace, unit: str, total: int | None = None) -> Any:
    from tqdm import tqdm

    return tqdm(total=total, unit=unit, desc=Path(arguments.bag).name, disable=arguments.quiet or None)
