"""One filled message of each type that must cross processes. Run as a program, it publishes them until it is stopped."""

from __future__ import annotations

import time
from typing import Any


def sample_messages() -> dict[str, Any]:
    """Topic -> message; every field that could be lost or mixed up has a value of its own."""
    from builtin_interfaces.msg import Time
    from dualview.msg import BevMap, Latency, TrackedObject3D, TrackedObject3DArray
    from geometry_msgs.msg import (
        Point,
        Pose,
        PoseWithCovariance,
        Quaternion,
        Transform,
        TransformStamped,
        Vector3,
    )
    from std_msgs.msg import Header
    from tf2_msgs.msg import TFMessage
    from vision_msgs.msg import (
        BoundingBox2D,
        BoundingBox3D,
        Detection2D,
        Detection2DArray,
        Detection3D,
        Detection3DArray,
        ObjectHypothesis,
        ObjectHypothesisWithPose,
        Point2D,
        Pose2D,
    )

    header = Header(stamp=Time(sec=1_700_000_000, nanosec=123_456_789), frame_id="odom")
    pose = Pose(position=Point(x=1.5, y=-2.5, z=0.75), orientation=Quaternion(x=0.0, y=0.0, z=0.6, w=0.8))
    covariant = PoseWithCovariance(pose=pose, covariance=[i / 8 for i in range(36)])
    hypothesis = ObjectHypothesisWithPose(
        hypothesis=ObjectHypothesis(class_id="car", score=0.875), pose=covariant
    )
    objects = [
        TrackedObject3D(
            class_name="pedestrian", score=0.5, track_id=2**40 + index, uuid=list(range(16)), instance_name=f"token-{index}",
            pose=covariant, size=Vector3(x=4.5, y=2.0, z=1.5), velocity=Vector3(x=3.0, y=-1.0, z=0.0),
            velocity_covariance=[i / 4 for i in range(9)], age=index, existence_probability=0.75, last_seen=header.stamp,
            camera_count=2, visibility=0.25, num_lidar_points=-1, attributes=["vehicle.moving", ""],
        )
        for index in range(3)
    ]  # fmt: skip
    box_2d = BoundingBox2D(
        center=Pose2D(position=Point2D(x=320.5, y=240.25), theta=0.5), size_x=64.0, size_y=32.0
    )
    return {
        "tracks": TrackedObject3DArray(
            header=header, objects=objects, model_name="dualview-tiny", camera_names=["front", "back"], camera_mask=[True, False],
            missing_cameras=["back"],
        ),
        "bev": BevMap(
            header=header, resolution=0.5, width=3, height=2, origin=pose, channels=2, layout=BevMap.LAYOUT_CHANNELS_ROWS_COLUMNS,
            encoding=BevMap.ENCODING_UINT8, scale=[0.5, 0.25], offset=[-1.0, 1.0], data=list(range(12)), valid=[1, 0, 1, 1, 1, 0],
        ),
        "latency": Latency(header=header, age_at_arrival=1.0, assemble=2.0, preprocess=4.0, network=8.0, publish=16.0, total=31.0),
        "detections": Detection3DArray(
            header=header,
            detections=[
                Detection3D(header=header, results=[hypothesis], bbox=BoundingBox3D(center=pose, size=Vector3(x=4.0, y=2.0, z=1.0)), id="7")
            ],
        ),
        "annotations_2d": Detection2DArray(
            header=header, detections=[Detection2D(header=header, results=[hypothesis], bbox=box_2d, id="8")]
        ),
        "tf": TFMessage(
            transforms=[
                TransformStamped(
                    header=header, child_frame_id="base_link",
                    transform=Transform(translation=Vector3(x=1.0, y=2.0, z=3.0), rotation=pose.orientation),
                )
            ]
        ),
    }  # fmt: skip


def publish() -> None:
    import rclpy
    from rclpy.executors import ExternalShutdownException

    rclpy.init()
    node = rclpy.create_node("sample_publisher")
    publishers = [
        (node.create_publisher(type(message), topic, 1), message)
        for topic, message in sample_messages().items()
    ]
    print("publishing", flush=True)
    end = time.monotonic() + 30
    try:
        while time.monotonic() < end:
            for publisher, message in publishers:
                publisher.publish(message)
            time.sleep(0.1)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        rclpy.try_shutdown()


if __name__ == "__main__":
    publish()
