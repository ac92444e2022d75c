"""Recordings become drives, drives become samples, and what they say agrees with the recorded world."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from small_world import CLASSES, SIZE, START_NS, annotations_at, objects

from dualview.errors import BagError, ConfigError
from dualview.geometry.rigid import invert_rigid
from dualview.scene.frame import Annotations
from dualview.scene.keyframes import Keyframes, interpolate_annotations
from dualview.scene.rig import load_rig
from dualview.training.anchors import kmeans_anchors, load_anchors, save_anchors, training_boxes
from dualview.training.bag_index import IndexSettings, find_recordings, index_recordings
from dualview.training.clips import FrameRequest
from dualview.training.drive_store import Drive, DriveSummary
from dualview.training.lidar_depth import depth_maps
from dualview.training.recipe_settings import AugmentationSettings, DataSettings
from dualview.training.samples import FrameDataset, collate

SETTINGS = IndexSettings(SIZE, CLASSES)
PLAIN = AugmentationSettings(image=None, bev=None, photometric=None, grid_mask=None, camera_dropout=0.0)


@pytest.fixture(scope="module")
def summaries(drives: Path, small_rig: Path, cache: Path) -> list[DriveSummary]:
    return index_recordings(find_recordings([str(drives)]), load_rig(str(small_rig)), SETTINGS, cache)


def requests(count: int, drive: int = 0) -> list[FrameRequest]:
    return [FrameRequest(drive, 4 + i, (0, 1, 2), i) for i in range(count)]


def test_a_drive_is_built_once(summaries, drives, small_rig, cache) -> None:
    before = {s.folder: (s.folder / "drive.json").stat().st_mtime_ns for s in summaries}
    again = index_recordings(find_recordings([str(drives)]), load_rig(str(small_rig)), SETTINGS, cache)
    assert {s.folder: (s.folder / "drive.json").stat().st_mtime_ns for s in again} == before
    other = index_recordings(find_recordings([f"{drives}/drive0.mcap"]), load_rig(str(small_rig)),
                             replace(SETTINGS, max_rate=5.0), cache)  # fmt: skip
    assert other[0].folder not in before and len(other[0]) == 12


def test_frames_between_keyframes_get_boxes_in_between(summaries) -> None:
    drive = Drive(summaries[0].folder)
    assert len(drive) == 24 and summaries[0].labelled.tolist() == [True] * 23 + [False]
    things = objects(np.random.default_rng(0))
    for index in (4, 5):  # a keyframe, and one that is none
        labelled = drive.frame(index)
        center = things["place"] + things["velocity"] * index / 10
        world = annotations_at(things, center, START_NS).boxes
        expected = world.transformed(invert_rigid(labelled.frame.world_from_ego_anchor))
        assert torch.allclose(labelled.boxes.center.double(), expected.center, atol=1e-3)
        assert torch.allclose((labelled.boxes.yaw - expected.yaw).cos(), torch.ones(6), atol=1e-5)
        assert torch.allclose(labelled.boxes.velocity, expected.velocity, atol=1e-3)


def test_a_missing_camera_has_its_own_calibration(summaries, tmp_path) -> None:
    folder = shutil.copytree(summaries[0].folder, tmp_path / "drive")
    with np.load(folder / "drive.npz") as stored:
        arrays = {name: stored[name] for name in stored.files}
    wanted = arrays["intrinsics"][3].copy(), arrays["ego_from_camera"][3].copy()
    arrays["camera_mask"][3, 1] = False  # as the frame assembler leaves it
    arrays["intrinsics"][3, 1], arrays["ego_from_camera"][3, 1] = np.eye(3), np.eye(4)
    np.savez(folder / "drive.npz", **arrays)
    frame = Drive(folder).frame(3).frame
    assert frame.camera_mask.tolist()[1] is False
    assert np.allclose(frame.intrinsics, wanted[0]) and np.allclose(frame.ego_from_camera, wanted[1])


def test_lidar_depth_lies_on_the_boxes(summaries) -> None:
    labelled = Drive(summaries[0].folder).frame(6)
    points = labelled.depth_points
    assert len(points) > 20
    frame = labelled.frame
    for camera, u, v, depth in points[::7].double():
        ray = (
            torch.linalg.inv(frame.intrinsics[int(camera)].double())
            @ torch.tensor([u, v, 1.0], dtype=torch.float64)
            * depth
        )
        ego = torch.linalg.inv(frame.camera_from_ego_anchor()[int(camera)]) @ torch.cat([ray, torch.ones(1)])
        grown = replace(labelled.boxes, size=labelled.boxes.size + 0.1)
        assert grown.contains(ego[None, :3].float()).any()


def test_samples_of_one_clip_share_their_augmentation_and_repeat_exactly(summaries) -> None:
    dataset = FrameDataset(summaries, AugmentationSettings(), DataSettings())
    first, second = (dataset[r] for r in requests(2))
    assert torch.equal(first.inputs.bev_augmentation, second.inputs.bev_augmentation)
    assert torch.equal(first.inputs.image_augmentation, second.inputs.image_augmentation)
    again = dataset[requests(1)[0]]
    assert torch.equal(first.inputs.images, again.inputs.images) and torch.equal(
        first.truth.boxes, again.truth.boxes
    )
    other = dataset[FrameRequest(0, 4, (0, 1, 3), 0)]
    assert not torch.equal(first.inputs.bev_augmentation, other.inputs.bev_augmentation)


def test_an_augmented_sample_shows_the_same_pixels_and_depths_as_the_plain_one(summaries) -> None:
    """The box centres of plain and augmented sample project to pixels that the image augmentation takes into
    one another.
    """
    request = requests(1)[0]
    plain = FrameDataset(summaries, PLAIN, DataSettings())[request]
    loud = AugmentationSettings(photometric=None, grid_mask=None, camera_dropout=0.0)
    augmented = FrameDataset(summaries, loud, DataSettings())[request]

    def projected(sample):
        order = sample.truth.track_ids.argsort()
        points = torch.cat(
            [sample.truth.boxes[order, :3].double(), torch.ones(len(order), 1, dtype=torch.float64)], 1
        )
        seen = torch.einsum("vij,pj->vpi", sample.inputs.image_from_working[0], points)
        return seen[..., :2] / seen[..., 2:3], seen[..., 2]

    before, depth = projected(plain)
    after, after_depth = projected(augmented)
    matrix = augmented.inputs.image_augmentation[0, 0].double()
    moved = before @ matrix[:2, :2].T + matrix[:2, 2]
    assert torch.allclose(moved[depth > 1], after[depth > 1], atol=0.05)
    assert torch.allclose(depth, after_depth, atol=1e-3)
    assert len(plain.truth.labels) == 5  # one of six has no LiDAR point


def test_together_images_are_mirrored_exactly_when_the_map_is(summaries) -> None:
    """The side of a box that a camera sees lies on the side of the image on which the mirrored world has it: rays turn to the
    left in the working frame as they do in the image, whatever was drawn."""

    def handedness(sample) -> float:
        """The sign of (image right, image down, away) as directions of the working frame."""
        directions = torch.linalg.inv(sample.inputs.image_from_working[0, 0])[:3, :3]
        return float(torch.linalg.det(directions).sign())

    plain = handedness(FrameDataset(summaries, PLAIN, DataSettings())[requests(1)[0]])
    found: dict[str, set[tuple[bool, bool]]] = {}
    for mirror in ("apart", "together"):
        loud = AugmentationSettings(photometric=None, grid_mask=None, camera_dropout=0.0, mirror=mirror)
        dataset = FrameDataset(summaries, loud, DataSettings())
        samples = [dataset[FrameRequest(0, 4, (0, 1, clip), 0)] for clip in range(24)]
        mirrored = [float(torch.linalg.det(s.inputs.image_augmentation[0, 0])) < 0 for s in samples]
        found[mirror] = set(zip(mirrored, [handedness(s) == plain for s in samples], strict=True))
    assert found["together"] == {(False, True), (True, True)}
    assert len(found["apart"]) == 4


def test_a_batch_says_where_clips_begin(summaries) -> None:
    dataset = FrameDataset(summaries, PLAIN, DataSettings())
    batch = collate([dataset[requests(2)[1]], dataset[FrameRequest(1, 3, (0, 0, 1), 0)]])
    assert batch.first.tolist() == [False, True] and batch.inputs.images.shape == (2, 2, 3, *SIZE)
    assert batch.inputs.images.dtype == torch.uint8 and "drive1.mcap frame 3" in batch.sources[1]


def test_depth_maps_keep_the_nearest_return() -> None:
    points = torch.tensor([[0, 3.2, 5.9, 20.0], [0, 3.9, 5.1, 8.0], [1, 0.0, 0.0, 4.0], [0, 99.0, 5.0, 1.0]])
    maps = depth_maps(points, torch.eye(3, dtype=torch.float64), 2, (8, 8))
    assert float(maps[0, 5, 3]) == 8.0 and float(maps[1, 0, 0]) == 4.0 and int((maps > 0).sum()) == 2


def test_interpolation_takes_the_shorter_turn_and_guesses_nothing() -> None:
    things = objects(np.random.default_rng(1))
    before = annotations_at(things, things["place"], 0)
    later = {**things, "yaw": things["yaw"] + 0.4}
    after = annotations_at(later, things["place"] + 1.0, 500_000_000)
    after = replace(after, instance_ids=("new", *after.instance_ids[1:]))
    middle = interpolate_annotations(before, after, 100_000_000)
    assert middle.instance_ids == before.instance_ids[1:]
    assert torch.allclose(middle.boxes.center, before.boxes.center[1:] + 0.2)
    turned = middle.boxes.yaw - before.boxes.yaw[1:]
    assert torch.allclose(turned.cos(), torch.full((5,), 0.08).cos(), atol=1e-5)
    keyframes = Keyframes([before, after], max_gap=0.4)
    assert keyframes.at(250_000_000) is None and keyframes.at(1_000_000) is not None


@pytest.mark.parametrize("name", ["object that leaves", "object that comes"])
def test_an_object_of_one_keyframe_alone_is_there_beside_it_and_nowhere_else(name: str) -> None:
    """As on nuScenes, whose cameras lead or follow the keyframes by some tens of milliseconds."""
    things = objects(np.random.default_rng(1))
    before = annotations_at(things, things["place"], 0)
    after = annotations_at(things, things["place"] + 1.0, 500_000_000)
    leaves = name == "object that leaves"
    if leaves:
        before = replace(before, instance_ids=(name, *before.instance_ids[1:]))
        after = without_first(after)
    else:
        after = replace(after, instance_ids=(name, *after.instance_ids[1:]))
        before = without_first(before)
    keyframes = Keyframes([before, after])
    near, far = (40_000_000, 60_000_000) if leaves else (460_000_000, 440_000_000)
    beside = keyframes.at(near)
    assert beside is not None and sorted(beside.instance_ids) == sorted((before if leaves else after).instance_ids)
    alone, keyframe = beside.instance_ids.index(name), before if leaves else after
    elapsed = 0.04 if leaves else -0.04
    wanted = keyframe.boxes.center[0] + keyframe.boxes.velocity[0].nan_to_num(0.0) * elapsed
    assert torch.allclose(beside.boxes.center[alone], wanted)
    assert len(beside.num_lidar_points) == len(beside.visibility) == len(beside.boxes)
    away = keyframes.at(far)
    assert away is not None and name not in away.instance_ids and len(away.boxes) == len(beside.boxes) - 1


def without_first(annotations: Annotations) -> Annotations:
    return annotations[torch.arange(1, len(annotations.boxes))]


def test_anchors_lie_where_boxes_are(summaries, tmp_path) -> None:
    boxes = training_boxes(summaries, DataSettings())
    anchors = kmeans_anchors(boxes, 24)
    distance = torch.cdist(torch.from_numpy(boxes[:, :3]), anchors[:, :3]).amin(1)
    assert float(distance.mean()) < 2.0
    assert torch.allclose(anchors[:, 3:6].exp(), torch.from_numpy(boxes[:, 3:6].mean(0)), atol=1e-4)
    assert torch.equal(anchors, kmeans_anchors(boxes, 24))
    save_anchors(anchors, tmp_path / "a.npy")
    assert torch.equal(load_anchors(tmp_path / "a.npy", 24), anchors)
    with pytest.raises(ConfigError, match="dualview anchors --count 30"):
        load_anchors(tmp_path / "a.npy", 30)
    few = kmeans_anchors(boxes[:5], 12)
    assert few.shape == (12, 11) and few.isfinite().all()


def test_the_command_makes_the_anchors_that_a_recipe_means(small_recipe, summaries, tmp_path, capsys) -> None:
    from dualview.cli import main
    from dualview.training.recipe import recipe_from_dict
    from dualview.training.trainer import initial_detector

    recipe, file, out = recipe_from_dict(small_recipe), tmp_path / "recipe.yaml", tmp_path / "anchors.npy"
    assert recipe.augmentation.bev is not None and recipe.augmentation.bev.flip_x, "anchors count mirrored boxes too"
    file.write_text(yaml.safe_dump(small_recipe))
    assert main(["anchors", str(file), "--out", str(out)]) == 0
    detector = initial_detector(recipe, recipe.detector_config(), summaries, lambda line: None)
    count = len(detector.decoder.initial_anchors)
    assert torch.equal(load_anchors(out, count), detector.decoder.initial_anchors.detach())
    file.write_text(yaml.safe_dump({"model": "bevdet-tiny", "data": small_recipe["data"]}))
    assert main(["anchors", str(file), "--out", str(out)]) == 1
    assert "bevdet-tiny has no decoder" in capsys.readouterr().err


def test_a_damaged_drive_and_a_wrong_pattern_are_named(summaries, tmp_path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(summaries[0].folder, broken)
    (broken / "images.u8").write_bytes(b"short")
    with pytest.raises(BagError, match="delete that folder"):
        Drive(broken)
    with pytest.raises(ConfigError, match="finds no recording"):
        find_recordings([str(tmp_path / "*.mcap")])
