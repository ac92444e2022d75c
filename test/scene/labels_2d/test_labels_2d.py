"""2D labels: from 3D ones, from COCO JSON, attached to a recording, and read again for a network."""

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from labelled_drive import (
    CALIBRATIONS,
    HEIGHT,
    INTRINSICS,
    MOUNTINGS,
    RIG,
    T0,
    WIDTH,
    annotations,
    image_stamps,
    world_from_ego,
    write_drive,
)

from dualview.cli import main
from dualview.errors import BagError, ConfigError
from dualview.scene.bag_messages import Annotation2D
from dualview.scene.bag_reader import BagReader
from dualview.scene.labels_2d import recorded_images
from dualview.scene.labels_2d.attach import attach_labels_2d, export_images
from dualview.scene.labels_2d.coco import labels_from_coco, parse_image_name
from dualview.scene.labels_2d.from_3d import labels_from_3d
from dualview.scene.labels_2d.labels import network_labels, read_labels_2d, rectangles_to_network


@pytest.fixture(scope="module")
def drive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_drive(tmp_path_factory.mktemp("labels_2d") / "drive.mcap")


def opencv_rectangle(camera: str, stamp: int, index: int) -> np.ndarray:
    """Where OpenCV shows the densely sampled edges of an object at a camera's exposure, clipped to the image."""
    at = annotations(stamp).boxes
    corners = at.corners()[index].double().numpy()
    edges = [(a, b) for a in range(8) for b in range(8) if a < b and bin(a ^ b).count("1") == 1]
    t = np.linspace(0, 1, 200)[:, None]
    points = np.concatenate([corners[a] * (1 - t) + corners[b] * t for a, b in edges])
    camera_from_world = np.linalg.inv(world_from_ego(stamp) @ MOUNTINGS[camera])
    local = points @ camera_from_world[:3, :3].T + camera_from_world[:3, 3]
    assert (local[:, 2] > 0.5).all()
    distortion = CALIBRATIONS[camera].distortion
    pixels = cv2.projectPoints(
        local[:, None], np.zeros(3), np.zeros(3), INTRINSICS, distortion if len(distortion) else None
    )[0][:, 0]
    pixels += 0.5
    low, high = pixels.min(0), pixels.max(0)
    return np.concatenate([np.clip(low, 0, [WIDTH, HEIGHT]), np.clip(high, 0, [WIDTH, HEIGHT])])


def test_headers_are_read_without_the_images(drive: Path) -> None:
    with BagReader(drive) as bag:
        found = recorded_images.image_stamps(bag, RIG)
        assert {c: [i.stamp_ns for i in images] for c, images in found.items()} == image_stamps()
        assert found["front"][0].frame_id == RIG.camera("front").frame
        assert recorded_images.camera_calibrations(bag, RIG)["front_left"].distortion_model == "plumb_bob"


def test_rectangles_of_3d_labels_are_opencv_s(drive: Path) -> None:
    """Both cameras, the bent lens included, at their own exposures: objects move on between keyframe and image."""
    with BagReader(drive) as bag:
        labels, report = labels_from_3d(bag, RIG)
    assert not report.passed_over
    assert {c: list(found) for c, found in labels.items()} == image_stamps()
    checked = 0
    for camera, images in labels.items():
        for stamp, found in images.items():
            for label in found:
                index = int(label.instance_id.removeprefix("object-"))
                wanted = opencv_rectangle(camera, stamp, index)
                assert np.abs(np.array(label.box) - wanted).max() < 0.2, (camera, label)
                checked += 1
    assert checked >= 9
    ids = {label.instance_id for images in labels.values() for found in images.values() for label in found}
    assert ids == {"object-0", "object-1"}, "the truck has no LiDAR point, the other car is behind"
    names = {label.class_name for label in labels["front_left"][T0 + 30_000_000]}
    assert names == {"car", "pedestrian"}


def test_attached_labels_come_back_and_the_rest_is_untouched(drive: Path, tmp_path: Path) -> None:
    with BagReader(drive) as bag:
        labels, _ = labels_from_3d(bag, RIG)
        before = [(m.topic, m.log_time_ns, bytes(m.message)) for m in bag.messages(raw=True)]
    assert attach_labels_2d(drive, tmp_path / "a.mcap", RIG, labels) == 6
    with BagReader(tmp_path / "a.mcap") as bag:
        again = read_labels_2d(bag, RIG)
        after = [(m.topic, m.log_time_ns, bytes(m.message)) for m in bag.messages(raw=True)]
        renaming = replace(RIG, class_map={"car": "vehicle"})
        assert {la.class_name for la in read_labels_2d(bag, renaming)["front"][T0]} <= {
            "vehicle",
            "pedestrian",
        }
    for camera, images in labels.items():
        for stamp, found in images.items():
            for one, other in zip(found, again[camera][stamp], strict=True):
                assert one.class_name == other.class_name and one.instance_id == other.instance_id
                assert np.allclose(one.box, other.box, atol=1e-9)
    assert [m for m in after if not m[0].endswith("annotations_2d")] == before
    # other labels replace these
    one = {"front": {T0: [Annotation2D("truck", 1.0, (1.0, 2.0, 30.0, 40.0))]}}
    attach_labels_2d(tmp_path / "a.mcap", tmp_path / "b.mcap", RIG, one)
    with BagReader(tmp_path / "b.mcap") as bag:
        assert read_labels_2d(bag, RIG) == {"front": one["front"], "front_left": {}}


def test_labels_of_another_recording_are_refused(drive: Path, tmp_path: Path) -> None:
    with pytest.raises(BagError, match="another recording"):
        attach_labels_2d(drive, tmp_path / "x.mcap", RIG, {"front": {123: []}})
    assert not list(tmp_path.iterdir())
    with pytest.raises(BagError, match="recording itself"):
        attach_labels_2d(drive, drive, RIG, {}, overwrite=True)
    bare = write_drive(tmp_path / "bare.mcap", labelled=False)
    with BagReader(bare) as bag, pytest.raises(BagError, match="no 3D labels"):
        labels_from_3d(bag, RIG)


def coco(**changes: object) -> dict:
    stamps = image_stamps()
    content: dict = {
        "images": [
            {"id": 1, "file_name": f"front/front_{stamps['front'][0]}.jpg", "width": WIDTH, "height": HEIGHT},
            {"id": 2, "file_name": f"upload/7/1a2b-front_left_{stamps['front_left'][1]}.jpg", "width": 2 * WIDTH, "height": 2 * HEIGHT},
            {"id": 3, "file_name": f"front_{stamps['front'][2]}.jpg", "width": WIDTH, "height": HEIGHT},
            {"id": 4, "file_name": "holiday.jpg", "width": 10, "height": 10},
        ],
        "categories": [{"id": 1, "name": "Car"}, {"id": 2, "name": "person"}, {"id": 3, "name": "cow"}],
        "annotations": [
            {"image_id": 1, "category_id": 1, "bbox": [10, 20, 30, 40], "attributes": {"track_id": 7}},
            {"image_id": 2, "category_id": 2, "bbox": [100, 60, 20, 40], "score": 0.75},
            {"image_id": 2, "category_id": 1, "bbox": [0, 0, 100, 100], "iscrowd": 1},
            {"image_id": 1, "category_id": 3, "bbox": [1, 1, 9, 9]},
            {"image_id": 1, "category_id": 1, "bbox": [1, 1, 0.2, 9]},
            {"image_id": 4, "category_id": 1, "bbox": [1, 1, 9, 9]},
        ],
    }  # fmt: skip
    return {**content, **changes}


def test_coco_labels_find_their_images(tmp_path: Path) -> None:
    (tmp_path / "labels.json").write_text(json.dumps(coco()))
    labels, report = labels_from_coco(
        tmp_path / "labels.json",
        RIG.camera_names,
        ("car", "pedestrian"),
        {"person": "pedestrian"},
        CALIBRATIONS,
    )
    stamps = image_stamps()
    assert labels == {
        "front": {
            stamps["front"][0]: [Annotation2D("car", 1.0, (10.0, 20.0, 40.0, 60.0), "7")],
            stamps["front"][2]: [],  # labelled, and nothing there
        },
        "front_left": {
            stamps["front_left"][1]: [  # labelled at twice the size
                Annotation2D("pedestrian", 0.75, (50.0, 30.0, 60.0, 50.0)),
                Annotation2D("ignore", 1.0, (0.0, 0.0, 50.0, 50.0)),
            ]
        },
    }
    assert (report.images, report.boxes) == (3, 3)
    assert sum(report.passed_over.values()) == 4 and "cow" in str(report)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "not valid JSON"),
        (json.dumps([1]), "not COCO JSON"),
        (json.dumps(coco(annotations=[{"image_id": 1}])), "'annotations' must be a list"),
        (json.dumps(coco(annotations=[{"image_id": 1, "category_id": 1, "bbox": [1, 2]}])), "bbox must be"),
        (json.dumps(coco(images=[{"id": 1, "file_name": "a.jpg"}])), "export-images"),
    ],
)
def test_what_is_wrong_with_coco_is_said(content: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "labels.json").write_text(content)
    with pytest.raises(ConfigError, match=words):
        labels_from_coco(tmp_path / "labels.json", RIG.camera_names, ())
    with pytest.raises(ConfigError, match="can't be read"):
        labels_from_coco(tmp_path / "absent.json", RIG.camera_names, ())


def test_classes_are_known_however_they_are_written(tmp_path: Path) -> None:
    content = coco()
    content["categories"] = [{"id": 1, "name": "regular vehicle"}, {"id": 2, "name": "Pedestrian"}, {"id": 3, "name": "dog"}]
    content["annotations"] = [{**a, "category_id": 1 + i % 3, "iscrowd": 0} for i, a in enumerate(content["annotations"])]
    (tmp_path / "labels.json").write_text(json.dumps(content))
    labels, _ = labels_from_coco(tmp_path / "labels.json", RIG.camera_names, ("REGULAR_VEHICLE", "pedestrian"))
    found = {box.class_name for images in labels.values() for boxes in images.values() for box in boxes}
    assert found <= {"REGULAR_VEHICLE", "pedestrian"} and "REGULAR_VEHICLE" in found
    with pytest.raises(ConfigError, match=r"none of the \d+ boxes of .* its images would count as empty"):
        labels_from_coco(tmp_path / "labels.json", RIG.camera_names, ("tram",))


def test_image_names() -> None:
    cameras = ("left_camera", "front_left_camera")
    assert parse_image_name("a/front_left_camera_12.jpg", cameras) == ("front_left_camera", 12)
    assert parse_image_name("0f-left_camera_12.png", cameras) == ("left_camera", 12)
    assert parse_image_name("rear_left_camera_12.png", cameras) is None
    assert parse_image_name("left_camera_x.png", cameras) is None


def test_exported_images_are_the_recorded_bytes(drive: Path, tmp_path: Path) -> None:
    with BagReader(drive) as bag:
        assert export_images(bag, RIG, tmp_path, every_s=0.2) == 4
        first = next(m.message for m in bag.messages([RIG.camera("front").image_topic]))
        files = sorted(tmp_path.rglob("*.jpg"))
        assert len(files) == 4 and (tmp_path / "front" / f"front_{T0}.jpg").read_bytes() == bytes(first.data)
        assert export_images(bag, RIG, tmp_path) == 6  # goes on where it was


def test_labels_in_the_network_s_image() -> None:
    """320x180 to 64x160: half the size, and the upper 26 rows cut off."""
    labels = [
        Annotation2D("car", 1.0, (20.0, 80.0, 60.0, 120.0)),
        Annotation2D("cow", 1.0, (20.0, 80.0, 60.0, 120.0)),
        Annotation2D("ignore", 1.0, (100.0, 100.0, 120.0, 120.0)),
        Annotation2D("pedestrian", 0.3, (200.0, 100.0, 210.0, 130.0)),  # doubtful
        Annotation2D("pedestrian", 0.9, (250.0, 20.0, 260.0, 56.0)),  # nearly cut off
        Annotation2D("pedestrian", 0.9, (250.0, 10.0, 260.0, 40.0)),  # cut off
    ]
    found = network_labels(labels, ("pedestrian", "car"), CALIBRATIONS["front"], (64, 160), min_score=0.5)
    assert found.rectangles.tolist() == [[10.0, 14.0, 30.0, 34.0]]
    assert found.labels.tolist() == [1] and found.source.tolist() == [0]
    assert found.ignored.tolist() == [[50, 24, 60, 34], [100, 24, 105, 39], [125, 0, 130, 2]]
    nothing = network_labels([], ("car",), CALIBRATIONS["front_left"], (64, 160))
    assert nothing.rectangles.shape == (0, 4) and nothing.ignored.shape == (0, 4)


def test_a_bent_lens_is_straightened() -> None:
    """A rectangle around the distorted images of a square's points holds, after undistortion, the square as a pinhole camera sees it."""
    calibration = CALIBRATIONS["front_left"]
    grid = np.stack(np.meshgrid(np.linspace(-0.5, -0.3, 20), np.linspace(0.0, 0.2, 20)), -1).reshape(-1, 2)
    rays = np.concatenate([grid, np.ones((400, 1))], 1)
    bent = (
        cv2.projectPoints(rays[:, None], np.zeros(3), np.zeros(3), INTRINSICS, calibration.distortion)[0][
            :, 0
        ]
        + 0.5
    )
    box = torch.tensor([[*bent.min(0), *bent.max(0)]])
    straight = rectangles_to_network(box, calibration, (HEIGHT, WIDTH))[0].numpy()
    wanted = np.concatenate([grid.min(0), grid.max(0)]) * 250.0 + [160.0, 90.0, 160.0, 90.0]
    assert (straight[:2] <= wanted[:2] + 0.05).all() and (straight[2:] >= wanted[2:] - 0.05).all()
    assert np.abs(straight - wanted).max() < 8.0 and np.abs(straight - box[0].numpy()).max() > 2.0


def test_command_from_3d_and_from_coco(
    drive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rig = tmp_path / "rig.yaml"
    cameras = [
        {"name": c.name, "image_topic": c.image_topic, "camera_info_topic": c.camera_info_topic}
        for c in RIG.cameras
    ]
    # a rig that renames one class and names none of its own leaves the others as they are
    rig.write_text(json.dumps({"world_frame": "map", "cameras": cameras, "class_map": {"van": "car"}}))
    common = ["label-2d", str(drive), "--rig", str(rig), "--quiet"]
    assert main([*common, "--from-3d", "--out", str(tmp_path / "a.mcap")]) == 0
    assert "6 labelled images with" in capsys.readouterr().out
    (tmp_path / "labels.json").write_text(json.dumps(coco()))
    arguments = [
        "--coco",
        str(tmp_path / "labels.json"),
        "--classes",
        "person=pedestrian",
        "--out",
        str(tmp_path / "b.mcap"),
    ]
    assert main([*common, *arguments]) == 0
    told = capsys.readouterr().out
    assert "3 labelled images" in told and "1 pedestrian" in told and "passed over" in told
    assert main([*common, "--export-images", str(tmp_path / "images"), "--every", "0.2"]) == 0
    assert "4 images" in capsys.readouterr().out
    assert main([*common, "--from-3d"]) == 1
    assert "--out" in capsys.readouterr().err
