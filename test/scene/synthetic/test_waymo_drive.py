"""A drive of the five-camera vehicle: nothing looks back, and its rig makes three classes of the world's ten."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from dualview.errors import DualViewError
from dualview.scene.bag_reader import BagReader
from dualview.scene.class_maps import WAYMO_CLASSES
from dualview.scene.labels_2d.labels import read_labels_2d
from dualview.scene.rig import load_rig
from dualview.scene.synthetic.domains import find_domain
from dualview.scene.synthetic.drive import Drive
from dualview.scene.synthetic.options import DriveOptions
from dualview.scene.synthetic.sensors import calibrated_cameras

OPTIONS = DriveOptions(
    seed=5, seconds=0.2, rig="waymo", quality="draft", image_size=(180, 320), lidar_rate=10.0
)


@pytest.fixture(scope="module")
def bag(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    import os

    path = tmp_path_factory.mktemp("waymo") / "drive.mcap"
    try:
        with Drive(OPTIONS) as drive:
            drive.write(path)
    except DualViewError as error:
        if os.environ.get("DUALVIEW_REQUIRE_GL"):
            raise
        pytest.skip(f"synthetic drives can't be drawn here: {error}")
    yield path


def test_five_cameras_see_all_but_what_is_behind() -> None:
    cameras = calibrated_cameras(OPTIONS, find_domain("default"))
    assert [c.layout.name for c in cameras] == list(load_rig("waymo").camera_names) and len(cameras) == 5
    bearing = np.radians(np.arange(-180, 180))
    seen = np.zeros(len(bearing), bool)
    for camera in cameras:
        points = np.stack(
            [60 * np.cos(bearing), 60 * np.sin(bearing), np.ones_like(bearing), np.ones_like(bearing)]
        )
        x, _, z, _ = np.linalg.inv(camera.ego_from_camera) @ points
        u = camera.intrinsics[0, 0] * x / np.maximum(z, 0.1) + camera.intrinsics[0, 2]
        seen |= (z > 0) & (u >= 0) & (u < camera.width)
    degrees = np.degrees(np.abs(bearing))
    assert seen[degrees < 112].all() and not seen[degrees > 120].any()


def test_three_classes_of_ten(bag: Path) -> None:
    rig = load_rig("waymo")
    with BagReader(bag) as reader:
        assert reader.check_rig(rig) == ()
        raw = {o.class_name for m in reader.messages(["/annotations"]) for o in m.message.objects}
        frames = reader.annotations(rig)
        labels = read_labels_2d(reader, rig)
    assert frames and frames[0].class_names == WAYMO_CLASSES
    assert {"car", "pedestrian"} <= raw, "the recording keeps the world's classes"
    used = {frames[0].class_names[i] for f in frames for i in f.boxes.label.tolist()}
    assert {"vehicle", "pedestrian"} <= used
    names = {label.class_name for images in labels.values() for found in images.values() for label in found}
    assert "vehicle" in names and not names & {"car", "truck", "bicycle"}
    assert all(len(images) == 2 for images in labels.values())
