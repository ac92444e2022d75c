"""Rigs that aren't six rectified cameras, and what a lifecycle manager does with the node."""

from __future__ import annotations

import itertools
import signal
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rclpy
from dualview.msg import BevMap, Latency
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
from rcl_interfaces.srv import SetParameters
from rclpy.qos import qos_profile_sensor_data
from ros_drive import Drive, rig_dict, write_rig
from ros_processes import NODE, Listener, Process, node_process, wait_until
from sensor_msgs.msg import Image
from vision_msgs.msg import Detection3DArray
from visualization_msgs.msg import Marker, MarkerArray

from dualview.scene.calibration import CameraCalibration

pytestmark = pytest.mark.slow
LENSES = {
    "plumb_bob": np.array([-0.2, 0.03, 0.001, -0.001, 0.0]),
    "equidistant": np.array([-0.02, 0.003, 0.0, 0.0]),
    "rational_polynomial": np.array([0.1, -0.05, 0.0, 0.0, 0.01, 0.2, -0.02, 0.01]),
}


@dataclass(frozen=True)
class LensDrive(Drive):
    """A drive whose cameras have different lenses, one after the other."""

    def calibration(self, index: int) -> CameraCalibration:
        plain = super().calibration(index)
        model = list(LENSES)[index % len(LENSES)]
        return CameraCalibration(plain.width, plain.height, plain.intrinsics, model, LENSES[model])


def play(started: Callable[[Process], Process], bag: Path, rig: Path, log: Path, *options: str) -> Process:
    return started(Process(["-m", "dualview", "replay", str(bag), "--rig", str(rig), *options], log))


@pytest.mark.parametrize("cameras", [1, 4])
def test_one_and_four_unrectified_cameras(
    cameras: int, tmp_path: Path, weights: Path, listener: Listener, started: Callable[[Process], Process]
) -> None:
    rig = tmp_path / "rig.yaml"
    bag = LensDrive(write_rig(rig, rig_dict(cameras))).write(tmp_path / "drive.mcap", 12)
    node = started(node_process(tmp_path / "node.log", rig, weights, sim_time=True, output_frame="ego"))
    play(started, bag, rig, tmp_path / "player.log", "--rate", "0.3", "--wait-for", f"{NODE}/tracks")
    listener.wait_tracks(
        lambda m: list(m.camera_mask) == [True] * cameras and len(m.objects) > 0, 3, timeout=60
    )
    message = listener.tracks[-1]
    assert message.header.frame_id == "base_link"
    assert list(message.camera_names) == [f"cam{i}" for i in range(cameras)]
    assert node.stop(signal.SIGTERM) == 0, node.output


def ids_of_passes(listener: Listener) -> list[set[int]]:
    """Track ids by pass of a looped recording."""
    passes: list[set[int]] = [set()]
    last = 0
    for message in list(listener.tracks):
        stamp = message.header.stamp.sec * 10**9 + message.header.stamp.nanosec
        if stamp < last:
            passes.append(set())
        last = stamp
        passes[-1] |= {o.track_id for o in message.objects}
    return passes


def test_all_topics_are_published_and_a_looped_recording_never_reuses_ids(
    tmp_path: Path, weights: Path, listener: Listener, started: Callable[[Process], Process]
) -> None:
    rig = tmp_path / "rig.yaml"
    bag = Drive(write_rig(rig, rig_dict(2))).write(tmp_path / "drive.mcap", 30)
    heard: dict[str, deque[Any]] = {}
    for topic, kind in (("detections", Detection3DArray), ("markers", MarkerArray), ("bev/features", BevMap),
                        ("bev/image", Image), ("debug/latency", Latency)):  # fmt: skip
        heard[topic] = deque()
        best_effort = topic.startswith(("bev", "debug"))
        listener.listen(
            kind, f"{NODE}/{topic}", heard[topic], qos=qos_profile_sensor_data if best_effort else None
        )
    node = started(node_process(tmp_path / "node.log", rig, weights, sim_time=True))
    player = play(
        started, bag, rig, tmp_path / "player.log", "--loop", "--rate", "2", "--wait-for", f"{NODE}/tracks"
    )
    wait_until(lambda: len(ids_of_passes(listener)) >= 3, 90, lambda: node.output + listener.story())
    wait_until(lambda: all(heard.values()), 20, lambda: str({t: len(h) for t, h in heard.items()}))
    player.stop()
    listener.wait_says("frames", "no image from any camera", 2)
    assert node.stop(signal.SIGINT) == 0, node.output
    wait_until(
        lambda: heard["markers"][-1].markers[-1].action == Marker.DELETEALL, 10
    )  # the screen is left clean

    passes = ids_of_passes(listener)
    for earlier, later in itertools.pairwise(passes):
        assert not later or max(earlier) < min(later), "ids were used again after a loop"
    assert node.output.count("memory was reset") == len(passes) - 1  # one WARN each

    by_stamp = {(m.header.stamp.sec, m.header.stamp.nanosec): m for m in listener.tracks}
    detections = heard["detections"][-1]
    same = by_stamp[(detections.header.stamp.sec, detections.header.stamp.nanosec)]
    assert [d.id for d in detections.detections] == [str(o.track_id) for o in same.objects]
    bev, picture = heard["bev/features"][-1], heard["bev/image"][-1]
    assert (
        len(bev.data) == 2 * bev.channels * bev.height * bev.width
        and len(bev.valid) == bev.height * bev.width
    )
    assert (picture.height, picture.width, picture.encoding) == (bev.height, bev.width, "rgb8")
    latency = heard["debug/latency"][-1]
    parts = latency.age_at_arrival + latency.assemble + latency.preprocess + latency.network + latency.publish
    assert 0 < latency.network < latency.total and latency.total == pytest.approx(parts, abs=5.0)


class Manager:
    """What a lifecycle manager and `ros2 param set` do."""

    def __init__(self, listener: Listener) -> None:
        self._node = listener.node
        self._change = self._node.create_client(ChangeState, f"{NODE}/change_state")
        self._set = self._node.create_client(SetParameters, f"{NODE}/set_parameters")

    def change(self, transition: int) -> bool:
        request = ChangeState.Request()
        request.transition.id = transition
        return self._call(self._change, request).success

    def set(self, name: str, value: ParameterValue) -> Any:
        request = SetParameters.Request(parameters=[Parameter(name=name, value=value)])
        return self._call(self._set, request).results[0]

    def _call(self, client: rclpy.client.Client, request: Any) -> Any:
        assert client.wait_for_service(30)
        future = client.call_async(request)  # the listener's thread spins
        wait_until(future.done, 60)
        return future.result()


def integer(value: int) -> ParameterValue:
    return ParameterValue(type=ParameterType.PARAMETER_INTEGER, integer_value=value)


def double(value: float) -> ParameterValue:
    return ParameterValue(type=ParameterType.PARAMETER_DOUBLE, double_value=value)


def string(value: str) -> ParameterValue:
    return ParameterValue(type=ParameterType.PARAMETER_STRING, string_value=value)


def test_lifecycle_parameters_and_faults_of_configuration(
    tmp_path: Path, weights: Path, listener: Listener, started: Callable[[Process], Process]
) -> None:
    rig = tmp_path / "rig.yaml"
    bag = Drive(write_rig(rig, rig_dict(2))).write(tmp_path / "drive.mcap", 30)
    node = started(
        node_process(
            tmp_path / "node.log", tmp_path / "missing.yaml", weights, sim_time=True, autostart=False
        )
    )
    manager = Manager(listener)

    # a rig that doesn't exist: a sentence in log and diagnostics, and the node lives on
    assert not manager.change(Transition.TRANSITION_CONFIGURE)
    listener.wait_says("state", "missing.yaml can't be read", 2)
    assert "configuring failed" in node.output
    for name, value, words in (("weights", "no-such-thing", "neither a file nor a detector by name"), ("device", "cuda", "sees no GPU"),
                               ("device", "tpu", "is no device")):  # fmt: skip
        if words == "sees no GPU" and _has_gpu():
            continue
        good = {"weights": str(weights), "device": "cpu"}
        assert manager.set("rig", string(str(rig))).successful and manager.set(name, string(value)).successful
        assert not manager.change(Transition.TRANSITION_CONFIGURE)
        listener.wait_says("state", words, 2)
        assert manager.set(name, string(good[name])).successful

    # more cameras asked for than there are alive: ERROR, and nothing is published
    assert manager.set("min_cameras", integer(3)).successful
    assert manager.change(Transition.TRANSITION_CONFIGURE) and manager.change(Transition.TRANSITION_ACTIVATE)
    refused = manager.set("min_cameras", integer(1))
    assert not refused.successful and "clean it up first" in refused.reason
    assert not manager.set("output_frame", string("moon")).successful
    player = play(started, bag, rig, tmp_path / "player.log", "--loop", "--rate", "0.5")
    listener.wait_says("frames", "2 usable of 3 needed", 2, timeout=60)
    assert not listener.tracks

    # round again with what is there; parameters that may change at any time do
    for transition in (Transition.TRANSITION_DEACTIVATE, Transition.TRANSITION_CLEANUP):
        assert manager.change(transition)
    listener.wait_says("state", "not configured yet", 1)
    assert manager.set("min_cameras", integer(1)).successful
    assert manager.change(Transition.TRANSITION_CONFIGURE)
    listener.wait_says("state", "inactive", 1)
    assert manager.change(Transition.TRANSITION_ACTIVATE)
    listener.wait_tracks(lambda m: m.header.frame_id == "odom" and len(m.objects) > 0, 2, timeout=60)
    assert (
        manager.set("output_frame", string("ego")).successful
        and manager.set("max_objects", integer(1)).successful
    )
    listener.wait_tracks(lambda m: m.header.frame_id == "base_link" and len(m.objects) == 1, 2)
    assert manager.set("score_threshold", double(0.999)).successful
    listener.wait_tracks(lambda m: len(m.objects) == 0, 2)
    assert not manager.set("score_threshold", double(7.0)).successful
    assert manager.set("score_threshold", double(0.0)).successful
    listener.wait_tracks(lambda m: len(m.objects) == 1, 2)
    highest = max(o.track_id for m in listener.tracks for o in m.objects)
    bases = {bytes(o.uuid)[:8] for m in listener.tracks for o in m.objects}

    # cleaned up and configured again: ids go on, and so does the identity of the node's life
    for transition in (
        Transition.TRANSITION_DEACTIVATE,
        Transition.TRANSITION_CLEANUP,
        Transition.TRANSITION_CONFIGURE,
    ):
        assert manager.change(transition)
    listener.tracks.clear()
    assert manager.change(Transition.TRANSITION_ACTIVATE)
    listener.wait_tracks(lambda m: len(m.objects) > 0, 2, timeout=60)
    assert min(o.track_id for m in listener.tracks for o in m.objects) >= highest
    assert {bytes(o.uuid)[:8] for m in listener.tracks for o in m.objects} == bases
    assert player.popen.poll() is None
    assert node.stop(signal.SIGTERM) == 0 and "Traceback" not in node.output, node.output


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()
