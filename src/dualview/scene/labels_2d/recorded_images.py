"""The images of a recording, walked through without decoding them, with calibration and place at each exposure."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from dualview.errors import CalibrationError
from dualview.scene.bag_reader import BagReader
from dualview.scene.calibration import CameraCalibration
from dualview.scene.messages import calibration_from_message
from dualview.scene.rig import CameraSpec, Rig
from dualview.scene.transform_buffer import TransformBuffer


@dataclass(frozen=True)
class ImageStamp:
    """One recorded image: stamp_ns of its exposure, frame_id of its header, log_time_ns in the recording."""

    stamp_ns: int
    frame_id: str
    log_time_ns: int


def image_stamps(bag: BagReader, rig: Rig) -> dict[str, list[ImageStamp]]:
    """Camera -> its images in order of their stamps; only headers are read. Raises BagError if the recording has none of the cameras."""
    bag.check_rig(rig)
    cameras = {camera.image_topic: camera.name for camera in rig.cameras}
    found: dict[str, list[ImageStamp]] = {camera.name: [] for camera in rig.cameras}
    for message in bag.messages(list(cameras), raw=True):
        stamp, frame = _header(message.message)
        found[cameras[message.topic]].append(ImageStamp(stamp, frame, message.log_time_ns))
    return {name: sorted(images, key=lambda image: image.stamp_ns) for name, images in found.items()}


def _header(cdr: bytes | memoryview) -> tuple[int, str]:
    """(stamp, frame) of a message in its wire form that begins with a std_msgs/Header, as every image does."""
    order = "<" if cdr[1] & 1 else ">"
    seconds, nanoseconds, length = struct.unpack_from(f"{order}iII", cdr, 4)
    return seconds * 1_000_000_000 + nanoseconds, bytes(cdr[16 : 16 + length]).rstrip(b"\0").decode(
        errors="replace"
    )


def camera_calibrations(bag: BagReader, rig: Rig) -> dict[str, CameraCalibration]:
    """Camera -> the first usable calibration that the recording has of it, else the rig's; cameras without one are left out.

    A calibration that changes inside a recording isn't followed: recordings of this project hold one for each camera.
    """
    topics = {c.camera_info_topic: c.name for c in rig.cameras if c.camera_info_topic in bag.topics}
    found: dict[str, CameraCalibration] = {}
    for message in bag.messages([t for t in topics if t]) if topics else ():
        name = topics[message.topic]
        if name not in found:
            try:
                found[name] = calibration_from_message(message.message)
            except CalibrationError:
                continue
        if len(found) == len(topics):
            break
    for camera in rig.cameras:
        if camera.name not in found and camera.calibration is not None:
            found[camera.name] = camera.calibration
    return found


def world_from_camera(
    transforms: TransformBuffer, rig: Rig, camera: CameraSpec, image: ImageStamp
) -> np.ndarray:
    """Where a camera was when it exposed an image: [4, 4] float64, optical frame -> world frame, by the assembler's rules.

    Raises TransformError if tf doesn't say.
    """
    pose = transforms.lookup(rig.world_frame, rig.ego_frame, image.stamp_ns)
    mounting = camera.ego_from_camera
    if mounting is None:
        mounting = transforms.lookup(rig.ego_frame, camera.optical_frame or image.frame_id, image.stamp_ns)
    return pose @ mounting


def nearest_images(
    images: list[ImageStamp], stamps_ns: list[int], within_ns: int
) -> Iterator[tuple[int, ImageStamp]]:
    """(index into `stamps_ns`, image) for each stamp that has an image within `within_ns`; both in order of time. An image serves once."""
    times = np.array([image.stamp_ns for image in images], np.int64)
    used: set[int] = set()
    for index, stamp in enumerate(stamps_ns):
        if not len(times):
            return
        nearest = int(np.abs(times - stamp).argmin())
        if abs(int(times[nearest]) - stamp) <= within_ns and nearest not in used:
            used.add(nearest)
            yield index, images[nearest]
