"""A recording with 2D labels added, everything else as it was; and its images as files, for those who draw labels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import simplejpeg

from dualview.errors import BagError
from dualview.scene.bag_messages import annotations_2d_message
from dualview.scene.bag_reader import BagReader
from dualview.scene.bag_writer import BagWriter, check_new_recording
from dualview.scene.corruptions.encoded import decode_fully
from dualview.scene.labels_2d.labels import Labels2D
from dualview.scene.labels_2d.recorded_images import image_stamps
from dualview.scene.messages import image_from_message
from dualview.scene.rig import Rig

_JPEG_BEGINS = b"\xff\xd8"


def attach_labels_2d(
    source: str | Path,
    target: str | Path,
    rig: Rig,
    labels: Labels2D,
    overwrite: bool = False,
    progress: Callable[[int], None] | None = None,
) -> int:
    """Write a copy of a recording with these 2D labels; all other messages keep bytes and log times (topics whose type nobody
    defines are left out: `BagReader.undefined`). Returns the number of labelled images.

    2D labels that the recording has already are left out. Labels are logged at the log time of their image. `progress` is told the number
    of messages done. The copy appears when it is complete. Raises BagError if labels are for images that the recording doesn't have, or if
    one of the recordings can't be read or written.
    """
    check_new_recording(target, overwrite, source)
    replaced = {rig.annotations_2d_topic_of(name) for name in rig.camera_names}
    with BagReader(source) as bag:
        log_times = {
            name: {image.stamp_ns: image.log_time_ns for image in images}
            for name, images in image_stamps(bag, rig).items()
        }
        wanted = [
            (log_times[c].get(s), c, s, found) for c, images in labels.items() for s, found in images.items()
        ]
        strange = [f"{camera} at {stamp}" for log_time, camera, stamp, _ in wanted if log_time is None]
        if strange:
            raise BagError(
                f"{len(strange)} of {len(wanted)} labelled images aren't in {source}, such as {strange[0]}: are these labels of "
                "another recording?"
            )
        with BagWriter(target, rig, overwrite, bag.types) as out:
            for number, message in enumerate(
                bag.messages([t for t in bag.topics if t not in replaced and t not in bag.undefined], raw=True)
            ):
                out.write_raw(
                    message.topic, message.type, message.message, message.log_time_ns, message.topic in bag.latched
                )
                if progress:
                    progress(number + 1)
            for log_time, camera, stamp, found in wanted:
                topic = rig.annotations_2d_topic_of(camera) or f"/{camera}/annotations_2d"
                out.message(
                    topic, annotations_2d_message(stamp, rig.camera(camera).frame, found), log_time or stamp
                )
    return len(wanted)


def image_name(camera: str, stamp_ns: int) -> str:
    """File name by which an exported image is known again: camera and stamp."""
    return f"{camera}_{stamp_ns}.jpg"


def export_images(
    bag: BagReader,
    rig: Rig,
    folder: Path,
    every_s: float = 0.0,
    progress: Callable[[int], None] | None = None,
) -> int:
    """Write a recording's images into `folder`/<camera>/<camera>_<stamp>.jpg; returns how many are there.

    every_s: at most one image of each camera in so many seconds. JPEGs are written as recorded, raw images with quality 95; files that are
    there already are kept. Raises BagError if the recording has none of the cameras, ImageError for an image that can't be decoded.
    """
    bag.check_rig(rig)
    cameras = {camera.image_topic: camera.name for camera in rig.cameras}
    last: dict[str, int] = {}
    count = 0
    for message in bag.messages(list(cameras)):
        name, image = cameras[message.topic], image_from_message(message.message)
        if name in last and image.stamp_ns - last[name] < round(every_s * 1e9) - 1_000_000:
            continue
        last[name] = image.stamp_ns
        path = folder / name / image_name(name, image.stamp_ns)
        if not path.exists():
            data = bytes(image.data) if image.compressed else b""
            if not data.startswith(_JPEG_BEGINS):
                data = simplejpeg.encode_jpeg(np.ascontiguousarray(decode_fully(image)), quality=95)
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_suffix(".partial")
            partial.write_bytes(data)
            partial.replace(path)
        count += 1
        if progress:
            progress(count)
    return count
