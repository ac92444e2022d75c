"""Depth maps on disk, and how relative depth becomes metres."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
import torch

from dualview.errors import BagError, ConfigError, ImageError
from dualview.geometry.boxes import Boxes3D
from dualview.scene.bag_reader import BagReader
from dualview.scene.bag_writer import BagWriter
from dualview.scene.calibration import CameraCalibration
from dualview.scene.depth_labels.depth_map import DepthMap, read_depth, write_depth
from dualview.scene.depth_labels.job import DepthRequest, label_depth
from dualview.scene.depth_labels.metric import InverseFit, fit_images, fit_inverse
from dualview.scene.depth_labels.metric_pairs import BoxesAt, box_pairs, ground_pairs, lidar_pairs
from dualview.scene.depth_labels.store import DepthSource, DepthStore, depth_folder
from dualview.scene.labels_2d.recorded_images import ImageStamp
from dualview.scene.rig import rig_from_dict

SIZE = (180, 320)
CALIBRATION = CameraCalibration(320, 180, np.array([[250.0, 0, 159.5], [0, 250.0, 89.5], [0, 0, 1]]))
EGO_FROM_CAMERA = np.array([[0, 0, 1.0, 1.5], [-1, 0, 0, 0], [0, -1, 0, 1.6], [0, 0, 0, 1]])
SCALE, SHIFT = 700.0, 12.0  # q = SCALE / z + SHIFT


def road(width: int = 160) -> tuple[np.ndarray, np.ndarray]:
    """(q, z), each [h, w], of a flat road 1.6 m below the camera, sky at 300 m; at half the image's size."""
    v = (np.arange(90) + 0.5) * 2
    z = np.where(v > 91, 1.6 * 250.0 / np.maximum(v - 90.0, 0.1), 300.0)[:, None].repeat(width, 1)
    return SCALE / z + SHIFT, z


def assert_recovered(fit: InverseFit | None, tolerance: float = 0.02) -> None:
    """1 / z = (q - SHIFT) / SCALE was found."""
    assert fit is not None
    z = np.array([3.0, 10.0, 40.0])
    assert np.allclose(fit.metres(SCALE / z + SHIFT), z, rtol=tolerance)


@pytest.mark.parametrize("kind", ["inverse", "metric"])
def test_maps_come_back(kind: str, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    values = random.uniform(2.0, 80.0, (40, 60)).astype(np.float32)
    values[3, 4:9] = np.nan
    write_depth(DepthMap(values, kind), tmp_path / "a" / "1.png")
    found = read_depth(tmp_path / "a" / "1.png")
    assert found.kind == kind and np.array_equal(np.isnan(found.values), np.isnan(values))
    assert np.nanmax(np.abs(found.values - values)) < 0.006
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["1.png"], "no partial file is left"


def test_constant_and_unknown_maps(tmp_path: Path) -> None:
    for value in (5.0, np.nan):
        write_depth(DepthMap(np.full((8, 8), value, np.float32), "inverse"), tmp_path / "1.png")
        assert np.allclose(read_depth(tmp_path / "1.png").values, value, equal_nan=True)


def test_damaged_maps_are_named(tmp_path: Path) -> None:
    (tmp_path / "1.png").write_bytes(b"no picture")
    with pytest.raises(ImageError, match="run dualview label-depth again"):
        read_depth(tmp_path / "1.png")
    from PIL import Image

    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "2.png")
    with pytest.raises(ImageError, match="is no depth map"):
        read_depth(tmp_path / "2.png")


def test_median_of_the_central_half() -> None:
    """A box of 40 px whose inner 20 px are at 10 m; its border is at 50 m, and a map of half the size shows it."""
    values = np.full((90, 160), 50.0, np.float32)
    values[25:35, 45:55] = 10.0
    depth = DepthMap(values, "metric")
    boxes = np.array([[80.0, 40, 120, 80], [80, 40, 84, 44], [-30, 40, 10, 80]])
    found = depth.box_values(boxes, SIZE)
    assert found[0] == 10.0
    assert np.isnan(found[1]), "four pixels are too few"
    assert np.isnan(found[2]), "its middle is outside"
    assert depth.resized(80).values.shape == (45, 80) and depth.resized(400) is depth


def test_fit_with_a_third_of_outliers() -> None:
    random = np.random.default_rng(1)
    z = random.uniform(3, 60, 300)
    q = SCALE / z + SHIFT
    z[:100] = random.uniform(3, 60, 100)
    fit = fit_inverse(q, z * random.normal(1, 0.01, 300))
    assert_recovered(fit)
    assert 0.6 < fit.inliers < 0.8 and fit.error < 0.02


def test_points_that_cannot_tell() -> None:
    z = np.array([10.0, 20.0, 40.0, 30.0])
    assert_recovered(fit_inverse(SCALE / z + SHIFT, z))
    assert fit_inverse(SCALE / z[:3] + SHIFT, z[:3]) is None, "three are too few"
    near = np.array([10.0, 10.5, 11.0, 12.0])
    assert fit_inverse(SCALE / near + SHIFT, near) is None, "all equally far away"
    assert fit_inverse(-SCALE / z, z) is None, "larger is farther: this is no inverse depth"
    assert fit_inverse(np.full(9, 3.0), np.linspace(5, 50, 9)) is None
    noise = np.random.default_rng(2).uniform(0, 100, (2, 40))
    assert fit_inverse(noise[0], noise[1] + 2) is None
    assert fit_inverse(np.zeros(0), np.zeros(0)) is None


def test_neighbours_help_where_an_image_has_too_few() -> None:
    z = np.array([8.0, 15.0, 30.0, 55.0])
    many, few = (SCALE / z + SHIFT, z), (SCALE / z[:2] + SHIFT, z[:2])
    second = 1_000_000_000
    fits = fit_images({0: many, second // 2: few, second: many, 9 * second: few})
    assert set(fits) == {0, second // 2, second}
    assert fits[second // 2].window and not fits[0].window
    assert_recovered(fits[second // 2])


def test_what_the_fit_puts_far_away_is_unknown() -> None:
    fit = InverseFit(1 / SCALE, -SHIFT / SCALE, 9, 1.0, 0.0)
    metres = fit.metres(np.array([SHIFT + SCALE / 20, SHIFT, SHIFT - 5, np.nan, SHIFT + SCALE / 300]))
    assert metres[0] == pytest.approx(20.0) and np.isnan(metres[1:]).all()


def test_the_road_fixes_scale_and_shift() -> None:
    """Option C, with a wall across a third of the picture."""
    q, _ = road()
    q[:, :50] = SCALE / 5.0 + SHIFT
    assert_recovered(fit_inverse(*ground_pairs(DepthMap(q, "inverse"), EGO_FROM_CAMERA, CALIBRATION), 30))


def test_lidar_fixes_scale_and_shift() -> None:
    """Option A: points of the road in the world frame, of a vehicle that stands somewhere and is turned."""
    random = np.random.default_rng(3)
    points = np.stack([random.uniform(-50, 60, 4000), random.uniform(-20, 20, 4000), np.zeros(4000)], -1)
    world_from_ego = np.array([[0, -1.0, 0, 300], [1, 0, 0, -40], [0, 0, 1, 5], [0, 0, 0, 1]])
    world = points @ world_from_ego[:3, :3].T + world_from_ego[:3, 3]
    q, _ = road()
    pairs = lidar_pairs(DepthMap(q, "inverse"), world, world_from_ego @ EGO_FROM_CAMERA, CALIBRATION)
    assert 100 < len(pairs[0]) <= 2000 and pairs[1].min() > 1
    assert_recovered(fit_inverse(*pairs, 30), 0.03)
    nothing = lidar_pairs(DepthMap(q, "inverse"), np.zeros((0, 3)), EGO_FROM_CAMERA, CALIBRATION)
    assert len(nothing[0]) == 0


def test_boxes_fix_scale_and_shift() -> None:
    """Option B: the map shows the boxes' surfaces; the boxes were seen 50 ms before the image and move on. The last one is hidden."""
    z = torch.tensor([8.0, 14.0, 22.0, 40.0, 30.0])
    side = torch.tensor([-2.5, 3.0, -2.0, 0.0, -9.4])
    count = len(z)
    center = torch.stack([z + 1.5, side, torch.full((count,), 0.9)], 1).double()
    velocity = torch.tensor([4.0, 0.0, 0.0]).expand(count, 3)
    size = torch.tensor([1.9, 1.9, 1.6]).expand(count, 3)
    values = np.full((180, 320), SHIFT + SCALE / 100, np.float32)
    zeros = torch.zeros(count)
    for i in torch.argsort(z, descending=True).tolist():
        u, v = 160 - 250 * float(side[i]) / float(z[i]), 90 + 250 * 0.7 / float(z[i])
        half = 250 * 0.95 / float(z[i])
        box = np.clip(
            np.array([u - half, v - half, u + half, v + half]).round().astype(int), 0, [320, 180, 320, 180]
        )
        values[box[1] : box[3], box[0] : box[2]] = SHIFT + SCALE / (float(z[i]) - 0.95)
    shown = Boxes3D(
        center - 0.05 * velocity.double(), size, zeros, velocity, zeros.long(), zeros, zeros.long()
    )
    image = ImageStamp(1_050_000_000, "", 0)
    pairs = box_pairs(
        DepthMap(values, "inverse"), BoxesAt(1_000_000_000, shown), image, EGO_FROM_CAMERA, CALIBRATION
    )
    assert np.allclose(np.sort(pairs[1]), (z[:4] - 0.95).numpy(), atol=1e-3)
    assert_recovered(fit_inverse(*pairs))
    assert len(box_pairs(DepthMap(values, "inverse"), None, image, EGO_FROM_CAMERA, CALIBRATION)[0]) == 0


def test_store_goes_on_but_not_with_something_else(tmp_path: Path) -> None:
    folder = depth_folder(tmp_path / "drive.mcap", "Intel/dpt-hybrid-midas")
    assert folder == tmp_path / "drive.mcap.depth" / "dpt-hybrid-midas"
    source = DepthSource("dpt", "inverse", "relative inverse depth, by a network", 384)
    store = DepthStore.create(folder, source)
    q, z = road()
    store.write("front", 5, DepthMap(q.astype(np.float32), "inverse"))
    again = DepthStore.create(folder, source)
    assert again.has("front", 5) and not again.has("front", 6) and again.read("front", 6) is None
    with pytest.raises(ConfigError, match="another width"):
        DepthStore.create(folder, DepthSource("dpt", "inverse", source.description, 500))
    with pytest.raises(BagError, match="--metric ground"):
        again.metres("front", 5, "ground")
    fit = fit_inverse(q[50:].ravel()[::40], z[50:].ravel()[::40])
    again.write_fits("ground", {"front": {5: fit}})
    again.write_fits("ground", {"front": {8: fit}})  # of another recording of the same name
    (tmp_path / "drive.mcap").write_bytes(b"")
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "other.mcap").symlink_to(tmp_path / "drive.mcap")
    assert depth_folder(tmp_path / "links" / "other.mcap", "dpt-hybrid-midas") == folder
    assert DepthStore(folder).fits("ground")["front"].keys() == {5, 8}
    found = DepthStore(folder).metres("front", 5, "ground")
    assert found.kind == "metric" and np.allclose(found.values[60:], z[60:], rtol=0.03)
    depth = DepthStore(folder).box_depth("front", 5, np.array([[100.0, 140, 140, 170]]), SIZE, "ground")
    assert depth[0] == pytest.approx(1.6 * 250 / 65, rel=0.06)
    assert DepthStore(folder).metres("front", 7, "ground") is None
    assert np.isnan(DepthStore(folder).box_depth("front", 7, np.zeros((2, 4)), SIZE, "ground")).all()
    with pytest.raises(BagError, match="run dualview label-depth"):
        DepthStore(tmp_path / "nothing").about()


def test_an_image_that_cannot_be_decoded_gets_no_map_and_the_others_do(tmp_path: Path) -> None:
    rig = rig_from_dict({"cameras": [{"name": "front", "image_topic": "/front/image/compressed"}]}, "one", "one")
    jpeg = simplejpeg.encode_jpeg(np.zeros((48, 80, 3), np.uint8))
    with BagWriter(tmp_path / "a.mcap", rig) as bag:
        for stamp in range(6):
            bag.image("front", stamp + 10**18, jpeg[:30] if stamp == 3 else jpeg)

    def depth(requests: Sequence[DepthRequest]) -> list[DepthMap]:
        return [DepthMap(np.ones(request.pixels.shape[:2], np.float32), "inverse") for request in requests]

    store = DepthStore.create(tmp_path / "maps", DepthSource("x", "inverse", "by hand", 40))
    for made, kept in ((5, 0), (0, 5)):
        with BagReader(tmp_path / "a.mcap") as bag:
            count = label_depth(bag, rig, store, depth, 40, batch=4)
        assert (count.made, count.kept, len(count.broken)) == (made, kept, 1)
        assert count.broken[0].startswith("front at 1000000000000000003: the compressed image")
