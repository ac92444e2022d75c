"""A recording with corrupted images, everything else as it was."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from dualview.scene.bag_reader import BagReader
from dualview.scene.bag_writer import BagWriter, check_new_recording
from dualview.scene.corruptions.corruption import Corruption
from dualview.scene.corruptions.encoded import corrupt_encoded
from dualview.scene.images import EncodedImage
from dualview.scene.message_types import message_class, message_typestore
from dualview.scene.messages import image_from_message
from dualview.scene.rig import Rig


def corrupt_recording(
    source: str | Path,
    target: str | Path,
    rig: Rig,
    corruption: Corruption,
    overwrite: bool = False,
    progress: Callable[[int], None] | None = None,
) -> int:
    """Write a copy of a recording in which the images of the rig's cameras are corrupted; returns how many there are.

    All other messages keep their bytes; stamps, log times and order stay. Topics whose type nobody defines are left out
    (`BagReader.undefined`). `progress` is told the number of images done.

    Raises BagError if the recording has none of the rig's cameras, if it can't be read, or if `target` can't be written.
    """
    check_new_recording(target, overwrite, source)
    numbers = {camera.image_topic: number for number, camera in enumerate(rig.cameras)}
    types, done = message_typestore(), 0
    with BagReader(source) as bag:
        bag.check_rig(rig)
        with BagWriter(target, rig, overwrite, bag.types) as out:
            for record in bag.messages(bag.topics.keys() - bag.undefined.keys(), raw=True):
                number, data = numbers.get(record.topic), record.message
                if number is not None:
                    message = types.deserialize_cdr(data, record.type)
                    image = corrupt_encoded(image_from_message(message), corruption, number, len(rig.cameras))
                    data = types.serialize_cdr(_image_message(message, image), record.type)
                    done += 1
                out.write_raw(record.topic, record.type, data, record.log_time_ns, record.topic in bag.latched)
                if number is not None and progress:
                    progress(done)
    return done


def _image_message(before: Any, image: EncodedImage) -> Any:
    """The message `before` with another image in it."""
    data = np.frombuffer(image.data, np.uint8)
    if image.compressed:
        kind = message_class("sensor_msgs/msg/CompressedImage")
        return kind(header=before.header, format=before.format, data=data)
    return message_class("sensor_msgs/msg/Image")(
        header=before.header, height=image.height, width=image.width, encoding=image.encoding,
        is_bigendian=before.is_bigendian, step=image.step, data=data,
    )  # fmt: skip
