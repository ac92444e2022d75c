"""Values of ours -> ROS messages, as recordings hold them. (The other way round is in `messages.py`.)"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from dualview.geometry.rigid import quaternion_from_rigid
from dualview.scene.calibration import CameraCalibration
from dualview.scene.frame import Annotations
from dualview.scene.message_types import message_class


class Annotation2D(NamedTuple):
    """One 2D label: class name, score in 0..1, box (x min, y min, x max, y max) in px, and the instance's id
    ("" if unknown)."""

    class_name: str
    score: float
    box: tuple[float, float, float, float]
    instance_id: str = ""


def header(stamp_ns: int, frame: str) -> Any:
    """`std_msgs/Header`."""
    return message_class("std_msgs/msg/Header")(stamp=time(stamp_ns), frame_id=frame)


def time(stamp_ns: int) -> Any:
    """`builtin_interfaces/Time`."""
    seconds, nanoseconds = divmod(int(stamp_ns), 1_000_000_000)
    return message_class("builtin_interfaces/msg/Time")(sec=seconds, nanosec=nanoseconds)


def vector(values: Sequence[float] | np.ndarray) -> Any:
    """`geometry_msgs/Vector3`."""
    x, y, z = (float(v) for v in values)
    return message_class("geometry_msgs/msg/Vector3")(x=x, y=y, z=z)


def quaternion(xyzw: Sequence[float] | np.ndarray) -> Any:
    """`geometry_msgs/Quaternion`."""
    x, y, z, w = (float(v) for v in xyzw)
    return message_class("geometry_msgs/msg/Quaternion")(x=x, y=y, z=z, w=w)


def pose(position: Sequence[float] | np.ndarray, xyzw: Sequence[float] | np.ndarray) -> Any:
    """`geometry_msgs/PoseWithCovariance` with unknown (zero) covariance."""
    x, y, z = (float(v) for v in position)
    point = message_class("geometry_msgs/msg/Point")(x=x, y=y, z=z)
    plain = message_class("geometry_msgs/msg/Pose")(position=point, orientation=quaternion(xyzw))
    return message_class("geometry_msgs/msg/PoseWithCovariance")(pose=plain, covariance=np.zeros(36))


def transforms_message(stamp_ns: int, parent: str, parent_from_child: Mapping[str, np.ndarray]) -> Any:
    """`tf2_msgs/TFMessage` of transforms [4, 4] from one parent frame to children by name."""
    stamped, transform = (
        message_class("geometry_msgs/msg/TransformStamped"),
        message_class("geometry_msgs/msg/Transform"),
    )
    return message_class("tf2_msgs/msg/TFMessage")(
        transforms=[
            stamped(
                header=header(stamp_ns, parent),
                child_frame_id=child,
                transform=transform(
                    translation=vector(matrix[:3, 3]), rotation=quaternion(quaternion_from_rigid(matrix))
                ),
            )
            for child, matrix in parent_from_child.items()
        ]
    )


def odometry_message(
    stamp_ns: int,
    world_frame: str,
    ego_frame: str,
    world_from_ego: np.ndarray,
    linear: np.ndarray,
    angular: np.ndarray,
) -> Any:
    """`nav_msgs/Odometry`; the twist (m/s, rad/s) is along the axes of the ego frame."""
    twist = message_class("geometry_msgs/msg/Twist")(linear=vector(linear), angular=vector(angular))
    return message_class("nav_msgs/msg/Odometry")(
        header=header(stamp_ns, world_frame),
        child_frame_id=ego_frame,
        pose=pose(world_from_ego[:3, 3], quaternion_from_rigid(world_from_ego)),
        twist=message_class("geometry_msgs/msg/TwistWithCovariance")(twist=twist, covariance=np.zeros(36)),
    )


def compressed_image_message(stamp_ns: int, frame: str, jpeg: bytes) -> Any:
    """`sensor_msgs/CompressedImage` around JPEG bytes as they are."""
    data = np.frombuffer(jpeg, dtype=np.uint8)
    return message_class("sensor_msgs/msg/CompressedImage")(
        header=header(stamp_ns, frame), format="jpeg", data=data
    )


def raw_image_message(stamp_ns: int, frame: str, pixels: np.ndarray, encoding: str) -> Any:
    """`sensor_msgs/Image` of pixels uint8 [height, width, channels]."""
    height, width, channels = pixels.shape
    return message_class("sensor_msgs/msg/Image")(
        header=header(stamp_ns, frame), height=height, width=width, encoding=encoding, is_bigendian=0,
        step=width * channels, data=np.ascontiguousarray(pixels, dtype=np.uint8).reshape(-1),
    )  # fmt: skip


def camera_info_message(stamp_ns: int, frame: str, calibration: CameraCalibration) -> Any:
    """`sensor_msgs/CameraInfo`; a rectified camera gets the model plumb_bob with no coefficients."""
    projection = np.zeros((3, 4))
    rectified = calibration.rectified_intrinsics
    projection[:, :3] = calibration.intrinsics if rectified is None else rectified
    region = message_class("sensor_msgs/msg/RegionOfInterest")(
        x_offset=0, y_offset=0, height=0, width=0, do_rectify=False
    )
    return message_class("sensor_msgs/msg/CameraInfo")(
        header=header(stamp_ns, frame), height=calibration.height, width=calibration.width,
        distortion_model=calibration.distortion_model or "plumb_bob", d=np.asarray(calibration.distortion,
        np.float64),
        k=calibration.intrinsics.ravel(), r=np.eye(3).ravel(), p=projection.ravel(), binning_x=0, binning_y=0,
        roi=region,
    )  # fmt: skip


def points_message(stamp_ns: int, frame: str, points: np.ndarray) -> Any:
    """`sensor_msgs/PointCloud2` of points float32 [P, 4]: x, y, z (m) and intensity."""
    if points.ndim != 2 or points.shape[1] != 4:
        raise ValueError(f"points must be [P, 4] (x, y, z, intensity), got {list(points.shape)}")
    field = message_class("sensor_msgs/msg/PointField")
    fields = [
        field(name=n, offset=4 * i, datatype=7, count=1) for i, n in enumerate(("x", "y", "z", "intensity"))
    ]
    data = np.ascontiguousarray(points, dtype="<f4")
    return message_class("sensor_msgs/msg/PointCloud2")(
        header=header(stamp_ns, frame), height=1, width=len(data), fields=fields, is_bigendian=False,
        point_step=16,
        row_step=16 * len(data), data=data.view(np.uint8).reshape(-1), is_dense=bool(np.isfinite(data).all()),
    )  # fmt: skip


# sensor_msgs/PointField datatypes
_POINT_TYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 8: "f8"}


def points_from_message(message: Any) -> np.ndarray:
    """Points float32 [P, 4] (x, y, z, intensity) of a `sensor_msgs/PointCloud2`, whatever its fields' types and whatever other
    fields it has.

    Intensity is 0 where the message has none. Raises ValueError, saying which, if one of x, y and z is missing or a field
    is of no known type or lies beyond the point.
    """
    step, width, height = int(message.point_step), int(message.width), int(message.height)
    fields = {f.name: f for f in message.fields if f.name in ("x", "y", "z", "intensity")}
    missing = [name for name in "xyz" if name not in fields]
    if missing:
        raise ValueError(f"the point cloud has no field {missing[0]}")
    types = {}
    for name, field in fields.items():
        if int(field.datatype) not in _POINT_TYPES:
            raise ValueError(f"the point cloud's field {name} is of unknown type {field.datatype}")
        types[name] = np.dtype((">" if message.is_bigendian else "<") + _POINT_TYPES[int(field.datatype)])
        if int(field.offset) + types[name].itemsize > step:
            raise ValueError(f"the point cloud's field {name} lies beyond its points of {step} bytes")
    rows = np.frombuffer(memoryview(message.data), dtype=np.uint8).reshape(height, -1)[:, : width * step]
    raw = np.ascontiguousarray(rows).reshape(width * height, step)
    points = np.zeros((width * height, 4), dtype=np.float32)
    for column, name in enumerate(("x", "y", "z", "intensity")):
        if name in fields:
            start = int(fields[name].offset)
            values = np.ascontiguousarray(raw[:, start : start + types[name].itemsize])
            points[:, column] = values.view(types[name])[:, 0]
    return points


def annotations_message(annotations: Annotations, frame: str) -> Any:
    """`dualview/TrackedObject3DArray` of labels whose boxes are in `frame`."""
    boxes = annotations.boxes
    tracked, half = message_class("dualview/msg/TrackedObject3D"), boxes.yaw.double().numpy() / 2
    rotations = np.stack([np.zeros_like(half), np.zeros_like(half), np.sin(half), np.cos(half)], -1)
    centers, sizes = boxes.center.double().numpy(), boxes.size.double().numpy()
    velocities, tracks = boxes.velocity.double().numpy(), boxes.track_id.tolist()
    stamp = time(annotations.stamp_ns)
    objects = [
        tracked(
            class_name=annotations.class_names[label], score=score, track_id=tracks[i], uuid=np.zeros(16,
            np.uint8),
            instance_name=annotations.instance_ids[i], pose=pose(centers[i], rotations[i]),
            size=vector(sizes[i]),
            velocity=vector(velocities[i]), velocity_covariance=np.zeros(9), age=0, existence_probability=1.0,
            last_seen=stamp, camera_count=0, visibility=float(annotations.visibility[i]),
            num_lidar_points=int(annotations.num_lidar_points[i]),
            attributes=list(annotations.attributes[i]) if annotations.attributes else [],
        )
        for i, (label, score) in enumerate(zip(boxes.label.tolist(), boxes.score.tolist(), strict=True))
    ]  # fmt: skip
    return message_class("dualview/msg/TrackedObject3DArray")(
        header=header(annotations.stamp_ns, frame), objects=objects, model_name="", camera_names=[],
        camera_mask=np.zeros(0, dtype=bool), missing_cameras=[],
    )  # fmt: skip


def annotations_2d_message(stamp_ns: int, frame: str, annotations: Sequence[Annotation2D | tuple]) -> Any:
    """`vision_msgs/Detection2DArray`; the id is the instance's."""
    detection, hypothesis = (
        message_class("vision_msgs/msg/Detection2D"),
        message_class("vision_msgs/msg/ObjectHypothesis"),
    )
    result, box_class = (
        message_class("vision_msgs/msg/ObjectHypothesisWithPose"),
        message_class("vision_msgs/msg/BoundingBox2D"),
    )
    pose_class, point = message_class("vision_msgs/msg/Pose2D"), message_class("vision_msgs/msg/Point2D")
    detections = []
    for label in (Annotation2D(*a) for a in annotations):
        x0, y0, x1, y1 = (float(v) for v in label.box)
        center = pose_class(position=point(x=(x0 + x1) / 2, y=(y0 + y1) / 2), theta=0.0)
        scored = hypothesis(class_id=label.class_name, score=float(label.score))
        detections.append(
            detection(
                header=header(stamp_ns, frame),
                results=[result(hypothesis=scored, pose=pose((0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 1.0)))],
                bbox=box_class(center=center, size_x=x1 - x0, size_y=y1 - y0),
                id=label.instance_id,
            )
        )
    return message_class("vision_msgs/msg/Detection2DArray")(
        header=header(stamp_ns, frame), detections=detections
    )


def annotations_2d_from_message(message: Any) -> list[Annotation2D]:
    """The best-scored class and the box of each `vision_msgs/Detection2D`; those without a result are left
    out."""
    labels = []
    for detection in message.detections:
        if not detection.results:
            continue
        best = max((r.hypothesis for r in detection.results), key=lambda h: h.score)
        x, y = detection.bbox.center.position.x, detection.bbox.center.position.y
        w, h = detection.bbox.size_x / 2, detection.bbox.size_y / 2
        labels.append(
            Annotation2D(best.class_id, float(best.score), (x - w, y - h, x + w, y + h), detection.id)
        )
    return labels
