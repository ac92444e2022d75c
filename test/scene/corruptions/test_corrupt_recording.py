"""A corrupted copy of a recording differs in its images, and in nothing else."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import cv2
import numpy as np
import pytest
import simplejpeg
from rosbags import rosbag2
from rosbags.rosbag2 import StoragePlugin
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from dualview.cli import main
from dualview.errors import BagError
from dualview.scene import bag_messages as make
from dualview.scene.assembler import ClosedFrame
from dualview.scene.bag_reader import BagReader
from dualview.scene.bag_writer import BagWriter
from dualview.scene.calibration import CameraCalibration
from dualview.scene.corruptions.corruption import Corruption
from dualview.scene.corruptions.encoded import corrupt_closed, decode_fully
from dualview.scene.corruptions.recording import corrupt_recording
from dualview.scene.message_types import message_class, message_typestore
from dualview.scene.messages import image_from_message
from dualview.scene.offline import iterate_frames
from dualview.scene.preprocess import ImagePreprocessor
from dualview.scene.rig import CameraSpec, Rig, load_rig

START, STEP, FRAMES = 1_700_000_000_000_000_000, 100_000_000, 4
HEIGHT, WIDTH = 64, 96
OPTICAL = np.array([[0.0, 0, 1, 1], [-1, 0, 0, 0], [0, -1, 0, 1.5], [0, 0, 0, 1]])
RIG_FILE = """
name: three
world_frame: map
cameras:
  - {name: front, image_topic: /front/image/compressed, camera_info_topic: /front/camera_info}
  - {name: left, image_topic: /left/image_raw, compressed: false, camera_info_topic: /left/camera_info}
  - {name: back, image_topic: /back/image/compressed, camera_info_topic: /back/camera_info}
"""


def scene(seed: int) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 7, 3)).astype(np.uint8)
    return cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_LINEAR)


@pytest.fixture(scope="module")
def rig(tmp_path_factory) -> Rig:
    path = tmp_path_factory.mktemp("rig") / "three.yaml"
    path.write_text(RIG_FILE)
    return load_rig(path)


@pytest.fixture(scope="module")
def recording(tmp_path_factory, rig: Rig) -> Path:
    """JPEG, raw bgr8 and PNG cameras; the second frame's front image is broken; a topic that no rig knows."""
    path = tmp_path_factory.mktemp("bag") / "clean.mcap"
    matrix = np.array([[60.0, 0, 47.5], [0, 60, 31.5], [0, 0, 1]])
    calibration = CameraCalibration(WIDTH, HEIGHT, matrix, "", np.zeros(0))
    with BagWriter(path, rig) as bag:
        bag.static_transforms(START, {camera.frame: OPTICAL for camera in rig.cameras})
        for index in range(FRAMES):
            stamp, pose = START + index * STEP, np.eye(4)
            pose[0, 3] = 0.4 * index
            bag.ego_pose(stamp, pose)
            bag.odometry(stamp, pose, np.array([4.0, 0, 0]), np.zeros(3))
            for name in rig.camera_names:
                bag.camera_info(name, stamp, calibration)
            jpeg = simplejpeg.encode_jpeg(scene(index), 95, "RGB")
            bag.image("front", stamp, jpeg[:200] if index == 1 else jpeg)
            bag.raw_image("left", stamp, np.ascontiguousarray(scene(10 + index)[..., ::-1]), "bgr8")
            png = cv2.imencode(".png", scene(20 + index)[..., ::-1])[1].tobytes()
            message = make.compressed_image_message(stamp, rig.camera("back").frame, png)
            message.format = "png"
            bag.message(rig.camera("back").image_topic, message, stamp)
            text = message_class("std_msgs/msg/String")(data=f"note {index}")
            bag.message("/notes", text, stamp)
    return path


def raw(path: Path) -> list[tuple[str, str, int, bytes]]:
    with BagReader(path) as bag:
        return [(m.topic, m.type, m.log_time_ns, bytes(m.message)) for m in bag.messages(raw=True)]


def test_only_images_change_and_they_change_as_the_pixels_do(recording: Path, rig: Rig, tmp_path: Path):
    corruption = Corruption("low_light", "moderate", 3)
    count = corrupt_recording(recording, tmp_path / "dark.mcap", rig, corruption)
    assert count == 3 * FRAMES
    before, after = raw(recording), raw(tmp_path / "dark.mcap")
    assert [m[:3] for m in before] == [m[:3] for m in after]
    topics = {camera.image_topic for camera in rig.cameras}
    changed = [a[0] in topics for a, b in zip(before, after, strict=True) if a[3] != b[3]]
    assert all(changed) and len(changed) == 3 * FRAMES - 1  # the broken image stays broken
    with BagReader(recording) as old, BagReader(tmp_path / "dark.mcap") as new:
        assert old.topics == new.topics
        for number, camera in enumerate(rig.cameras):
            pairs = zip(old.messages([camera.image_topic]), new.messages([camera.image_topic]), strict=True)
            for index, (clean, dark) in enumerate(pairs):
                assert clean.message.header == dark.message.header
                given, made = image_from_message(clean.message), image_from_message(dark.message)
                assert made.encoding == given.encoding and made.step == given.step
                if camera.name == "front" and index == 1:
                    continue
                expected = corruption.image(decode_fully(given), number, 3, given.stamp_ns)
                got = decode_fully(made)
                if camera.name == "front":  # through JPEG
                    assert np.abs(got.astype(int) - expected).mean() < 12
                else:
                    assert (got == expected).all()


def test_on_the_fly_and_from_the_copy_are_the_same_pixels(recording: Path, rig: Rig, tmp_path: Path):
    corruption = Corruption("snow", "easy", 1)
    corrupt_recording(recording, tmp_path / "snow.mcap", rig, corruption)
    build = ImagePreprocessor((32, 48)).build
    with BagReader(recording) as clean, BagReader(tmp_path / "snow.mcap") as copy:
        first = [c for c in iterate_frames(clean, rig) if isinstance(c, ClosedFrame)]
        second = [c for c in iterate_frames(copy, rig) if isinstance(c, ClosedFrame)]
    assert len(first) == len(second) == FRAMES
    for one, other in zip(first, second, strict=True):
        (frame, problems), (read, same) = build(corrupt_closed(one, corruption)), build(other)
        assert problems.keys() == same.keys()
        assert (frame.images == read.images).all() and (frame.camera_mask == read.camera_mask).all()
    assert (build(corrupt_closed(first[0], corruption))[0].images != build(first[0])[0].images).any()
    assert not build(corrupt_closed(first[1], corruption))[0].camera_mask[0]  # the broken JPEG


def test_topics_that_nobody_defines_are_left_out_and_told(recording: Path, rig: Rig, tmp_path: Path, capsys) -> None:
    """sqlite3 recordings of old releases hold no definitions."""
    store = message_typestore()
    own = get_typestore(Stores.EMPTY)
    own.register(get_types_from_msg("int32 number", "vendor_msgs/msg/Secret"))
    writer = rosbag2.Writer(tmp_path / "old", version=8, storage_plugin=StoragePlugin.SQLITE3)
    with BagReader(recording) as bag, writer:
        connections = {t: writer.add_connection(t, kind, typestore=store) for t, (kind, _) in bag.topics.items()}
        secret = writer.add_connection("/secret", "vendor_msgs/msg/Secret", typestore=own)
        writer.write(secret, START, b"\x00\x01\x00\x00\x07\x00\x00\x00")
        for m in bag.messages(raw=True):
            writer.write(connections[m.topic], m.log_time_ns, m.message)
    with contextlib.closing(sqlite3.connect(next((tmp_path / "old").glob("*.db3")))) as table, table:
        table.execute("DELETE FROM message_definitions")
    rig_file, copy = tmp_path / "three.yaml", tmp_path / "fog.mcap"
    rig_file.write_text(RIG_FILE)
    assert main(["corrupt", str(tmp_path / "old"), "--rig", str(rig_file), "--corruption", "fog", "--out", str(copy)]) == 0
    assert "left out: /secret, whose type vendor_msgs/msg/Secret" in capsys.readouterr().err
    with BagReader(copy) as bag, BagReader(recording) as whole:
        assert bag.topics == whole.topics


def test_a_copy_never_takes_the_place_of_its_source(recording: Path, rig: Rig, tmp_path: Path):
    with pytest.raises(BagError, match="the recording itself"):
        corrupt_recording(recording, recording, rig, Corruption("fog", "easy"), overwrite=True)
    other = Rig("other", (CameraSpec("roof", "/roof/image", False),))
    with pytest.raises(BagError, match="none of the image topics"):
        corrupt_recording(recording, tmp_path / "none.mcap", other, Corruption("fog", "easy"))
    assert not list(tmp_path.iterdir())


def test_the_command_writes_copies_and_sheets(recording: Path, tmp_path: Path, capsys):
    rig_file = tmp_path / "three.yaml"
    rig_file.write_text(RIG_FILE)
    first, again, sheet = tmp_path / "a.mcap", tmp_path / "b.mcap", tmp_path / "sheet.png"
    options = ["corrupt", str(recording), "--rig", str(rig_file)]
    for path in (first, again):
        arguments = ["--corruption", "frame_lost", "--severity", "hard", "--seed", "4", "--out", str(path)]
        assert main([*options, *arguments]) == 0
    assert raw(first) == raw(again) != raw(recording)
    assert "12 images, frame_lost, hard, seed 4" in capsys.readouterr().out
    assert main([*options, "--corruption", "fog", "--out", str(first)]) == 1  # exists
    assert "exists already" in capsys.readouterr().err
    assert main([*options, "--out", str(tmp_path / "c.mcap")]) == 1
    assert "needs a --corruption" in capsys.readouterr().err
    assert main([*options, "--sheet", str(sheet)]) == 0
    picture = cv2.imread(str(sheet))
    assert picture.shape[1] > 4 * 400 and picture.shape[0] > 8 * 250
    assert main([*options, "--sheet", str(sheet), "--at", "60"]) == 1
    assert "no frame with all cameras" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    for wrong, told in (
        (["--sheet", str(sheet), "--at", "-1"], "--at -1: a time is"),
        (["--sheet", str(sheet), "--width", "0"], "--width 0: a picture is 40 to 4000 px wide"),
        (["--sheet", str(tmp_path / "sheet.gif")], "must end in .jpg or .png"),
        (["--sheet", str(tmp_path / "file" / "sheet.png")], "can't be written"),
    ):
        assert main([*options, *wrong]) == 1
        assert told in capsys.readouterr().err
