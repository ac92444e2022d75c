"""A process that publishes a rig's cameras and tf, and does wrong what it is told on stdin (one JSON object a line).

Keys, each kept until changed: dead [cameras], tf "on"/"off", tf_delay s, tf_offset m, time_offset s, info {camera: fault},
image {camera: fault}. Run: python faulty_vehicle.py RIG.yaml RATE
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections import deque
from typing import Any

import cv2
import numpy as np
import rclpy
from geometry_msgs.msg import TransformStamped
from rclpy.qos import DurabilityPolicy, QoSProfile, qos_profile_sensor_data
from ros_drive import START_NS, Drive
from scipy.spatial.transform import Rotation
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from tf2_msgs.msg import TFMessage

from dualview.ros.conversions import byte_array, header_message
from dualview.ros.environment import prepare_this_process
from dualview.scene.rig import load_rig


def transform(parent: str, child: str, stamp_ns: int, matrix: np.ndarray) -> TransformStamped:
    message = TransformStamped(header=header_message(stamp_ns, parent), child_frame_id=child)
    t, q = message.transform.translation, message.transform.rotation
    t.x, t.y, t.z = (float(v) for v in matrix[:3, 3])
    q.x, q.y, q.z, q.w = (float(v) for v in Rotation.from_matrix(matrix[:3, :3]).as_quat())
    return message


def camera_info(drive: Drive, index: int, stamp_ns: int, fault: str | None) -> CameraInfo:
    c = drive.calibration(index)
    matrix, width, height, model, distortion = c.intrinsics.copy(), c.width, c.height, "plumb_bob", [0.0] * 5
    if fault == "nan":
        matrix[0, 0] = np.nan
    elif fault == "zero focal length":
        matrix[0, 0] = matrix[1, 1] = 0.0
    elif fault == "other size":
        width, height = width // 2, height // 2
    elif fault == "unknown model":
        model, distortion = "spiral", [0.1] * 5
    header = header_message(stamp_ns, drive.rig.cameras[index].frame)
    return CameraInfo(
        header=header, width=width, height=height, k=matrix.ravel(), distortion_model=model, d=distortion
    )


def image(drive: Drive, index: int, frame: int, stamp_ns: int, fault: str | None) -> CompressedImage | Image:
    header = header_message(stamp_ns, drive.rig.cameras[index].frame)
    data = drive.jpeg(frame, index)
    if drive.rig.cameras[index].compressed:
        faults = {"truncated": data[: len(data) // 2], "garbage": b"\xff\xd8\xff" + bytes(200), "empty": b""}
        data = faults.get(fault or "", data)
        return CompressedImage(header=header, format="jpeg", data=byte_array(data))
    pixels = cv2.cvtColor(cv2.imdecode(np.frombuffer(data, np.uint8), 1), cv2.COLOR_BGR2RGB)
    height, width, _ = pixels.shape
    encoding = "yuv999" if fault == "encoding" else "rgb8"
    return Image(
        header=header, height=height, width=width, step=3 * width, encoding=encoding, data=byte_array(pixels)
    )


def main() -> None:
    drive = Drive(load_rig(sys.argv[1]), rate=float(sys.argv[2]))
    prepare_this_process()
    rclpy.init()
    node = rclpy.create_node("faulty_vehicle", start_parameter_services=False, enable_rosout=False)
    state: dict[str, Any] = {}
    ended = threading.Event()

    def obey() -> None:
        for line in sys.stdin:
            state.update(json.loads(line))
        ended.set()

    threading.Thread(target=obey, daemon=True).start()
    static = node.create_publisher(
        TFMessage, "/tf_static", QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    )
    frames = drive.mountings().items()
    static.publish(
        TFMessage(transforms=[transform("base_link", child, 0, matrix) for child, matrix in frames])
    )
    tf = node.create_publisher(TFMessage, "/tf", 100)
    infos = [
        node.create_publisher(CameraInfo, c.camera_info_topic, qos_profile_sensor_data)
        for c in drive.rig.cameras
    ]
    publishers: dict[str, Any] = {}
    waiting: deque[tuple[float, TFMessage]] = deque()
    frame, due = 0, time.monotonic()
    while not ended.is_set():
        now = time.time_ns() + round(state.get("time_offset", 0.0) * 1e9)
        for index, camera in enumerate(drive.rig.cameras):
            dead = camera.name in state.get("dead", [])
            if dead and camera.name in publishers:
                node.destroy_publisher(publishers.pop(camera.name))
            elif not dead and camera.name not in publishers:
                kind = CompressedImage if camera.compressed else Image
                qos = (
                    qos_profile_sensor_data if index % 2 else QoSProfile(depth=5)
                )  # best effort and reliable alike
                publishers[camera.name] = node.create_publisher(kind, camera.image_topic, qos)
            stamp = now + index * 1_000_000
            pose = drive.pose(START_NS + frame * round(1e9 / drive.rate))
            pose[0, 3] += state.get("tf_offset", 0.0)
            if state.get("tf", "on") == "on":
                message = TFMessage(transforms=[transform("odom", "base_link", stamp, pose)])
                waiting.append((time.monotonic() + state.get("tf_delay", 0.0), message))
            while waiting and waiting[0][0] <= time.monotonic():
                tf.publish(waiting.popleft()[1])
            if not dead:
                infos[index].publish(camera_info(drive, index, stamp, state.get("info", {}).get(camera.name)))
                publishers[camera.name].publish(
                    image(drive, index, frame, stamp, state.get("image", {}).get(camera.name))
                )
        frame += 1
        due = max(due + 1 / drive.rate, time.monotonic() - 1.0)
        while (left := due - time.monotonic()) > 0:
            while waiting and waiting[0][0] <= time.monotonic():
                tf.publish(waiting.popleft()[1])
            time.sleep(min(left, 0.01))
    rclpy.shutdown()


if __name__ == "__main__":
    main()
