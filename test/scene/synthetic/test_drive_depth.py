"""The rendered stand-in for a depth network: the world is found again from its recording, and depth becomes metres by LiDAR."""

from pathlib import Path

import numpy as np
import pytest

from dualview.cli import main
from dualview.errors import BagError
from dualview.scene.bag_reader import BagReader
from dualview.scene.depth_labels.store import DepthStore
from dualview.scene.labels_2d.from_3d import labels_from_3d
from dualview.scene.labels_2d.labels import read_labels_2d
from dualview.scene.labels_2d.recorded_images import camera_calibrations, image_stamps, world_from_camera
from dualview.scene.recorded import LidarSweeps, read_transforms
from dualview.scene.rig import load_rig
from dualview.scene.synthetic.drive import Drive
from dualview.scene.synthetic.drive_depth import DEGRADATION, RenderedDepth, degraded, drift, drive_options


@pytest.fixture(scope="module")
def bag(drive: Drive, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("depth") / "drive.mcap"
    drive.write(path)
    return path


def test_the_options_are_in_the_recording(bag: Path, drive: Drive) -> None:
    with BagReader(bag) as reader:
        found = drive_options(reader, load_rig("synthetic"))
    for key in ("seed", "seconds", "rig", "domain", "image_size", "camera_rate", "cameras"):
        wanted, got = getattr(drive.options, key), getattr(found, key)
        assert sorted(got) == sorted(wanted) if key == "cameras" else got == wanted, key


def test_rendered_depth_is_where_the_lidar_says(bag: Path) -> None:
    """LiDAR returns of the recording (15 mm of noise) against the depth drawn for each camera, at the camera's own exposure."""
    rig = load_rig("synthetic")
    with BagReader(bag) as reader, RenderedDepth(reader, rig) as rendered:
        transforms, calibrations = read_transforms(reader), camera_calibrations(reader, rig)
        for name in ("cam_back", "cam_front"):
            image = image_stamps(reader, rig)[name][1]
            depth = rendered.exact(name, image.stamp_ns)
            pose = world_from_camera(transforms, rig, rig.camera(name), image)
            (sweep,) = LidarSweeps(reader, rig, transforms).near(image.stamp_ns)
            points = (sweep.points[:, :3].astype(float) + sweep.origin - pose[:3, 3]) @ pose[:3, :3]
            points = points[(points[:, 2] > 3) & (points[:, 2] < 60)]
            k = calibrations[name].intrinsics
            pixel = np.floor(points[:, :2] / points[:, 2:] * [k[0, 0], k[1, 1]] + k[:2, 2] + 0.5).astype(int)
            inside = ((pixel >= 0) & (pixel < depth.shape[::-1])).all(1)
            drawn = depth[pixel[inside, 1], pixel[inside, 0]]
            assert inside.sum() > 500
            error = np.abs(drawn - points[inside, 2]) / points[inside, 2]
            assert np.median(error) < 0.01 and (error < 0.05).mean() > 0.85, name


def test_degradation_is_what_it_says() -> None:
    depth = np.full((270, 480), 20.0)
    depth[:, 240:] = 5.0
    one, again, other = degraded(depth, [1]), degraded(depth, [1]), degraded(depth, [2])
    assert (
        one.kind == "inverse"
        and np.array_equal(one.values, again.values)
        and not np.allclose(one.values, other.values)
    )
    far, near = one.values[:, 20:220], one.values[:, 260:460]
    assert near.mean() > far.mean(), "nearer is larger"
    edge = one.values[:, 236:244].mean(0)
    assert (np.diff(edge) > 0).all() and (edge[-1] - edge[0]) < 0.8 * (near.mean() - far.mean()), (
        "edges are soft"
    )
    assert "not a network's" in DEGRADATION


def test_scale_and_shift_drift_slowly_and_differ_by_camera() -> None:
    times = np.arange(0, 20 * 10**9, 10**8)
    drawn = np.array([drift(3, 1, int(t)) for t in times])
    assert np.abs(np.diff(drawn, axis=0)).max(0)[0] < 26.0, "a tenth of a second moves the scale by little"
    assert np.ptp(drawn[:, 0]) > 100.0 and drawn[:, 0].min() >= 500.0 and drawn[:, 0].max() <= 1500.0
    assert drift(3, 2, 0) != drift(3, 1, 0) != drift(4, 1, 0)


def test_command_makes_metres_by_lidar_and_goes_on(bag: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = [
        "label-depth",
        str(bag),
        "--rig",
        "synthetic",
        "--model",
        "rendered",
        "--width",
        "240",
        "--quiet",
    ]
    assert main([*common, "--metric", "lidar"]) == 0
    told = capsys.readouterr().out
    assert (
        "12 maps made, 0 there already" in told
        and "not a network's" in told
        and "metres by lidar: 12 images fitted" in told
    )
    store = DepthStore(bag.with_name("drive.mcap.depth") / "rendered")
    rig = load_rig("synthetic")
    with BagReader(bag) as reader, RenderedDepth(reader, rig) as rendered:
        stamp = image_stamps(reader, rig)["cam_front"][2].stamp_ns
        exact = rendered.exact("cam_front", stamp)[::2, ::2][:135, :240]
    metres = store.metres("cam_front", stamp, "lidar").values
    both = np.isfinite(metres) & (exact > 4) & (exact < 40)
    error = np.abs(metres - exact)[both] / exact[both]
    assert 0.01 < np.median(error) < 0.15, "worse than the truth, but metres"
    # one map is lost: it alone is made again, and comes out the same
    before = store.path("cam_front", stamp).read_bytes()
    store.path("cam_front", stamp).unlink()
    assert main(common) == 0
    told = capsys.readouterr().out
    assert "1 maps made, 11 there already" in told and "the depth is relative" in told
    assert store.path("cam_front", stamp).read_bytes() == before
    assert main([*common, "--metric", "boxes"]) == 1
    assert "--weights" in capsys.readouterr().err


def test_other_recordings_are_refused(tmp_path: Path, drive: Drive) -> None:
    from dualview.scene.bag_writer import BagWriter

    rig = load_rig("synthetic")
    with BagWriter(tmp_path / "other.mcap", rig) as bag:
        camera = drive.cameras[0]
        for stamp in (10**18, 10**18 + 10**8):
            bag.camera_info("cam_front", stamp, camera.calibration())
            bag.image("cam_front", stamp, b"\xff\xd8")
    with BagReader(tmp_path / "other.mcap") as reader, pytest.raises(BagError, match="use a depth network"):
        RenderedDepth(reader, rig)


def test_3d_labels_and_visible_pixels_agree_in_2d(bag: Path) -> None:
    """Rectangles from 3D boxes hold those of visible pixels, which the simulator wrote, and are little larger for what nothing hides."""
    rig = load_rig("synthetic")
    with BagReader(bag) as reader:
        simulated = read_labels_2d(reader, rig)
        projected, _ = labels_from_3d(reader, rig)
    ious = []
    for camera, images in simulated.items():
        for stamp, labels in images.items():
            boxes = {label.instance_id: np.array(label.box) for label in projected[camera].get(stamp, [])}
            for label in labels:
                a = np.array(label.box)
                if label.instance_id in boxes and (a[2:] - a[:2]).min() >= 8:
                    b = boxes[label.instance_id]
                    low, high = np.maximum(a[:2], b[:2]), np.minimum(a[2:], b[2:])
                    shared = np.prod(np.maximum(high - low, 0))
                    area = np.prod(a[2:] - a[:2])
                    assert shared > 0.7 * area, (camera, label)
                    ious.append(shared / (area + np.prod(b[2:] - b[:2]) - shared))
    assert len(ious) > 20 and np.median(ious) > 0.6
