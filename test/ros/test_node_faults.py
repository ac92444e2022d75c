"""One node life through every fault that we know of: it keeps publishing, or says exactly why not, and comes back."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from ros_drive import rig_dict, write_rig
from ros_processes import Listener, Process, node_process

CAMERAS = [f"cam{i}" for i in range(6)]
RATE = 5.0
OK, WARN, ERROR = 0, 1, 2

pytestmark = pytest.mark.slow


class Vehicle:
    """A node, what it hears, and the vehicle process whose faults the tests switch."""

    def __init__(self, folder: Path, weights: Path) -> None:
        content = rig_dict(6)
        content["cameras"][5] |= {"image_topic": "/cam5/image", "compressed": False}
        self.rig = folder / "rig.yaml"
        write_rig(self.rig, content)
        self.listener = Listener()
        # A busy machine may let a queue of images pile up behind one camera: give stragglers time.
        self.node = node_process(
            folder / "node.log", self.rig, weights, max_skew=0.09, max_wait=0.15, camera_timeout=0.7
        )
        script = Path(__file__).with_name("faulty_vehicle.py")
        self.process = Process([str(script), str(self.rig), str(RATE)], folder / "vehicle.log", stdin=True)
        self.healthy(90)

    def fault(self, **state: object) -> None:
        assert self.process.popen.poll() is None, self.process.output
        assert self.node.popen.poll() is None, self.node.output
        assert self.process.popen.stdin is not None
        self.process.popen.stdin.write(json.dumps(state).encode() + b"\n")
        self.process.popen.stdin.flush()

    def healthy(self, timeout: float = 30) -> None:
        """All cameras take part in two new frames, and diagnostics have nothing against any."""
        self.listener.wait_tracks(lambda m: all(m.camera_mask) and len(m.camera_mask) == 6, 2, timeout)
        for camera in CAMERAS:
            self.listener.wait_says(f"camera {camera}", "in use", OK, timeout)

    def publishes_without(self, *cameras: str) -> None:
        """New tracks come, with exactly these cameras left out and named."""
        self.listener.wait_tracks(lambda m: sorted(m.missing_cameras) == sorted(cameras) and list(m.camera_mask) ==
                                  [c not in cameras for c in CAMERAS], 2)  # fmt: skip

    def close(self) -> None:
        assert self.process.popen.stdin is not None
        self.process.popen.stdin.close()  # it ends by itself, and leaves no shared memory behind
        assert self.process.wait(20) == 0, self.process.output
        status = self.node.stop(signal.SIGTERM)
        self.listener.close()
        assert status == 0, self.node.output
        assert "Traceback" not in self.node.output, self.node.output


@pytest.fixture(scope="module")
def vehicle(tmp_path_factory: pytest.TempPathFactory, weights: Path, ros_domain: None) -> Iterator[Vehicle]:
    vehicle = Vehicle(tmp_path_factory.mktemp("faults"), weights)
    yield vehicle
    vehicle.close()


def test_each_camera_killed_and_brought_back(vehicle: Vehicle) -> None:
    for camera in CAMERAS:
        vehicle.fault(dead=[camera])
        vehicle.publishes_without(camera)
        vehicle.listener.wait_says(f"camera {camera}", "silent", WARN)
        vehicle.fault(dead=[])
        vehicle.healthy()


def test_all_cameras_but_one_killed_and_then_that_one(vehicle: Vehicle) -> None:
    vehicle.fault(dead=[c for c in CAMERAS if c != "cam3"])
    vehicle.publishes_without(*[c for c in CAMERAS if c != "cam3"])
    vehicle.fault(dead=CAMERAS)
    vehicle.listener.wait_says("frames", "no image from any camera", ERROR)
    vehicle.fault(dead=[])
    vehicle.healthy()


def test_tf_a_little_late_is_waited_for(vehicle: Vehicle) -> None:
    vehicle.fault(tf_delay=0.06)
    vehicle.listener.wait_tracks(lambda m: all(m.camera_mask), 5)
    vehicle.fault(tf_delay=0.0)
    vehicle.healthy()


def test_tf_too_late_drops_frames_with_the_reason(vehicle: Vehicle) -> None:
    vehicle.fault(tf_delay=1.5)
    vehicle.listener.wait_says("frames", "no transform", ERROR)
    assert "'odom' -> 'base_link'" in vehicle.listener.statuses()["frames"].message
    assert int(vehicle.listener.value("frames", "dropped: no transform") or 0) > 0
    vehicle.fault(tf_delay=0.0)
    vehicle.healthy()


def test_tf_missing_drops_frames_with_the_reason(vehicle: Vehicle) -> None:
    vehicle.fault(tf="off")
    vehicle.listener.wait_says("frames", "nothing is published: no transform", ERROR)
    vehicle.fault(tf="on")
    vehicle.healthy()


def test_tf_that_leaps_in_space_does_not_stop_the_node(vehicle: Vehicle) -> None:
    before = vehicle.node.output.count("memory was reset")
    vehicle.fault(tf_offset=500.0)
    vehicle.listener.wait_tracks(
        lambda m: all(m.camera_mask) and any(o.pose.pose.position.x > 300 for o in m.objects), 3
    )
    vehicle.fault(tf_offset=0.0)
    vehicle.healthy()
    assert vehicle.node.output.count("memory was reset") == before


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("nan", "not finite"),
        ("zero focal length", "focal lengths"),
        ("other size", "the image is 320x180 but its camera_info says 160x90"),
        ("unknown model", "distortion model 'spiral' is not known"),
    ],
)
def test_wrong_camera_info_masks_that_camera_by_name(vehicle: Vehicle, fault: str, words: str) -> None:
    vehicle.fault(info={"cam2": fault})
    vehicle.listener.wait_says("camera cam2", words, WARN)
    vehicle.publishes_without("cam2")
    vehicle.fault(info={})
    vehicle.healthy()


@pytest.mark.parametrize(
    ("camera", "fault", "words"),
    [
        ("cam1", "truncated", "the JPEG is broken"),
        ("cam0", "garbage", "broken"),
        ("cam2", "empty", "is empty"),
        ("cam5", "encoding", "image encoding 'yuv999' is not known"),
    ],
)
def test_broken_images_mask_that_camera_by_name(
    vehicle: Vehicle, camera: str, fault: str, words: str
) -> None:
    vehicle.fault(image={camera: fault})
    vehicle.listener.wait_says(f"camera {camera}", words, WARN)
    vehicle.publishes_without(camera)
    vehicle.fault(image={})
    vehicle.healthy()


def test_time_that_steps_back_resets_once_and_ids_go_on(vehicle: Vehicle) -> None:
    """What a looped recording does."""
    listener = vehicle.listener
    highest = max(o.track_id for m in listener.tracks for o in m.objects)
    before = vehicle.node.output.count("memory was reset")
    old = listener.tracks[-1].header.stamp.sec
    vehicle.fault(time_offset=-300.0)
    listener.wait_says("frames", "the tracks' memory was reset: time went back by", WARN)
    vehicle.healthy()
    ids = {o.track_id for m in listener.tracks if m.header.stamp.sec < old - 100 for o in m.objects}
    assert ids and not any(i <= highest for i in ids), "an id was used again after the reset"
    assert vehicle.node.output.count("memory was reset") == before + 1
    assert listener.value("frames", "resets") == str(before + 1)
