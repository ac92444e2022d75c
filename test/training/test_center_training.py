"""Detectors with a centre head, of cameras and of LiDAR, through the same doors as all others: `train`, evaluation, resume."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from students import recipe_of

from dualview.detectors.checkpoint import load_detector
from dualview.detectors.session import TrackingSession
from dualview.errors import BagError
from dualview.evaluation.run import detect
from dualview.scene.assembler import AssemblerSettings, ClosedFrame
from dualview.scene.bag_reader import BagReader
from dualview.scene.offline import iterate_frames
from dualview.scene.rig import load_rig
from dualview.scene.sweeps import LidarInput
from dualview.training.data_module import StreamingData, prepare_drives
from dualview.training.drive_store import Drive
from dualview.training.lidar_store import StoredSweeps
from dualview.training.lightning import lightning
from dualview.training.objectives import SampleNeeds
from dualview.training.recipe import recipe_from_dict
from dualview.training.schedule import momentum_factor
from dualview.training.trainer import train

STUDENTS = ["bevdet-tiny", "bevdet4d-tiny", "bevdepth-tiny", "bevdepth4d-tiny"]


@pytest.mark.parametrize("model", [*STUDENTS, "centerpoint-tiny"])
def test_trains_and_evaluates(
    model: str, small_recipe: dict, drives: Path, small_rig: Path, tmp_path: Path
) -> None:
    recipe = recipe_from_dict(recipe_of(small_recipe, model, picture_every=3))
    result = train(recipe, tmp_path / "run", tell=lambda line: None, progress_bar=False)
    assert (tmp_path / "run/pictures/0000003.jpg").stat().st_size > 1000
    assert result.steps == 3 and all(np.isfinite(v) for v in result.losses.values())
    terms = set(result.losses)
    assert {"center0/heatmap", "center1/velocity"} <= terms
    assert ("depth/lift" in terms) == model.startswith("bevdepth")
    assert not any(term.startswith("layer") for term in terms)
    detector = load_detector(result.weights, "cpu")
    fresh = load_detector(result.weights, "cpu")
    assert detector.weights_description.startswith("weights.safetensors") and detector.config == fresh.config
    session = TrackingSession(detector)
    found = detect(drives / "drive0.mcap", load_rig(str(small_rig)), session)
    assert len(found.predictions) > 20 and any(len(p.boxes) for p in found.predictions)


@pytest.mark.parametrize("model", ["bevdepth4d-tiny", "centerpoint-tiny"])
def test_a_stopped_run_goes_on_as_if_it_had_not(model: str, small_recipe: dict, tmp_path: Path) -> None:
    whole = recipe_from_dict(recipe_of(small_recipe, model, steps=4, checkpoint_every=2))
    train(whole, tmp_path / "whole", tell=lambda line: None, progress_bar=False)

    class Stop(Exception):
        pass

    class StopAfterTwo(pytest.importorskip("lightning").pytorch.Callback):  # type: ignore[misc]
        def on_train_batch_start(self, trainer, module, batch, index) -> None:
            if trainer.global_step == 2:
                raise Stop

    with pytest.raises(Stop):
        train(
            whole, tmp_path / "part", tell=lambda line: None, callbacks=(StopAfterTwo(),), progress_bar=False
        )
    train(whole, tmp_path / "part", resume=True, tell=lambda line: None, progress_bar=False)
    first, second = (
        load_detector(tmp_path / name / "weights.safetensors", "cpu") for name in ("whole", "part")
    )
    for (name, one), other in zip(first.state_dict().items(), second.state_dict().values(), strict=True):
        assert torch.equal(one, other), name


def test_the_cloud_in_training_is_the_cloud_in_evaluation(small_recipe: dict, small_rig: Path) -> None:
    recipe = recipe_from_dict(recipe_of(small_recipe, "centerpoint-tiny"))
    summary = prepare_drives(recipe, recipe.detector_config())[0]
    drive, settings, rig = Drive(summary.folder), LidarInput(3, 0.3), load_rig(str(small_rig))
    clouds = {}
    with BagReader(summary.source) as bag:
        for closed in iterate_frames(bag, rig, AssemblerSettings.for_rig(rig), lidar=settings):
            if isinstance(closed, ClosedFrame):
                clouds[closed.stamp_ns] = torch.from_numpy(closed.points)
    assert len(drive) > 10
    for index in range(len(drive)):
        stored = drive.cloud(index, settings)
        assert torch.equal(stored, clouds[int(summary.stamps[index])])
        assert len(stored) > 100 and float(stored[:, 4].max()) <= 0.3


def test_a_drive_stored_for_cameras_gets_its_sweeps_later(small_recipe: dict, tmp_path: Path) -> None:
    data = {**small_recipe["data"], "cache": str(tmp_path / "cache")}
    cameras = recipe_from_dict(recipe_of(small_recipe, "bevdet-tiny", data=data))
    before = prepare_drives(cameras, cameras.detector_config())
    images = (before[0].folder / "images.u8").stat().st_mtime_ns
    with pytest.raises(BagError, match="missing or damaged"):
        Drive(before[0].folder).cloud(0, LidarInput())
    lidar = recipe_from_dict(recipe_of(small_recipe, "centerpoint-tiny", data=data))
    after = prepare_drives(lidar, lidar.detector_config())
    assert [s.folder for s in after] == [s.folder for s in before]
    assert (after[0].folder / "images.u8").stat().st_mtime_ns == images
    stamps, pose = int(after[0].stamps[3]), torch.eye(4, dtype=torch.float64)
    assert len(StoredSweeps(after[0].folder).cloud(stamps, pose, LidarInput())) > 0
    assert not list(after[0].folder.glob(".*"))


def test_a_recording_without_lidar_is_named(small_recipe: dict, small_rig: Path, tmp_path: Path) -> None:
    rig = tmp_path / "cameras_only.yaml"
    rig.write_text(small_rig.read_text().replace("lidar_topics: [/lidar/points]\n", ""))
    data = {**small_recipe["data"], "rig": str(rig), "cache": str(tmp_path / "cache")}
    recipe = recipe_from_dict(recipe_of(small_recipe, "centerpoint-tiny", data=data))
    with pytest.raises(BagError, match="set lidar_topics"):
        prepare_drives(recipe, recipe.detector_config())


@pytest.mark.parametrize("model", ["centerpoint-tiny", "bevdet-tiny"])
def test_a_gap_between_sweeps_teaches_no_background(model: str, small_recipe: dict, tmp_path: Path) -> None:
    """A LiDAR detector that sees nothing can't be told what is there; cameras still can."""
    data = {**small_recipe["data"], "cache": str(tmp_path / "cache")}
    recipe = recipe_from_dict(recipe_of(small_recipe, model, data=data, steps=20))
    drives, config = prepare_drives(recipe, recipe.detector_config(), with_sweeps=True), recipe.detector_config()
    for drive in drives:  # the LiDAR falls silent after three sweeps
        with np.load(drive.folder / "lidar.npz") as table:
            first = {name: table[name][: 4 if name == "starts" else 3] for name in table.files}
        np.savez(drive.folder / "lidar.npz", **first)
    needs = SampleNeeds(LidarInput(1, 0.2))
    batches = list(StreamingData(recipe, config, drives, needs).train_dataloader())
    seen = [bool(len(cloud)) for batch in batches for cloud in batch.inputs.points]
    boxed = [known for batch in batches for known in batch.boxed]
    boxes = [len(truth.labels) for batch in batches for truth in batch.truths]
    assert {True, False} == set(seen)
    assert boxed == (seen if model == "centerpoint-tiny" else [True] * len(seen))
    assert all(bool(count) == known for count, known in zip(boxes, boxed, strict=True))


def test_a_cyclic_run_steps_with_the_momentum_of_its_place(small_recipe: dict, tmp_path: Path) -> None:
    """Also one that was stopped and goes on."""
    optimizer = {"learning_rate": 1e-3, "schedule": "cyclic", "ema": 0.0}
    recipe = recipe_from_dict(recipe_of(small_recipe, "centerpoint-tiny", steps=5, optimizer=optimizer, checkpoint_every=2))
    seen: dict[int, set[float]] = {}

    class Watch(lightning().Callback):
        stop_at = 3

        def on_before_zero_grad(self, trainer, module, optimizer) -> None:
            if trainer.global_step == self.stop_at:
                raise KeyError("stopped")

        def on_train_batch_end(self, trainer, module, outputs, batch, index) -> None:
            groups = trainer.optimizers[0].param_groups
            seen.setdefault(trainer.global_step, set()).update(group["betas"][0] for group in groups)

    watch = Watch()
    with pytest.raises(KeyError, match="stopped"):
        train(recipe, tmp_path / "run", tell=lambda line: None, callbacks=(watch,), progress_bar=False)
    watch.stop_at = -1
    train(recipe, tmp_path / "run", resume=True, tell=lambda line: None, callbacks=(watch,), progress_bar=False)
    expected = {step + 1: {0.9 * momentum_factor(step, 5, recipe.optimizer)} for step in range(5)}
    assert seen == expected and len({next(iter(betas)) for betas in seen.values()}) > 3
