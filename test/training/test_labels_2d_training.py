"""2D-labelled drives in training: what a sample brings, what is learned from it and what isn't, and the errors."""

import csv
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from ddp_run import Gradients
from safetensors.torch import load_file
from small_world import SIZE, write_drive
from test_bevformer_training import Cut, CutsAfter
from test_resume import environment

from dualview.cli import main
from dualview.errors import ConfigError
from dualview.geometry.box_projection import VisibilityRule, project_boxes, rectangle_iou
from dualview.scene.bag_reader import BagReader
from dualview.scene.depth_labels.depth_map import DepthMap
from dualview.scene.depth_labels.store import DepthSource, DepthStore, depth_folder
from dualview.scene.labels_2d.attach import attach_labels_2d
from dualview.scene.labels_2d.from_3d import labels_from_3d
from dualview.scene.rig import load_rig
from dualview.training.clips import ClipSampler, FrameRequest, slot_parts
from dualview.training.data_module import StreamingData
from dualview.training.drive_store import DriveCache
from dualview.training.labelled_drives import training_drives
from dualview.training.losses import LossPlan
from dualview.training.objective_2d import ImageBoxObjective, build_image_box_objective
from dualview.training.objectives import build_objectives, joined_needs
from dualview.training.optimizer import parameter_groups
from dualview.training.recipe import Recipe, load_recipe, parse_changes, recipe_from_dict
from dualview.training.samples import FrameDataset, collate
from dualview.training.trainer import initial_detector, train

SCRIPT = Path(__file__).with_name("ddp_run.py")
PLAIN = {"grid_mask": None, "photometric": None, "camera_dropout": 0.0, "image": {"rotate": 0.0}}


@pytest.fixture(scope="module")
def joint(small_recipe: dict, target_drive: Path) -> dict:
    """The small recipe, fine-tuned on a drive of which only 2D labels are used."""
    upright = {"image": {"rotate": 0.0}}
    return {**small_recipe, "augmentation": upright, "labels_2d": {"train": [str(target_drive)]}}


def quiet(line: str) -> None:
    pass


def drives_of(recipe: Recipe) -> list:
    return training_drives(recipe, recipe.detector_config(), quiet)


def dataset_of(recipe: Recipe, drives: list) -> FrameDataset:
    config = recipe.detector_config()
    needs = joined_needs(build_objectives(recipe, config, quiet), config)
    return FrameDataset(drives, recipe.augmentation, recipe.data, readers=needs.readers)


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "losses.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    return [{k: v for k, v in row.items() if k != "frames_per_second"} for row in table]


# ---- which slot walks what


def test_slots_are_shared_out_evenly_and_never_change_sides(small_recipe: dict, joint: dict) -> None:
    recipe = recipe_from_dict(joint)
    drives = drives_of(recipe)
    assert [d.only_2d for d in drives] == [False, False, False, True]
    assert [len(set(p.drives) & {3}) for p in slot_parts(drives, 8, 0.25)] == [0, 0, 0, 1] * 2
    batches = list(ClipSampler(drives, recipe.clips, 0, 4, 30, share=0.5))
    assert all([r.drive == 3 for r in batch] == [False, True, False, True] for batch in batches)
    assert {r.drive for batch in batches for r in batch} == {0, 1, 2, 3}
    # what a slot sees depends neither on processes nor on the other side's presence in the list
    second = list(ClipSampler(drives, recipe.clips, 0, 2, 30, rank=1, world=2))
    assert second == [batch[2:] for batch in batches]
    alone = list(ClipSampler(drives[3:], recipe.clips, 0, 2, 5))
    assert {r.drive for batch in alone for r in batch} == {0}
    with pytest.raises(ConfigError, match="leaves none to the 2D-labelled drives: raise batch_size"):
        slot_parts(drives, 3, 0.1)


def test_recipes_without_2d_labels_see_what_they_always_saw(small_recipe: dict) -> None:
    recipe = recipe_from_dict(small_recipe)
    drives = drives_of(recipe)
    assert all(p.drives == (0, 1, 2) and p.order == 3 and p.slots == 2 for p in slot_parts(drives, 2, 0.5))


# ---- what a sample brings


def test_rectangles_lie_on_the_boxes_through_all_augmentation(joint: dict, target_drive: Path) -> None:
    """2D labels of a frame against its 3D labels, projected by the network's own matrices."""
    settings = {**joint, "augmentation": PLAIN, "labels_2d": {"on_source": True}}
    settings["data"] = {**joint["data"], "train": [str(target_drive)]}
    recipe = recipe_from_dict(settings)
    dataset = dataset_of(recipe, drives_of(recipe))
    compared = 0
    for number in range(12):
        sample = dataset[FrameRequest(0, 2 * (number % 5), (0, 0, number), 0)]
        assert sample.boxed and len(sample.truth.labels)
        for camera, truth in enumerate(sample.extras["labels_2d"]):
            matrix = sample.inputs.image_from_working[0, camera].float()
            projected = project_boxes(sample.truth.boxes[:, :7], matrix, SIZE)
            visible = VisibilityRule().large_enough(projected, SIZE[1])
            for rectangle, label in zip(truth.rectangles, truth.labels, strict=True):
                overlap = rectangle_iou(rectangle, projected.rectangles[visible])
                best = int(overlap.argmax())
                assert overlap[best] > 0.9 and sample.truth.labels[visible][best] == label
                compared += 1
    assert compared > 20


def test_rectangles_of_what_is_too_far_away_are_ignored(joint: dict, target_drive: Path) -> None:
    """By the usual height of their class."""

    def truths(max_range: float, **labels_2d: object) -> list:
        data = {**joint["data"], "train": [str(target_drive)], "max_range": max_range}
        labels = {"on_source": True, **labels_2d}
        recipe = recipe_from_dict({**joint, "augmentation": PLAIN, "data": data, "labels_2d": labels})
        return dataset_of(recipe, drives_of(recipe))[FrameRequest(0, 0, (0, 0, 0), 0)].extras["labels_2d"]

    for whole, near, unjudged in zip(
        truths(500.0), truths(12.0), truths(12.0, class_heights={}), strict=True
    ):
        assert len(near.labels) + len(near.ignored) == len(whole.labels) + len(whole.ignored)
        assert torch.equal(unjudged.rectangles, whole.rectangles)
    assert sum(len(t.labels) for t in truths(12.0)) < sum(len(t.labels) for t in truths(500.0))
    with pytest.raises(ConfigError, match="class_heights must be positive"):
        truths(12.0, class_heights={"car": 0.0})


def test_dropped_cameras_and_unlabelled_recordings_say_nothing(joint: dict) -> None:
    recipe = recipe_from_dict({**joint, "augmentation": {**PLAIN, "camera_dropout": 1.0}})
    drives = drives_of(recipe)
    dataset = dataset_of(recipe, drives)
    sample = dataset[FrameRequest(3, 0, (0, 1, 0), 0)]
    mask = sample.inputs.camera_mask[0].tolist()
    assert sorted(mask) == [False, True]
    assert [truth is not None for truth in sample.extras["labels_2d"]] == mask
    assert dataset[FrameRequest(0, 0, (0, 0, 0), 0)].extras["labels_2d"] is None


def test_nothing_of_the_targets_3d_labels_is_used(joint: dict) -> None:
    """The recording has 3D labels and LiDAR, which stay out of samples, unless LiDAR is asked for."""
    recipe = recipe_from_dict({**joint, "augmentation": PLAIN})
    drives = drives_of(recipe)
    request = FrameRequest(3, 4, (0, 1, 0), 0)
    sample = dataset_of(recipe, drives)[request]
    assert not sample.boxed and sample.truth.boxes.shape == (0, 9) and not sample.depth.any()
    assert replace(drives[3], only_2d=False).labelled.any()
    assert len(FrameDataset([replace(drives[3], only_2d=False)], recipe.augmentation, recipe.data)[
        replace(request, drive=0)].truth.labels), "there is something to leave out"  # fmt: skip
    with_lidar = FrameDataset(drives, recipe.augmentation, recipe.data, lidar_of_2d=True)[request]
    assert with_lidar.depth.any() and not len(with_lidar.truth.labels)


def test_depth_comes_from_the_store_that_is_named(joint: dict, target_drive: Path, tmp_path: Path) -> None:
    store = DepthStore.create(
        depth_folder(target_drive, "made-up", tmp_path), DepthSource("made-up", "metric", "a wall", 96)
    )
    labels = {**joint["labels_2d"], "depth": "made-up", "depth_folder": str(tmp_path)}
    rig = load_rig(joint["data"]["rig"])
    with BagReader(target_drive) as bag:
        stamps = list(labels_from_3d(bag, rig)[0]["front"])
    for stamp in stamps:
        store.write("front", stamp, DepthMap(np.full((64, 96), 12.5, np.float32), "metric"))
    recipe = recipe_from_dict({**joint, "augmentation": PLAIN, "labels_2d": labels})
    dataset, drives = dataset_of(recipe, drives_of(recipe)), drives_of(recipe)
    front, back = [], []
    for frame in np.flatnonzero(drives[3].labelled)[:8]:
        truths = dataset[FrameRequest(3, int(frame), (0, 1, 7), 0)].extras["labels_2d"]
        front += truths[0].depth.tolist()
        back += truths[1].depth.tolist()
    assert front and np.nanmax(np.abs(np.array(front) - 12.5)) < 0.05 and np.isfinite(front).mean() > 0.5
    assert back and all(math.isnan(v) for v in back), "that camera has no maps"


@pytest.mark.parametrize("image", [None, {"rotate": 0.0, "resize": [1.2, 1.2]}])
def test_the_detectors_own_depth_may_learn_from_the_maps(joint: dict, tmp_path: Path, image: dict | None) -> None:
    """Maps that hold what the LiDAR saw bring what the LiDAR brings, through the image augmentation as well."""
    labels = {**joint["labels_2d"], "depth": "made-up", "depth_folder": str(tmp_path), "own_depth": "maps"}
    recipe = recipe_from_dict({**joint, "augmentation": {**PLAIN, "image": None}})
    drives, request = drives_of(recipe), FrameRequest(3, 4, (0, 1, 0), 0)
    lidar = FrameDataset(drives, recipe.augmentation, recipe.data, lidar_of_2d=True)
    store = DepthStore.create(
        depth_folder(drives[3].source, "made-up", tmp_path), DepthSource("made-up", "metric", "LiDAR", SIZE[1])
    )
    frame = DriveCache()(drives[3].folder).frame(request.frame).frame
    for camera, stamp, depth in zip(("front", "back"), frame.camera_stamps_ns, lidar[request].depth, strict=True):
        values = depth.numpy()
        store.write(camera, int(stamp), DepthMap(np.where(values > 0, values, np.nan).astype(np.float32), "metric"))
    recipe = recipe_from_dict({**joint, "augmentation": {**PLAIN, "image": image}, "labels_2d": labels})
    expected = FrameDataset(drives, recipe.augmentation, recipe.data, lidar_of_2d=True)[request].depth
    data = StreamingData(recipe, recipe.detector_config(), drives)
    data.trainer = None
    dataset = data.train_dataloader().dataset
    sample = dataset[request]
    assert not sample.boxed and (expected > 0).sum() > 8
    if image is None:
        torch.testing.assert_close(sample.depth, expected, atol=1 / 256, rtol=0.0)
        return
    steps = [(row, column) for row in (-1, 0, 1) for column in (-1, 0, 1)]  # pixels of the maps have no fractions
    nearby = torch.stack([sample.depth.roll(step, (1, 2)) for step in steps])
    error = ((nearby - expected).abs().amin(0) / expected)[expected > 0]
    assert error.median() < 1e-3 and (error < 0.1).float().mean() > 0.9  # of two returns in one pixel maps keep the nearer


# ---- what is learned


def prediction_of(recipe: Recipe, frames: list[tuple[int, int]]) -> tuple:
    """(plan, prediction, batch) of some (drive, frame)s."""
    drives = drives_of(recipe)
    config = recipe.detector_config()
    detector = initial_detector(recipe, config, drives, quiet).train()
    dataset = dataset_of(recipe, drives)
    batch = collate([dataset[FrameRequest(d, f, (0, slot, 0), 0)] for slot, (d, f) in enumerate(frames)])
    torch.manual_seed(0)
    inputs = replace(batch.inputs, images=batch.inputs.images.float() / 255)
    return LossPlan.of(config, recipe.losses), detector(inputs, detector.initial_memory()), batch


def test_3d_terms_look_at_boxed_samples_alone_and_2d_terms_at_the_others(joint: dict) -> None:
    recipe = recipe_from_dict(joint)
    plan, prediction, batch = prediction_of(recipe, [(0, 0), (3, 0), (1, 2), (3, 6)])
    assert batch.boxed == (True, False, True, False)
    layers = prediction.decoder.layers
    for layer in layers:
        layer.class_logits.retain_grad()
        layer.anchors.retain_grad()
    for task in prediction.center:
        task.heatmap.retain_grad()
    losses = plan.losses(prediction, batch.truths, batch.depth, None, batch.boxed)
    with_background = plan.losses(prediction, batch.truths, batch.depth)
    assert (
        losses.keys() == with_background.keys() and losses["layer2/class"] < with_background["layer2/class"]
    )
    torch.stack([v for k, v in losses.items() if k.startswith(("layer", "center"))]).sum().backward(
        retain_graph=True
    )
    gradient = prediction.center[0].heatmap.grad
    assert gradient[0].any() and gradient[2].any() and not gradient[1].any() and not gradient[3].any()
    for layer in layers:
        assert layer.class_logits.grad[[0, 2]].any() and not layer.class_logits.grad[[1, 3]].any()
        layer.class_logits.grad = layer.anchors.grad = None

    config = recipe.detector_config()
    objective = build_image_box_objective(recipe, config)
    terms = objective.losses(prediction, batch)
    assert set(terms) == {f"image{i}/{name}" for i in range(3) for name in ("class", "box", "giou")}
    torch.stack(list(terms.values())).sum().backward()
    assert layers[-1].class_logits.grad[[1, 3]].any() and not layers[-1].class_logits.grad[[0, 2]].any()
    doubled = replace(recipe.labels_2d, weight=2.0, giou_weight=0.0)
    twice = ImageBoxObjective(doubled, config.class_names, config.image_size, 55.0).losses(prediction, batch)
    assert twice["image2/giou"] == 0.0 and terms["image2/giou"] > 0.0
    # matching without GIoU may pair otherwise, but layers without a pair at all stay as they are
    resting = objective.losses(replace(prediction, decoder=None), batch)
    assert resting == {}


def test_a_process_without_boxes_counts_as_the_others_do(
    joint: dict, monkeypatch: pytest.MonkeyPatch, tmp_path
) -> None:
    """Terms are counted over processes: whatever its samples are, a process must ask as often, or the run would hang."""
    torch.distributed.init_process_group("gloo", f"file://{tmp_path}/meet", world_size=1, rank=0)
    try:
        asked: list[int] = []
        real = torch.distributed.all_reduce
        monkeypatch.setattr(torch.distributed, "all_reduce", lambda t, *a: (asked.append(1), real(t, *a))[1])
        plan, prediction, batch = prediction_of(recipe_from_dict(joint), [(0, 0), (3, 0)])
        counts = []
        for boxed in ((True, True), (True, False), (False, False)):
            asked.clear()
            losses = plan.losses(prediction, batch.truths, batch.depth, None, boxed)
            counts.append(len(asked))
        assert len(set(counts)) == 1 and counts[0] > 6
        assert all(value == 0 for name, value in losses.items() if not name.startswith("depth"))
    finally:
        torch.distributed.destroy_process_group()


def test_a_joint_run_that_is_cut_off_goes_on_exactly(
    joint: dict, small_recipe: dict, drives: Path, target_drive: Path, tmp_path: Path
) -> None:
    """And `dualview train RECIPE source=... target=...` is that run."""
    file = tmp_path / "recipe.yaml"
    upright = {"image": {"rotate": 0.0}}
    file.write_text(
        yaml.safe_dump({**small_recipe, "augmentation": upright, "data": {**small_recipe["data"], "train": []}})
    )
    changes = [f"source={drives}", f"target={target_drive}", "steps=7", "checkpoint_every=3", "batch_size=3"]
    assert main(["train", str(file), *changes, "--out", str(tmp_path / "whole"), "--quiet"]) == 0
    recipe = recipe_from_dict({**joint, "steps": 7, "checkpoint_every": 3, "batch_size": 3})
    with pytest.raises(Cut):
        train(recipe, tmp_path / "cut", tell=quiet, callbacks=(CutsAfter(5),), progress_bar=False)
    train(recipe, tmp_path / "cut", resume=True, tell=quiet, progress_bar=False)
    table = rows(tmp_path / "cut")
    assert table == rows(tmp_path / "whole") and len(table) == 7
    assert all(float(row["image2/class"]) > 0 and float(row["layer2/class"]) > 0 for row in table)
    first, second = (load_file(tmp_path / name / "weights.safetensors") for name in ("whole", "cut"))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_source_and_target_on_two_processes_have_the_gradients_of_one(joint: dict, tmp_path: Path) -> None:
    """One process sees 3D labels alone, the other 2D labels alone."""
    head = {**joint["overrides"]["center_head"], "proposals": 0}
    content = {
        **joint, "overrides": {**joint["overrides"], "center_head": head}, "steps": 1,
        "losses": {"denoising": None, "box_threshold": 0.0},
    }  # fmt: skip
    alone = Gradients(tmp_path / "alone.grad")
    train(recipe_from_dict(content), tmp_path / "alone", tell=quiet, callbacks=(alone,), progress_bar=False)
    recipe, path = tmp_path / "recipe.yaml", tmp_path / "together.grad"
    recipe.write_text(yaml.safe_dump({**content, "batch_size": 1, "devices": 2}))
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(recipe), str(tmp_path / "together"), str(path)], env=environment(),
        capture_output=True, text=True, timeout=500,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    (one,), (two,) = alone.steps, torch.load(path, weights_only=True)
    used = {name for name, gradient in one.items() if gradient.any()}
    assert used == {name for name, gradient in two.items() if gradient.any()} and len(used) > 100
    rounding = torch.finfo(torch.float32).eps * max(float(one[name].abs().max()) for name in used)
    for name in used:
        largest = float(one[name].abs().max())
        assert torch.allclose(one[name], two[name], rtol=0, atol=max(2e-4 * largest, rounding)), name


def bevformer(content: dict) -> dict:
    common = ("image_size", "class_names", "camera_names", "backbone.name", "backbone.widths")
    overrides = {key: content["overrides"][key] for key in common} | {
        "backbone.strides": [8, 16], "network.class_count": 2, "network.embed_dims": 32, "network.heads": 2,
        "network.feedforward_dims": 32, "network.num_queries": 24, "network.camera_points": 4,
        "network.grid": {"x_min": -32.0, "y_min": -32.0, "resolution": 4.0, "columns": 16, "rows": 16},
    }  # fmt: skip
    return {**content, "model": "bevformer-lite", "overrides": overrides}


def sparse4d(content: dict) -> dict:
    overrides = {k: v for k, v in content["overrides"].items() if not k.startswith("bev")}
    overrides |= {"bev": None, "center_head": None, "decoder": {**overrides["decoder"], "use_bev": False}}
    return {**content, "overrides": overrides}


@pytest.mark.parametrize("detector", [dict, sparse4d, bevformer])
def test_each_detector_learns_from_2d_labels_alone(detector, joint: dict, tmp_path: Path) -> None:
    content = detector(
        {**joint, "anchors": "preset", "augmentation": PLAIN, "steps": 24, "checkpoint_every": 24}
    )
    content["data"] = {**content["data"], "train": []}
    content["optimizer"] = {"learning_rate": 0.003, "warmup_steps": 2, "ema": 0.0, "neck_factor": 0.5}
    train(recipe_from_dict(content), tmp_path / "run", tell=quiet, progress_bar=False)
    table = rows(tmp_path / "run")

    def mean(part: slice) -> float:
        return float(
            np.mean([sum(float(v) for k, v in row.items() if k.startswith("image")) for row in table[part]])
        )

    assert mean(slice(-6, None)) < 0.9 * mean(slice(0, 6))
    assert all(float(row["layer0/class"]) == 0.0 for row in table), "nothing is known of boxes"


def test_rates_of_backbone_and_neck(small_recipe: dict) -> None:
    recipe = recipe_from_dict({**small_recipe, "anchors": "preset"})
    detector = initial_detector(recipe, recipe.detector_config(), [], quiet)
    rates = [
        group["lr"] / recipe.optimizer.learning_rate for group in parameter_groups(detector, recipe.optimizer)
    ]
    assert rates == [0.5, 1.0, 1.0], "groups of earlier runs stay what they are"
    settings = replace(recipe.optimizer, backbone_factor=0.1, neck_factor=0.5)
    groups = parameter_groups(detector, settings)
    assert [round(group["lr"] / settings.learning_rate, 6) for group in groups] == [0.1, 0.5, 1.0, 1.0]
    assert {id(p) for p in groups[1]["params"]} == {id(p) for p in detector.feature_pyramid.parameters()}
    assert sum(len(group["params"]) for group in groups) == len(list(detector.parameters()))


# ---- how it is asked for


def test_fine_tuning_from_nothing_is_told(joint: dict) -> None:
    told: list[str] = []
    recipe = recipe_from_dict(joint)
    build_image_box_objective(recipe, recipe.detector_config(), told.append)
    assert len(told) == 1 and "random weights" in told[0] and "start_from" in told[0]


def test_source_and_target_on_the_command_line(capsys: pytest.CaptureFixture) -> None:
    assert parse_changes(["source=drives/a", "target=[b, c]"]) == {
        "data.train": ["drives/a"],
        "labels_2d.train": ["b", "c"],
    }
    assert (
        main(
            [
                "train",
                "finetune_2d_tiny",
                "source=drives/city1",
                "target=drives/city2/*.mcap",
                "steps=7",
                "--check",
            ]
        )
        == 0
    )
    shown = yaml.safe_load(capsys.readouterr().out)
    assert shown["data"]["train"] == ["drives/city1"] and shown["labels_2d"]["train"] == [
        "drives/city2/*.mcap"
    ]
    assert shown["steps"] == 7
    with pytest.raises(ConfigError, match=r"would keep random weights: set .* start_from"):
        load_recipe("finetune_2d")
    recipe = load_recipe("finetune_2d", {"start_from": "dualview-tiny"})
    assert recipe.optimizer.learning_rate == 2e-6
    assert (recipe.optimizer.backbone_factor, recipe.optimizer.neck_factor) == (0.1, 0.5)


def test_errors_say_what_to_do(
    joint: dict, small_recipe: dict, drives: Path, small_rig: Path, tmp_path: Path
) -> None:
    def fails(match: str, content: dict | None = None, **labels: object) -> None:
        changed = {**(content or joint)}
        changed["labels_2d"] = {**(changed.get("labels_2d") or {}), **labels}
        with pytest.raises(ConfigError, match=match):
            train(recipe_from_dict(changed), tmp_path / "never", tell=quiet, progress_bar=False)

    unlabelled = write_drive(tmp_path / "unlabelled.mcap", load_rig(str(small_rig)), 9)
    fails(
        r"unlabelled.mcap has no 2D label on any image \(/front/annotations_2d.*`dualview label-2d`",
        train=[str(unlabelled)],
    )
    fails(r"labels_2d.depth dpt-hybrid: there is no depth at .*run dualview label-depth .*or set labels_2d.depth to null",
          depth="dpt-hybrid")  # fmt: skip
    fails(r"named in data.train and in labels_2d.train", train=[str(drives / "drive1.mcap")])
    fails(r"labels_2d names no recordings.*target=PATH", train=[])
    fails(r"labels_2d.classes names bus.*its classes are car, pedestrian", classes=["car", "bus"])
    fails(r"leaves none .*raise batch_size", share=0.1)
    fails(r"share 1.0 must lie between 0 and 1", share=1.0)
    fails(r"giou_weight must not be negative", giou_weight=-1.0)
    fails(r"set augmentation.image.rotate to 0", {**joint, "augmentation": {"image": {"rotate": 5.4}}})
    bevdet = {key: joint[key] for key in ("data", "labels_2d", "augmentation")} | {"model": "bevdet-tiny"}
    fails(r"bevdet.* has no decoder whose layers .*DualView, Sparse4D or BEVFormer", bevdet)
    alone = {**joint, "data": {**joint["data"], "train": []}}
    fails(r"don't say where anchors begin: set start_from", alone)
    renamed = tmp_path / "other_words.yaml"
    renamed.write_text(small_rig.read_text() + "class_map: {car: auto, pedestrian: person}\n")
    fails(r"of classes auto, person, of which .* knows none: rename them in the class_map", rig=str(renamed))
    one = tmp_path / "one_camera.yaml"
    one.write_text("\n".join(li for li in small_rig.read_text().splitlines() if "name: back" not in li))
    fails(r"data.train have \[2\] cameras, those of labels_2d.train \[1\]", rig=str(one))


def test_target_drive_is_what_it_says(target_drive: Path, small_rig: Path, tmp_path: Path) -> None:
    """Labels logged with a copy of the drive: nothing else is lost by attaching them a second time."""
    rig = load_rig(str(small_rig))
    with BagReader(target_drive) as bag:
        labels, _ = labels_from_3d(bag, rig)
    again = attach_labels_2d(target_drive, tmp_path / "again.mcap", rig, labels)
    assert again == sum(len(images) for images in labels.values()) > 10
