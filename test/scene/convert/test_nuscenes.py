"""nuScenes: two real keyframes, one without LiDAR."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dualview.cli import main
from dualview.errors import BagError
from dualview.scene.assembler import ClosedFrame
from dualview.scene.bag_messages import points_from_message
from dualview.scene.bag_reader import BagReader
from dualview.scene.convert.nuscenes import convert_nuscenes, open_tables, scene_annotations
from dualview.scene.messages import transform_from_message
from dualview.scene.offline import iterate_frames
from dualview.scene.rig import load_rig

pytest.importorskip("nuscenes", reason="nuscenes-devkit is not installed")


@pytest.fixture(scope="module")
def dataroot(real_data: Path) -> Path:
    return real_data / "nuscenes_keyframes"


@pytest.fixture(scope="module")
def recording(dataroot: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("nuscenes") / "scene-0061.mcap"
    summary = convert_nuscenes(dataroot, path, "scene-0061")
    assert summary.written == {"images": 6, "sweeps": 1, "keyframes": 1, "boxes": 68}
    assert not summary.passed_over
    return path


def test_the_frame_closes_with_all_cameras(recording: Path, dataroot: Path) -> None:
    rig = load_rig("nuscenes")
    with BagReader(recording) as bag:
        assert bag.check_rig(rig) == ()
        (frame,) = iterate_frames(bag, rig)
    assert isinstance(frame, ClosedFrame) and not frame.problems
    tables = open_tables(dataroot)
    for camera in frame.cameras:
        token = tables.sample[0]["data"][camera.name.upper()]
        row = tables.get("sample_data", token)
        assert camera.image is not None and camera.calibration is not None
        assert camera.image.stamp_ns == row["timestamp"] * 1000
        assert bytes(camera.image.data) == (dataroot / row["filename"]).read_bytes()  # type: ignore[call-overload]
        sensor = tables.get("calibrated_sensor", row["calibrated_sensor_token"])
        assert np.array_equal(camera.calibration.intrinsics, sensor["camera_intrinsic"])
        # the devkit's own road: quaternion (w, x, y, z)
        from pyquaternion import Quaternion

        np.testing.assert_allclose(
            camera.ego_from_camera[:3, :3], Quaternion(sensor["rotation"]).rotation_matrix, atol=1e-9
        )
        np.testing.assert_allclose(camera.ego_from_camera[:3, 3], sensor["translation"], atol=1e-12)
        pose = tables.get("ego_pose", row["ego_pose_token"])
        np.testing.assert_allclose(camera.world_from_ego[:3, 3], pose["translation"], atol=1e-9)
        np.testing.assert_allclose(
            camera.world_from_ego[:3, :3], Quaternion(pose["rotation"]).rotation_matrix, atol=1e-9
        )


def test_labels_are_the_devkits_boxes(recording: Path, dataroot: Path) -> None:
    tables = open_tables(dataroot)
    with BagReader(recording) as bag:
        (labels,) = bag.annotations(load_rig("nuscenes"))
    corners = labels.boxes.corners()
    for i, token in enumerate(tables.sample[0]["anns"]):
        box = tables.get_box(token)
        row = tables.get("sample_annotation", token)
        assert labels.instance_ids[i] == row["instance_token"]
        assert labels.num_lidar_points[i] == row["num_lidar_pts"]
        # the same corners but for the tilt of the devkit's quaternion (these tables have 1 to 2 degrees), which we drop
        tilt = np.arccos(np.clip(box.orientation.rotation_matrix[2, 2], -1, 1))
        distance = torch.cdist(torch.tensor(box.corners().T), corners[i].double())
        assert tilt < 0.05
        assert distance.min(1).values.max() <= tilt * np.linalg.norm(box.wlh) / 2 + 1e-3
        yaw = float(labels.boxes.yaw[i])
        assert box.orientation.rotation_matrix[:2, 0] @ [np.cos(yaw), np.sin(yaw)] > 0.998
    assert labels.boxes.velocity.isnan().all(), "one keyframe tells nothing about velocities"
    assert len(set(labels.boxes.track_id.tolist())) == 68


def test_lidar_counts_agree_with_the_tables(recording: Path) -> None:
    """The points of the recording, moved by its tf, fill the boxes of the recording as nuScenes counted."""
    rig = load_rig("nuscenes")
    with BagReader(recording) as bag:
        (labels,) = bag.annotations(rig)
        (cloud,) = bag.messages(["/lidar_top/points"])
        (static,) = bag.messages(["/tf_static"])
        moving = [m for m in bag.messages(["/tf"]) if m.log_time_ns == cloud.log_time_ns]
    mounting = {t.child_frame_id: transform_from_message(t)[3] for t in static.message.transforms}[
        "lidar_top"
    ]
    world_from_lidar = transform_from_message(moving[0].message.transforms[0])[3] @ mounting
    points = points_from_message(cloud.message)
    world = points[:, :3].astype(np.float64) @ world_from_lidar[:3, :3].T + world_from_lidar[:3, 3]
    counted = labels.boxes.contains(torch.tensor(world)).sum(1)
    many = labels.num_lidar_points >= 10
    assert many.sum() >= 5
    ratio = counted[many] / labels.num_lidar_points[many]
    assert 0.8 < ratio.median() < 1.2
    assert points[:, 3].max() > 1, "intensity came along"


def test_scene_without_lidar_is_converted_and_says_so(dataroot: Path, tmp_path: Path) -> None:
    summary = convert_nuscenes(dataroot, tmp_path / "b.mcap", "scene-0001")
    assert summary.written == {"images": 6, "keyframes": 1, "boxes": 10}
    assert "LIDAR_TOP" in str(summary)
    rig = load_rig("nuscenes")
    with BagReader(tmp_path / "b.mcap") as bag:
        (frame,) = iterate_frames(bag, rig)
    assert isinstance(frame, ClosedFrame) and not frame.problems
    # each camera has its own ego pose here
    assert len({c.world_from_ego[0, 3] for c in frame.cameras}) > 1


def test_missing_files_are_passed_over(dataroot: Path, tmp_path: Path) -> None:
    """The same tables over a data root from which an image and the sweep were taken away."""
    root = tmp_path / "root"
    (root / "samples").mkdir(parents=True)
    for name in ("maps", "v1.0-keyframes"):
        (root / name).symlink_to((dataroot / name).resolve())
    for folder in (dataroot / "samples").iterdir():
        if folder.name not in ("CAM_BACK", "LIDAR_TOP"):
            (root / "samples" / folder.name).symlink_to(folder.resolve())
    summary = convert_nuscenes(root, tmp_path / "c.mcap", "scene-0061")
    assert summary.written == {"images": 5, "keyframes": 1, "boxes": 68}
    assert summary.passed_over == {"missing files of CAM_BACK": 1, "missing files of LIDAR_TOP": 1}
    assert "CAM_BACK__1532402927637525.jpg" in str(summary)


def test_labels_straight_from_the_tables_equal_those_of_the_recording(
    recording: Path, dataroot: Path
) -> None:
    with BagReader(recording) as bag:
        (written,) = bag.annotations(load_rig("nuscenes"))
    (direct,) = scene_annotations(dataroot, "scene-0061")
    assert direct.instance_ids == written.instance_ids and direct.stamp_ns == written.stamp_ns
    assert torch.equal(direct.boxes.center, written.boxes.center)
    assert torch.equal(direct.boxes.size, written.boxes.size)


def test_rig_from_the_tables(dataroot: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rig", "from-nuscenes", str(dataroot), "scene-0061"]) == 0
    (tmp_path / "mine.yaml").write_text(capsys.readouterr().out)
    rig = load_rig(tmp_path / "mine.yaml")
    shipped = load_rig("nuscenes2bag")
    assert rig.camera_names == shipped.camera_names
    for camera, nominal in zip(rig.cameras, shipped.cameras, strict=True):
        assert (camera.image_topic, camera.optical_frame) == (nominal.image_topic, nominal.optical_frame)
        assert camera.calibration is not None and nominal.calibration is not None
        np.testing.assert_allclose(camera.calibration.intrinsics, nominal.calibration.intrinsics, atol=0.06)
    assert main(["rig", "from-nuscenes", str(dataroot), "scene-0061", "--compressed"]) == 0
    assert "/cam_front/compressed" in capsys.readouterr().out


def test_wrong_names_are_answered_with_the_right_ones(dataroot: Path, tmp_path: Path) -> None:
    with pytest.raises(BagError, match=r"no scene 'scene-9'.*scene-0061, scene-0001"):
        convert_nuscenes(dataroot, tmp_path / "x.mcap", "scene-9")
    with pytest.raises(BagError, match=r"'v1\.0-mini'; it has v1\.0-keyframes"):
        convert_nuscenes(dataroot, tmp_path / "x.mcap", "scene-0061", "v1.0-mini")
    with pytest.raises(BagError, match="it has none"):
        convert_nuscenes(tmp_path, tmp_path / "x.mcap", "scene-0061")
    assert not (tmp_path / "x.mcap").exists()


def test_command_line(dataroot: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "d.mcap")
    arguments = [
        "convert",
        "nuscenes",
        str(dataroot),
        "--version",
        "v1.0-keyframes",
        "--scene",
        "scene-0061",
        out,
    ]
    assert main(arguments) == 0
    assert "68 boxes, 6 images" in capsys.readouterr().out
    assert main(arguments) == 1, "an existing recording isn't overwritten"
    assert "exists already" in capsys.readouterr().err
    assert main(["bag", "info", out, "--rig", "nuscenes"]) == 0
    assert "rig nuscenes: fits" in capsys.readouterr().out


def test_racks_and_what_radar_alone_saw_count_as_in_the_devkit(dataroot: Path, tmp_path: Path) -> None:
    """A pedestrian without a LiDAR return, but with radar's, and a barrier that is called a rack."""
    (tmp_path / "samples").symlink_to(dataroot / "samples")
    (tmp_path / "maps").symlink_to(dataroot / "maps")
    tables = shutil.copytree(dataroot / "v1.0-keyframes", tmp_path / "v1.0-keyframes", copy_function=shutil.copyfile)
    tables.chmod(0o755)
    categories = json.loads((tables / "category.json").read_text())
    for row in categories:
        row["name"] = row["name"].replace("movable_object.barrier", "static_object.bicycle_rack")
    (tables / "category.json").write_text(json.dumps(categories))
    labels = json.loads((tables / "sample_annotation.json").read_text())
    first, second = [row for row in labels if row["num_lidar_pts"]][:2]
    first.update(num_lidar_pts=0, num_radar_pts=2)
    second.update(num_lidar_pts=0, num_radar_pts=0)
    (tables / "sample_annotation.json").write_text(json.dumps(labels))
    summary = convert_nuscenes(tmp_path, tmp_path / "a.mcap", "scene-0061")
    assert summary.written["boxes"] == 68 and not summary.passed_over
    rig = load_rig("nuscenes")
    with BagReader(tmp_path / "a.mcap") as bag:
        (detected,), (every,) = bag.annotations(rig), bag.annotations(replace(rig, class_names=None))
    points = dict(zip(every.instance_ids, every.num_lidar_points.tolist(), strict=True))
    assert points[first["instance_token"]] == -1 and points[second["instance_token"]] == 0
    racks = sum(every.class_names[i] == "bicycle_rack" for i in every.boxes.label.tolist())
    assert racks > 0 and len(detected.boxes) == 68 - racks
