"""Argoverse 2: a log in the data set's layout lines up with its own matrices, and what is broken is told or passed over."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("pyarrow", reason="Argoverse 2's tables are feather files, which pyarrow reads")

from argoverse2_logs import (
    IMAGES,
    SWEEPS,
    THINGS,
    Log,
    annotation_columns,
    copy_log,
    size_of,
    write_annotations,
    write_log,
    write_table,
)

from dualview.cli import main
from dualview.errors import BagError
from dualview.scene.assembler import ClosedFrame
from dualview.scene.bag_messages import points_from_message
from dualview.scene.bag_reader import BagReader
from dualview.scene.class_maps import ARGOVERSE2_CLASSES
from dualview.scene.convert.argoverse2 import convert_argoverse2, convert_argoverse2_logs
from dualview.scene.convert.labels import DETECTION_CLASSES
from dualview.scene.messages import transform_from_message
from dualview.scene.offline import iterate_frames
from dualview.scene.preprocess import ImagePreprocessor
from dualview.scene.rig import load_rig

RIG = load_rig("argoverse2")


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Log:
    return write_log(tmp_path_factory.mktemp("argoverse2") / "00a6ffc1")


@pytest.fixture(scope="module")
def recording(log: Log) -> Path:
    path = log.folder.parent / "00a6ffc1.mcap"
    summary = convert_argoverse2(log.folder, path)
    assert summary.written == {
        "images": 7 * IMAGES, "sweeps": SWEEPS, "keyframes": SWEEPS, "boxes": SWEEPS * len(THINGS),
    }  # fmt: skip
    assert not summary.passed_over and not summary.notes
    return path


def frames_of(path: Path) -> list[ClosedFrame]:
    with BagReader(path) as bag:
        assert bag.check_rig(RIG) == ()
        frames = list(iterate_frames(bag, RIG))
    assert all(isinstance(frame, ClosedFrame) and not frame.problems for frame in frames)
    return frames


def camera_projection(camera, world: np.ndarray) -> np.ndarray:
    matrix = np.linalg.inv(camera.world_from_ego @ camera.ego_from_camera)
    points = world @ matrix[:3, :3].T + matrix[:3, 3]
    pixels = points @ camera.calibration.intrinsics.T
    return pixels[:, :2] / pixels[:, 2:]


def test_images_keep_their_bytes_and_their_own_stamps(log: Log, recording: Path) -> None:
    frames = frames_of(recording)
    assert len(frames) == IMAGES
    for index, frame in enumerate(frames):
        assert frame.stamp_ns == log.image_stamps("ring_front_center")[index]
        for camera in frame.cameras:
            assert camera.image.stamp_ns == log.image_stamps(camera.name)[index]
            assert bytes(camera.image.data) == log.jpegs[f"{camera.name}/{camera.image.stamp_ns}"]
            size = (camera.calibration.height, camera.calibration.width)
            assert size == size_of(camera.name) and camera.calibration.is_rectified
        assert len({camera.image.stamp_ns for camera in frame.cameras}) == 7


def corners_in_pixels(log: Log, path: Path) -> tuple[float, int, float]:
    """Largest distance (px) between the boxes' corners projected by the recording alone and by the log's matrices alone, over all
    keyframes, cameras and boxes in view; how many corners that were; and the largest distance of corners in the world (m)."""
    frames = frames_of(path)
    with BagReader(path) as bag:
        keyframes = bag.annotations(replace(RIG, class_names=None))
    worst, count, apart = 0.0, 0, 0.0
    things = {thing.uuid: thing for thing in log.things}
    for labels in keyframes:
        corners = labels.boxes.corners().double().numpy()
        for i, uuid in enumerate(labels.instance_ids):
            expected = log.corners(things[uuid], labels.stamp_ns)
            # each corner's own partner: the nearest, which must be another for every corner
            distance = np.linalg.norm(corners[i][:, None] - expected[None], axis=-1)
            partner = distance.argmin(1)
            assert len(set(partner)) == 8
            apart = max(apart, float(distance.min(1).max()))
            for camera in (camera for frame in frames for camera in frame.cameras):
                stamp = camera.image.stamp_ns
                pixels, depth = log.project(camera.name, stamp, expected)
                height, width = size_of(camera.name)
                if (depth < 1.0).any() or (pixels < 0).any() or (pixels > (width, height)).any():
                    continue
                ours = camera_projection(camera, corners[i])
                worst, count = max(worst, float(np.abs(ours - pixels[partner]).max())), count + 8
    return worst, count, apart


def test_corners_project_where_the_logs_matrices_say(log: Log, recording: Path) -> None:
    """The whole road: feather tables -> recording -> tf, camera_info, annotations -> pixels, for all seven cameras."""
    worst, count, apart = corners_in_pixels(log, recording)
    assert count > 300
    assert worst < 0.05, "half a tenth of a pixel of 1550x2048"
    assert apart < 1e-3


def test_a_tilted_vehicle_costs_a_box_only_its_tilt(tmp_path: Path) -> None:
    """Boxes stand upright in the recording's world; on a slope of 3 degrees corners move by the tilt times half the size."""
    log = write_log(tmp_path / "tilted", tilt=np.radians(3.0))
    convert_argoverse2(log.folder, tmp_path / "tilted.mcap")
    largest = np.radians(3.0) * 1.2 * max(np.linalg.norm(thing.size) / 2 for thing in THINGS)
    _, _, apart = corners_in_pixels(log, tmp_path / "tilted.mcap")
    assert 0.01 < apart < largest
    with BagReader(tmp_path / "tilted.mcap") as bag:
        keyframes = bag.annotations(replace(RIG, class_names=None))
    for (
        labels
    ) in keyframes:  # back in the ego frame, where networks learn them, the corners are the log's again
        ego_from_city = np.linalg.inv(log.pose(labels.stamp_ns))
        boxes = labels.boxes.transformed(torch.from_numpy(ego_from_city))
        for i, thing in enumerate(THINGS):
            expected = log.corners(thing, labels.stamp_ns) @ ego_from_city[:3, :3].T + ego_from_city[:3, 3]
            ours = boxes.corners()[i].double().numpy()
            distance = np.linalg.norm(ours[:, None] - expected[None], axis=-1).min(1)
            assert distance.max() < 0.02


def test_tracks_velocities_points_and_classes(log: Log, recording: Path) -> None:
    with BagReader(recording) as bag:
        scored = bag.annotations(RIG)
        everything = bag.annotations(replace(RIG, class_names=None))
        ten = bag.annotations(load_rig("argoverse2_nuscenes"))
    assert [labels.stamp_ns for labels in everything] == log.sweep_stamps
    for labels in everything:
        assert labels.instance_ids == tuple(thing.uuid for thing in THINGS)
        assert labels.boxes.track_id.tolist() == list(range(len(THINGS))), "an id for each uuid, kept"
        for i, thing in enumerate(THINGS):
            assert labels.class_names[labels.boxes.label[i]] == thing.category
            expected = torch.tensor((*thing.velocity, 0.0))
            torch.testing.assert_close(labels.boxes.velocity[i], expected, atol=1e-3, rtol=0)
            torch.testing.assert_close(labels.boxes.size[i], torch.tensor(thing.size))
            assert labels.num_lidar_points[i] == log.interior(thing, labels.stamp_ns) >= 10
    assert len(scored[0].class_names) == 26
    assert [scored[0].class_names[i] for i in scored[0].boxes.label] == [t.category for t in THINGS[:5]]
    assert ten[0].class_names == DETECTION_CLASSES
    assert [ten[0].class_names[i] for i in ten[0].boxes.label] == ["car", "bus", "pedestrian", "car"]


def test_points_come_back_by_tf(log: Log, recording: Path) -> None:
    with BagReader(recording) as bag:
        (static,) = bag.messages(["/tf_static"])
        clouds = list(bag.messages(RIG.lidar_topics))
        odometry = list(bag.messages(["/odom"]))
    mountings = {t.child_frame_id: transform_from_message(t)[3] for t in static.message.transforms}
    assert len(clouds) == 2 * SWEEPS and len(odometry) == SWEEPS
    speed = odometry[1].message.twist.twist
    assert speed.linear.x == pytest.approx(10.0, abs=0.05) and speed.angular.z == pytest.approx(0.3, abs=0.01)
    for stamp in log.sweep_stamps:
        expected = log.points(stamp).astype(np.float64)
        upper = np.arange(len(expected)) % 64 < 32
        for name, rows in (("up_lidar", upper), ("down_lidar", ~upper)):
            (message,) = [
                c.message for c in clouds if c.log_time_ns == stamp and c.topic == f"/{name}/points"
            ]
            assert message.header.frame_id == name
            points = points_from_message(message)
            ego = points[:, :3].astype(np.float64) @ mountings[name][:3, :3].T + mountings[name][:3, 3]
            np.testing.assert_allclose(ego, expected[rows], atol=1e-4)
            assert np.array_equal(points[:, 3], np.arange(len(expected), dtype=np.uint8)[rows])


@pytest.mark.parametrize("image_size", [(640, 960), (192, 288)])
def test_the_upright_front_camera_reaches_the_network(
    log: Log, recording: Path, image_size: tuple[int, int]
) -> None:
    """The disc that was painted where a car is shows where the frame's own matrices put that car, and what lies at the
    horizon or a house's height above it far away is in the picture."""
    frame, problems = ImagePreprocessor(image_size).build(frames_of(recording)[0])
    assert not problems and frame.camera_mask.all() and frame.camera_names[0] == "ring_front_center"
    height, width = image_size
    stamp = int(frame.camera_stamps_ns[0])
    center = torch.from_numpy(log.city_from_box(THINGS[0], stamp)[:3, 3])
    camera_from_world = torch.linalg.inv(frame.world_from_ego[0] @ frame.ego_from_camera[0].double())
    point = camera_from_world[:3, :3] @ center + camera_from_world[:3, 3]
    pixel = (frame.intrinsics[0].double() @ point)[:2] / point[2]
    assert 0 < pixel[0] < width and 0 < pixel[1] < height
    bright = (frame.images[0].float().mean(0) > 180).nonzero().float().flip(
        -1
    ) + 0.5  # (x, y) of pixel centres
    assert len(bright) >= 4
    torch.testing.assert_close(bright.mean(0).double(), pixel, atol=0.35, rtol=0)
    for rise in (0.0, 6.0, -1.3):  # m from the camera's height, 60 m ahead
        far = frame.intrinsics[0].double() @ torch.tensor([0.0, -rise, 60.0], dtype=torch.float64)
        assert 0 < far[1] / far[2] < height


def test_missing_tables_are_named(log: Log, tmp_path: Path) -> None:
    for name in (
        "calibration/intrinsics.feather",
        "calibration/egovehicle_SE3_sensor.feather",
        "city_SE3_egovehicle.feather",
    ):
        part = copy_log(log, tmp_path / Path(name).stem)
        (part.folder / name).unlink()
        with pytest.raises(BagError, match=f"lacks {name}"):
            convert_argoverse2(part.folder, tmp_path / "x.mcap")
    with pytest.raises(BagError, match="name one of the logs in it: 00a6ffc1"):
        convert_argoverse2(log.folder.parent, tmp_path / "x.mcap")
    with pytest.raises(BagError, match="is not a log of Argoverse 2"):
        convert_argoverse2(tmp_path / "nowhere", tmp_path / "x.mcap")
    assert not (tmp_path / "x.mcap").exists() and not list(tmp_path.glob(".*partial"))


def test_damaged_tables_are_named(log: Log, tmp_path: Path) -> None:
    part = copy_log(log, tmp_path / "damaged")
    poses = part.folder / "city_SE3_egovehicle.feather"
    whole = poses.read_bytes()
    poses.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BagError, match=r"city_SE3_egovehicle\.feather can't be read as a feather file"):
        convert_argoverse2(part.folder, tmp_path / "x.mcap")
    write_table(poses, {"timestamp_ns": [1], "qw": [1.0]})
    with pytest.raises(
        BagError, match=r"lacks the columns qx, qy, qz, tx_m, ty_m, tz_m; it has timestamp_ns, qw"
    ):
        convert_argoverse2(part.folder, tmp_path / "x.mcap")
    poses.write_bytes(whole)
    (part.folder / "annotations.feather").write_bytes(b"ARROW1")
    with pytest.raises(BagError, match=r"annotations\.feather can't be read"):
        convert_argoverse2(part.folder, tmp_path / "x.mcap")
    columns = annotation_columns(log)
    write_annotations(part, {**columns, "timestamp_ns": [float(s) for s in columns["timestamp_ns"]]})
    with pytest.raises(BagError, match="timestamp_ns holds float64 instead of integers"):
        convert_argoverse2(part.folder, tmp_path / "x.mcap")
    assert not (tmp_path / "x.mcap").exists()


def test_what_is_broken_is_passed_over_and_the_rest_is_kept(log: Log, tmp_path: Path) -> None:
    part = copy_log(log, tmp_path / "part")
    cameras = part.folder / "sensors" / "cameras"
    for image in (cameras / "ring_side_left").iterdir():
        image.unlink()
    front = sorted((cameras / "ring_front_center").iterdir())
    front[1].write_bytes(b"no picture")
    (front[0].parent / "thumbs.db").write_bytes(b"")
    sweeps = sorted((part.folder / "sensors" / "lidar").iterdir())
    sweeps[2].write_bytes(b"ARROW1 cut off")
    late = front[0].parent / f"{part.sweep_stamps[-1] + 5_000_000_000}.jpg"
    late.write_bytes(front[0].read_bytes())
    columns = annotation_columns(log)
    columns["length_m"][0] = 0.0
    columns["qw"][1] = columns["qz"][1] = float("nan")
    columns["timestamp_ns"][2] = None
    columns["track_uuid"][4] = columns["track_uuid"][3]
    columns["category"][5] = "HOVERCRAFT"
    columns["num_interior_pts"][5] = None
    write_annotations(part, columns)
    summary = convert_argoverse2(part.folder, tmp_path / "part.mcap")
    assert summary.written == {
        "images": 6 * IMAGES - 1, "sweeps": SWEEPS - 1, "keyframes": SWEEPS, "boxes": SWEEPS * len(THINGS) - 4,
    }  # fmt: skip
    assert summary.passed_over == {
        "cameras without images": 1,
        "files whose names aren't stamps": 1,
        "images that are no JPEG": 1,
        "sweeps that can't be read": 1,
        "files without an ego pose near their stamp": 1,
        "boxes whose stamp, place or size can't be used": 3,
        "second boxes of an object at one stamp": 1,
    }
    assert "HOVERCRAFT" in str(summary) and "ring_front_center/thumbs.db" in str(summary)
    with BagReader(tmp_path / "part.mcap") as bag:
        first = bag.annotations(replace(RIG, class_names=None))[0]
    assert [first.class_names[i] for i in first.boxes.label] == ["REGULAR_VEHICLE", "HOVERCRAFT"]
    assert first.num_lidar_points[1] == -1, "a count that isn't there is unknown, not none"


def test_a_log_without_labels_is_a_recording_without_labels(log: Log, tmp_path: Path) -> None:
    part = copy_log(log, tmp_path / "test_split")
    (part.folder / "annotations.feather").unlink()
    summary = convert_argoverse2(part.folder, tmp_path / "t.mcap")
    assert summary.written == {"images": 7 * IMAGES, "sweeps": SWEEPS}
    assert "no labels" in str(summary)


def test_several_logs_from_the_command_line(
    log: Log, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A bad log keeps no other from its recording; what is there already stays."""
    bad = copy_log(log, tmp_path / "bad")
    (bad.folder / "calibration" / "intrinsics.feather").unlink()
    arguments = ["convert", "argoverse2", str(bad.folder), str(log.folder), str(tmp_path / "out")]
    assert main(arguments) == 1
    printed = capsys.readouterr()
    assert "35 images" in printed.out and "bad.mcap was not written" in printed.err
    assert "1 of 2 logs were not converted" in printed.err
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["00a6ffc1.mcap"]
    before = (tmp_path / "out" / "00a6ffc1.mcap").stat().st_mtime_ns
    assert main(["convert", "argoverse2", str(log.folder), str(tmp_path / "out")]) == 1
    assert "exists already" in capsys.readouterr().err
    assert (tmp_path / "out" / "00a6ffc1.mcap").stat().st_mtime_ns == before
    with pytest.raises(BagError, match="name a folder"):
        convert_argoverse2_logs([log.folder, bad.folder], tmp_path / "one.mcap")
    (tmp_path / "elsewhere").mkdir()
    twin = copy_log(log, tmp_path / "elsewhere" / "00a6ffc1")
    with pytest.raises(BagError, match="several logs are called 00a6ffc1"):
        convert_argoverse2_logs([log.folder, twin.folder], tmp_path / "out")


def test_without_pyarrow_the_error_says_what_to_install(
    log: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(BagError, match="pip install pyarrow"):
        convert_argoverse2(log.folder, tmp_path / "x.mcap")


def test_a_recording_is_scored_with_argoverses_preset_and_protocol(recording: Path, tmp_path: Path) -> None:
    """Seven cameras, one of them upright, go through the tiny preset; 26 classes are scored to 150 m at 2 Hz."""
    arguments = [
        "evaluate",
        str(recording),
        "--weights",
        "dualview-tiny-argoverse2",
        "--protocol",
        "argoverse2",
    ]
    assert main([*arguments, "--report", str(tmp_path), "--rig", "argoverse2", "--pictures", "0"]) == 0
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["frames"] == IMAGES and not metrics["frames_dropped"] and metrics["keyframes"] == 1
    assert set(metrics["per_class"]) == set(ARGOVERSE2_CLASSES)
    assert set(metrics["present"]["classes"]) == {thing.category for thing in THINGS[:5]}
    assert "100-150m" in metrics["per_range"], "the car 120 m away is among the labels"
