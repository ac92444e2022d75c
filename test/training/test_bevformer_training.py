"""BEVFormer by the same trainer: a run that was cut off goes on with its maps, it learns, and its weights walk a recording."""

import csv
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import dualview
from dualview.detectors.checkpoint import build_detector
from dualview.detectors.inputs import DetectorInputs
from dualview.detectors.session import TrackingSession
from dualview.evaluation.run import detect
from dualview.scene.rig import load_rig
from dualview.supervision.ground_truth import GroundTruth
from dualview.training.lightning import lightning
from dualview.training.losses import LossPlan
from dualview.training.recipe import recipe_from_dict
from dualview.training.recipe_settings import LossSettings
from dualview.training.trainer import train


class Cut(RuntimeError):
    """The run was cut off."""


class CutsAfter(lightning().Callback):
    def __init__(self, step: int) -> None:
        self._step = step

    def on_train_batch_end(self, trainer, module, *unused) -> None:
        if trainer.global_step == self._step:
            raise Cut


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "losses.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    return [{k: v for k, v in row.items() if k != "frames_per_second"} for row in table]


@pytest.fixture
def content(small_recipe: dict) -> dict:
    """The small recipe for a small BEVFormer. Denoising stays in it: a detector without such queries pays no heed."""
    common = ("image_size", "class_names", "camera_names", "backbone.name", "backbone.widths")
    overrides = {key: small_recipe["overrides"][key] for key in common} | {
        "backbone.strides": [8, 16],
        "network.class_count": 2, "network.embed_dims": 32, "network.heads": 2, "network.feedforward_dims": 32,
        "network.grid": {"x_min": -32.0, "y_min": -32.0, "resolution": 4.0, "columns": 16, "rows": 16},
        "network.num_queries": 24, "network.camera_points": 4,
    }  # fmt: skip
    return {**small_recipe, "model": "bevformer-lite", "overrides": overrides}


def test_a_cut_off_run_goes_on_with_its_maps(content: dict, tmp_path: Path) -> None:
    recipe = recipe_from_dict({**content, "steps": 8, "checkpoint_every": 3, "precision": "bf16"})
    train(recipe, tmp_path / "whole", progress_bar=False)
    with pytest.raises(Cut):
        train(recipe, tmp_path / "cut", callbacks=(CutsAfter(5),), progress_bar=False)
    saved = torch.load(tmp_path / "cut" / "last.ckpt", weights_only=True)["dualview"]["streams"][0]
    assert saved["memory"]["map"]["features"].any()
    train(recipe, tmp_path / "cut", resume=True, progress_bar=False)
    assert rows(tmp_path / "cut") == rows(tmp_path / "whole") and len(rows(tmp_path / "cut")) == 8
    first, second = (load_file(tmp_path / name / "weights.safetensors") for name in ("whole", "cut"))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_boxes_that_no_query_can_reach_are_not_taught(content: dict) -> None:
    config = recipe_from_dict(content).detector_config()
    plan = LossPlan.of(config, LossSettings(denoising=None))
    torch.manual_seed(0)
    detector = build_detector(config)
    cameras = len(config.camera_names)
    images = torch.randn(1, cameras, 3, *config.image_size)
    inputs = DetectorInputs(
        images, torch.eye(4).expand(1, cameras, 4, 4), torch.ones(1, cameras, dtype=torch.bool),
        torch.zeros(1, dtype=torch.float64), torch.eye(4, dtype=torch.float64)[None],
        torch.eye(3).expand(1, cameras, 3, 3), torch.eye(4, dtype=torch.float64).expand(1, cameras, 4, 4),
    )  # fmt: skip
    prediction = detector.train()(inputs, None)
    near, far = (torch.tensor([[x, 3.0, 0.0, 4.0, 2.0, 1.5, 0.3, 1.0, 0.0]]) for x in (10.0, 33.0))
    label = torch.zeros(1, dtype=torch.int64)
    alone = plan.losses(prediction, [GroundTruth(near, label)], torch.zeros(1, cameras, *config.image_size))
    both = GroundTruth(torch.cat([near, far]), torch.zeros(2, dtype=torch.int64))
    found = plan.losses(prediction, [both], torch.zeros(1, cameras, *config.image_size))
    assert alone.keys() == found.keys() and all(torch.equal(alone[name], found[name]) for name in alone)


def test_it_learns_and_walks_a_recording(
    content: dict, drives: Path, small_rig: Path, tmp_path: Path
) -> None:
    content = {**content, "steps": 60, "checkpoint_every": 60}
    content["augmentation"] = {"grid_mask": None, "photometric": None}
    result = train(recipe_from_dict(content), tmp_path / "run", progress_bar=False)
    table = rows(tmp_path / "run")

    def mean(name: str, part: slice) -> float:
        values = [float(row[name]) for row in table[part]]
        return sum(values) / len(values)

    for name in ("layer0/box", "layer2/box", "layer2/class"):
        assert mean(name, slice(-10, None)) < 0.9 * mean(name, slice(0, 10)), name

    detector = dualview.load(
        result.weights, device="cpu", overrides={"score_threshold": 0.0, "max_tracks": 10}
    )
    found = detect(drives / "drive0.mcap", load_rig(str(small_rig)), TrackingSession(detector))
    assert len(found.predictions) >= 20 and not found.dropped
    assert detector.config.camera_names == load_rig(str(small_rig)).camera_names
    assert all(len(p.boxes) == 10 and (p.boxes.track_id >= 0).all() for p in found.predictions)
