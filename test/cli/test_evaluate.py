"""`dualview evaluate` from recordings to metrics.json and report, with classes of one's own, and what it says to wrong inputs."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from dualview.cli import main
from dualview.geometry.boxes import Boxes3D
from dualview.scene.bag_messages import annotations_message
from dualview.scene.bag_writer import BagWriter
from dualview.scene.frame import Annotations

sys.path.insert(0, str(Path(__file__).parents[1] / "ros"))
from ros_drive import Drive, rig_dict, write_rig

FRAMES = 8
CLASSES = ("car", "scooter", "ufo")
CENTERS = torch.tensor([[18.0, 2.0, 0.8], [12.0, -3.0, 0.6], [25.0, 5.0, 9.0]], dtype=torch.float64)


def objects(stamp: int, change: bool = False) -> Annotations:
    """A car, a scooter and a class that no protocol knows, standing still; as predictions 5 % too far away, the scooter under id 7."""
    boxes = Boxes3D(
        center=CENTERS * (1.05 if change else 1.0), size=torch.tensor([[4.5, 1.9, 1.6], [1.8, 0.6, 1.2], [3.0, 3.0, 1.0]]),
        yaw=torch.tensor([0.2, 1.0, 0.0]), velocity=torch.zeros(3, 3), label=torch.arange(3),
        score=torch.tensor([0.9, 0.8, 0.7]) if change else torch.ones(3), track_id=torch.tensor([4, 7, 9]),
    )  # fmt: skip
    return Annotations(
        stamp, boxes, CLASSES, ("the car", "the scooter", "the ufo"), torch.full((3,), 5), torch.ones(3)
    )


def renamed(labels: Annotations) -> Annotations:
    """The scooter under id 8."""
    ids = labels.boxes.track_id.clone()
    ids[1] = 8
    return Annotations(**{**vars(labels), "boxes": Boxes3D(**{**vars(labels.boxes), "track_id": ids})})


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> dict[str, str]:
    """Paths: a labelled recording, one without labels, a node's output whose scooter changes its id, the rig, a protocol."""
    folder = tmp_path_factory.mktemp("evaluate")
    rig = write_rig(folder / "rig.yaml", rig_dict(3, annotations_topic="/annotations"))
    drive = Drive(rig)
    drive.write(folder / "unlabelled.mcap", FRAMES)
    stamps = [drive.stamp(frame, 0) for frame in range(FRAMES)]
    with BagWriter(folder / "drive.mcap", rig) as bag:
        bag.static_transforms(stamps[0] - 60_000_000, drive.mountings())
        for frame, stamp in enumerate(stamps):
            for index, camera in enumerate(rig.cameras):
                bag.ego_pose(drive.stamp(frame, index), drive.pose(drive.stamp(frame, index)))
                bag.camera_info(camera.name, drive.stamp(frame, index), drive.calibration(index))
                bag.image(camera.name, drive.stamp(frame, index), drive.jpeg(frame, index))
            bag.annotations(objects(stamp))
    with BagWriter(folder / "out.mcap", rig) as bag:
        for frame, stamp in enumerate(stamps):
            tracks = objects(stamp, change=True)
            bag.message(
                "/node/tracks",
                annotations_message(renamed(tracks) if frame >= 5 else tracks, rig.world_frame),
                stamp,
            )
    (folder / "own.yaml").write_text(
        "class_ranges: {car: 50, scooter: 30}\nrange_bins: [[0, 15], [15, 50]]\ndistance_thresholds: [1, 2]\n"
    )
    return {p.stem: str(p) for p in folder.iterdir()}


def evaluate(world: dict[str, str], report: Path, *arguments: str) -> int:
    return main(["evaluate", *arguments, "--rig", world["rig"], "--report", str(report)])


def test_own_classes_and_ranges_from_recordings_to_report(world, tmp_path, capsys):
    status = evaluate(world, tmp_path, world["drive"], "--tracks", world["out"], "--protocol", world["own"])
    assert status == 0, capsys.readouterr().err
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert list(metrics["per_class"]) == ["car", "scooter"]
    assert metrics["per_class"]["scooter"]["ap_2m"] == pytest.approx(1.0)
    assert metrics["mAP"] == pytest.approx(1.0) and 0 < metrics["NDS"] < 1
    assert {"AMOTA", "AMOTP", "MOTA", "latency_ms"} <= metrics.keys()
    assert metrics["IDS"] == 1 and metrics["per_class"]["scooter"]["IDS"] == 1
    # absent from the file, so the classes' own
    assert metrics["protocol"]["tracking_ranges"] == {"car": 50, "scooter": 30}
    assert metrics["depth_error"]["matches"] == 2 * FRAMES
    # boxes stand 5 % farther from the world's origin, where the drive begins; the vehicle comes nearer to them
    assert 0.05 < metrics["depth_error"]["mean_rel"] < 0.08 and metrics["depth_error"]["bias_m"] > 0.5
    assert metrics["per_range"].keys() == {"0-15m", "15-50m"}
    (switch,) = metrics["worst_id_switches"]
    assert (switch["instance_id"], switch["before"], switch["after"], switch["held"]) == (
        "the scooter",
        7,
        8,
        5,
    )

    page = (tmp_path / "report.md").read_text()
    told = (
        "## Classes",
        "## Distance from the vehicle",
        "A bin holds",
        "### Depth error",
        "## Identity switches",
    )
    for section in (*told, "had id 7 for 5 keyframes and gets 8"):
        assert section in page, section
    pictures = re.findall(r"!\[.*?\]\((.+?)\)", page)
    assert "id_switch_1.png" in pictures and all((tmp_path / name).is_file() for name in pictures)
    strip = Image.open(tmp_path / "id_switch_1.png")
    assert strip.height > 2 * 200  # the camera's row is there, since the recording has images


def test_recordings_without_labels_are_named_and_the_others_scored(world, tmp_path, capsys):
    assert evaluate(
        world, tmp_path, world["drive"], world["unlabelled"], "--tracks", world["out"], "--tracks", world["out"],
        "--protocol", world["own"], "--pictures", "0",
    ) == 0  # fmt: skip
    told = capsys.readouterr().err
    assert "unlabelled.mcap has no labels on /annotations" in told
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["drives_without_labels"] == ["unlabelled"] and metrics["keyframes"] == FRAMES
    assert "not scored, without labels: unlabelled" in (tmp_path / "report.md").read_text()


@pytest.mark.parametrize(
    ("protocol", "told"),
    [
        ("class_ranges: {car: 50, scoter: 30}", "did you mean 'scooter'"),
        ("class_ranges: {car: 50}\ntracking_ranges: {tram: 30}", "tracking_ranges has the class 'tram'"),
        ("class_ranges: [car]", "class_ranges must map classes to distances"),
        ("class_ranges: {car: far}", "class_ranges.car must be a distance"),
        ("class_ranges: {car: -3}", "class_ranges.car must be a distance"),
        ("range_bins: [[20, 10]]", "near < far"),
        ("distance_thresholds: [0.5, 1]", "true_positive_threshold 2 must be one of"),
        ("max_boxes: none", "max_boxes must be a whole number"),
        ("undefined_errors: {car: [speed]}", "undefined_errors.car"),
        ("constant_errors: {speed_err: 1.0}", "constant_errors must map some of trans_err"),
        ("class_map: {car: 3}", "class_map must map names of classes"),
        ("class_range: {car: 50}", "unknown class_range"),
        ("", "must hold keys"),
        ("a: [", "not valid YAML"),
    ],
)
def test_wrong_protocols_are_refused_before_anything_is_written(world, tmp_path, capsys, protocol, told):
    (tmp_path / "wrong.yaml").write_text(protocol)
    arguments = (world["drive"], "--tracks", world["out"], "--protocol", str(tmp_path / "wrong.yaml"))
    assert evaluate(world, tmp_path / "report", *arguments) == 1
    error = capsys.readouterr().err
    assert told in error and "Traceback" not in error
    assert not (tmp_path / "report" / "metrics.json").exists()


def test_wrong_paths_are_named(world, tmp_path, capsys):
    def refused(*arguments: str, report: Path = tmp_path / "report") -> str:
        assert evaluate(world, report, *arguments) == 1
        return capsys.readouterr().err

    assert "there is no recording at" in refused(world["drive"], str(tmp_path / "none.mcap"))
    assert "neither a file nor a detector" in refused(world["drive"], "--weights", "nosuch")
    assert "none of the image topics" in refused(world["drive"], world["out"], "--weights", "dualview-tiny")
    assert "2 --tracks for 1 recordings" in refused(world["drive"], "--tracks", "a", "--tracks", "b")
    assert "no topic of type" in refused(world["drive"], "--tracks", world["unlabelled"])
    (tmp_path / "file").write_text("")
    assert "can't be made" in refused(world["drive"], "--tracks", world["out"], report=tmp_path / "file")
    assert not (tmp_path / "report" / "metrics.json").exists()
