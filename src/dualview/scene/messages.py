"""ROS-shaped messages, from rclpy or from a recording, to what the assembler takes.

Both libraries give objects with the same attributes (`msg.header.stamp.sec`, `msg.k` or, in ROS 1, `msg.K`), so one set of functions
serves both roads.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from dualview.errors import CalibrationError, DualViewError
from dualview.geometry.boxes import Boxes3D
from dualview.geometry.rigid import rigid_from_quaternion
from dualview.scene.assembler import FrameAssembler
from dualview.scene.calibration import CameraCalibration
from dualview.scene.frame import Annotations
from dualview.scene.images import EncodedImage
from dualview.scene.rig import Rig


def stamp_ns(stamp: Any) -> int:
    """Nanoseconds of a `builtin_interfaces/Time` (or ROS 1 time)."""
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)


def image_from_message(message: Any) -> EncodedImage:
    """`sensor_msgs/Image` or `sensor_msgs/CompressedImage` -> EncodedImage; the payload isn't copied."""
    stamp, frame = stamp_ns(message.header.stamp), message.header.frame_id
    if hasattr(message, "format"):
        return EncodedImage(stamp, message.data, message.format, True, frame)
    return EncodedImage(
        stamp, message.data, message.encoding, False, frame, int(message.height), int(message.width), int(message.step)
    )


def calibration_from_message(message: Any) -> CameraCalibration:
    """`sensor_msgs/CameraInfo` -> CameraCalibration. Raises CalibrationError with the reason if it can't be used."""
    k = np.array(message.k if hasattr(message, "k") else message.K, dtype=np.float64).reshape(3, 3)
    p = np.array(message.p if hasattr(message, "p") else message.P, dtype=np.float64).reshape(3, 4)
    r = np.array(message.r if hasattr(message, "r") else message.R, dtype=np.float64).reshape(3, 3)
    d = np.array(message.d if hasattr(message, "d") else message.D, dtype=np.float64)
    # P is the camera after rectification. It is used only where it describes this camera without a stereo rotation.
    usable = np.isfinite(p).all() and p[0, 0] > 0 and p[1, 1] > 0 and (np.allclose(r, np.eye(3)) or not r.any())
    return CameraCalibration(
        int(message.width), int(message.height), k, message.distortion_model, d, p[:, :3] if usable else None
    )


def transform_from_message(message: Any) -> tuple[str, str, int, np.ndarray]:
    """`geometry_msgs/TransformStamped` -> (parent, child, stamp_ns, parent_from_child [4, 4]).

    Raises ValueError if a number isn't finite or the quaternion has no length.
    """
    t, q = message.transform.translation, message.transform.rotation
    matrix = rigid_from_quaternion(np.array([t.x, t.y, t.z]), np.array([q.x, q.y, q.z, q.w]))
    return message.header.frame_id, message.child_frame_id, stamp_ns(message.header.stamp), matrix


class AssemblerFeed:
    """Hands messages of a rig's topics to a FrameAssembler: the one list of "which topic means what".

    `feed(topic, message)` may be called from a subscription or while reading a bag. Unusable messages are counted in
    `problems` (reason -> count) and never raise.
    """

    def __init__(self, rig: Rig, assembler: FrameAssembler) -> None:
        self.assembler = assembler
        self.problems: dict[str, int] = {}
        self._images = {camera.image_topic: camera.name for camera in rig.cameras}
        self._calibrations = {c.camera_info_topic: c.name for c in rig.cameras if c.camera_info_topic}

    @property
    def topics(self) -> list[str]:
        """Every topic that matters to the assembler."""
        return [*self._images, *self._calibrations, "/tf", "/tf_static"]

    def feed(self, topic: str, message: Any) -> None:
        """Give one message on."""
        if topic in self._images:
            self.assembler.add_image(self._images[topic], image_from_message(message))
        elif topic in self._calibrations:
            self.feed_calibration(self._calibrations[topic], message)
        elif topic in ("/tf", "/tf_static"):
            self.feed_transforms(message, static=topic == "/tf_static")

    def feed_calibration(self, camera: str, message: Any) -> None:
        """A camera's `CameraInfo`; a bad one masks the camera until a good one comes."""
        try:
            self.assembler.add_calibration(camera, calibration_from_message(message))
        except CalibrationError as error:
            self.assembler.reject_calibration(camera, str(error))
            self._count(f"{camera}: {error}")

    def feed_transforms(self, message: Any, static: bool) -> None:
        """A `tf2_msgs/TFMessage`."""
        for transform in message.transforms:
            try:
                self.assembler.add_transform(*transform_from_message(transform), static=static)
            except (ValueError, DualViewError) as error:
                self._count(f"/tf {transform.header.frame_id} -> {transform.child_frame_id}: {error}")

    def _count(self, reason: str) -> None:
        if reason in self.problems or len(self.problems) < 100:  # bounded: reasons hold numbers
            self.problems[reason] = self.problems.get(reason, 0) + 1


def annotations_from_message(message: Any, class_names: tuple[str, ...] | None = None) -> Annotations:
    """`dualview/TrackedObject3DArray` -> Annotations (boxes in the message's frame).

    class_names: labels index into it, and objects of other classes are left out; None collects the classes of the message.
    """
    names = class_names or tuple(sorted({o.class_name for o in message.objects}))
    objects = [o for o in message.objects if o.class_name in names]
    count = len(objects)

    def column(values: list[Any], dtype: torch.dtype, *shape: int) -> torch.Tensor:
        return torch.tensor(values, dtype=dtype).reshape(count, *shape)

    quaternions = [(o.pose.pose.orientation.x, o.pose.pose.orientation.y, o.pose.pose.orientation.z,
                    o.pose.pose.orientation.w) for o in objects]  # fmt: skip
    x, y, z, w = column(quaternions, torch.float64, 4).unbind(-1)
    position = [(o.pose.pose.position.x, o.pose.pose.position.y, o.pose.pose.position.z) for o in objects]
    velocity = [(o.velocity.x, o.velocity.y, o.velocity.z) for o in objects]
    boxes = Boxes3D(
        center=column(position, torch.float64, 3),
        size=column([(o.size.x, o.size.y, o.size.z) for o in objects], torch.float32, 3),
        yaw=torch.atan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z)).float(),
        velocity=column(velocity, torch.float32, 3),
        label=column([names.index(o.class_name) for o in objects], torch.int64),
        score=column([float(o.score) for o in objects], torch.float32),
        track_id=column([int(o.track_id) for o in objects], torch.int64),
    )
    return Annotations(
        stamp_ns=stamp_ns(message.header.stamp),
        boxes=boxes,
        class_names=tuple(names),
        instance_ids=tuple(o.instance_name or str(o.track_id) for o in objects),
        num_lidar_points=column([int(o.num_lidar_points) for o in objects], torch.int64),
        visibility=column([float(o.visibility) for o in objects], torch.float32),
        attributes=tuple(tuple(o.attributes) for o in objects),
    )
