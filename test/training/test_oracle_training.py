"""Oracles train and are scored by the same commands as any detector; maps of them and of what was learned are drawn."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from map_world import CHANNELS, write_maps
from PIL import Image
from safetensors.torch import load_file
from students import recipe_of

from dualview.cli import main
from dualview.detectors.checkpoint import build_detector
from dualview.detectors.presets import preset_config
from dualview.errors import ConfigError
from dualview.training.objective_maps import LabelMapInput, build_map_objective
from dualview.training.objectives import build_objectives, joined_needs
from dualview.training.recipe import recipe_from_dict
from dualview.training.trainer import train


@pytest.fixture(scope="module")
def maps(tmp_path_factory: pytest.TempPathFactory, drives: Path) -> Path:
    return write_maps(tmp_path_factory.mktemp("maps"), [drives / "drive0.mcap", drives / "drive1.mcap"])


def lidar_oracle(small_recipe: dict, **changes) -> dict:
    return recipe_of(small_recipe, "dualview-tiny-oracle-lidar", **changes)


def maps_oracle(
    small_recipe: dict, maps: Path, weight: float = 0.0, channels: int = CHANNELS, **changes
) -> dict:
    content = recipe_of(small_recipe, "dualview-tiny-oracle-maps", **changes)
    content["overrides"] = {**content["overrides"], "oracle.map_channels": channels}
    return {**content, "map_distillation": {"labels": str(maps), "weight": weight}}


def test_the_presets_are_the_tiny_detector_with_another_map() -> None:
    tiny = load_names(build_detector(preset_config("dualview-tiny")))
    for name in ("dualview-tiny-oracle-lidar", "dualview-tiny-oracle-maps"):
        config = preset_config(name)
        own = load_names(build_detector(config))
        assert config.lift is None and (config.lidar is not None) == name.endswith("lidar")
        elsewhere = {key: shape for key, shape in own.items() if not key.startswith("bev_branch.")}
        assert elsewhere == {key: shape for key, shape in tiny.items() if not key.startswith("bev_branch.")}
        encoder = {key: shape for key, shape in own.items() if key.startswith("bev_branch.encoder.")}
        assert encoder and encoder.items() <= tiny.items()


def load_names(detector: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in detector.state_dict().items()}


def test_lidar_oracle(small_recipe: dict, drives: Path, small_rig: Path, tmp_path: Path) -> None:
    recipe = recipe_from_dict(lidar_oracle(small_recipe, steps=2))
    needs = joined_needs(build_objectives(recipe, recipe.detector_config()), recipe.detector_config())
    assert needs.lidar is not None and needs.lidar.sweeps == 1
    result = train(recipe, tmp_path / "run", tell=lambda line: None, progress_bar=False)
    assert all(np.isfinite(v) for v in result.losses.values()) and "depth/lift" not in result.losses
    assert any(name.startswith("bev_branch.project") for name in load_file(result.weights))
    assert evaluated(drives / "drive2.mcap", result.weights, small_rig, tmp_path) == 0
    metrics = json.loads((tmp_path / "report/metrics.json").read_text())
    assert 0 <= metrics["mAP"] < 0.5


def evaluated(bag: Path, weights: Path, rig: Path, folder: Path, *more: str) -> int:
    arguments = [
        "evaluate",
        str(bag),
        "--weights",
        str(weights),
        "--rig",
        str(rig),
        "--report",
        str(folder / "report"),
    ]
    return main([*arguments, "--pictures", "0", "--device", "cpu", *more])


def test_maps_oracle(
    small_recipe: dict,
    maps: Path,
    drives: Path,
    small_rig: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data = {**small_recipe["data"], "train": [str(drives / "drive0.mcap")]}
    recipe = recipe_from_dict(maps_oracle(small_recipe, maps, steps=2, data=data))
    (objective,) = build_objectives(recipe, recipe.detector_config())
    assert isinstance(objective, LabelMapInput) and not list(objective.parameters())
    result = train(recipe, tmp_path / "run", tell=lambda line: None, progress_bar=False)
    assert "depth/lift" not in result.losses and "maps/cosine" not in result.losses
    weights = load_file(result.weights)
    assert weights["bev_branch.project.weight"].shape[1] == CHANNELS + 1
    bag = drives / "drive1.mcap"
    assert evaluated(bag, result.weights, small_rig, tmp_path, "--label-maps", str(maps)) == 0
    assert json.loads((tmp_path / "report/metrics.json").read_text())["frames_dropped"] == {}
    # A frame without a map isn't shown to the detector as a world in which nothing is known.
    most = write_maps(tmp_path / "most", [bag], frames=range(1, 24))
    assert evaluated(bag, result.weights, small_rig, tmp_path, "--label-maps", str(most)) == 0
    assert json.loads((tmp_path / "report/metrics.json").read_text())["frames_dropped"] == {"no label map": 1}
    few = write_maps(tmp_path / "few", [bag], frames=range(0, 24, 5))
    capsys.readouterr()
    assert evaluated(bag, result.weights, small_rig, tmp_path, "--label-maps", str(few)) == 1
    assert "label maps for 3 of the 12 labelled instants" in capsys.readouterr().err
    assert evaluated(bag, result.weights, small_rig, tmp_path) == 1
    assert "name their folder with --label-maps DIR" in capsys.readouterr().err
    absent = drives / "drive2.mcap"
    assert evaluated(absent, result.weights, small_rig, tmp_path, "--label-maps", str(maps)) == 1
    assert "holds no label maps of drive2.mcap" in capsys.readouterr().err


def test_what_oracles_refuse(small_recipe: dict, maps: Path, drives: Path) -> None:
    def build(content: dict) -> None:
        recipe = recipe_from_dict(content)
        build_map_objective(recipe, recipe.detector_config(), lambda line: None)

    bare = maps_oracle(small_recipe, maps)
    del bare["map_distillation"]
    with pytest.raises(ConfigError, match="reads label maps: name their folder"):
        build(bare)
    with pytest.raises(
        ConfigError, match=r"maps of 64 channels, .* have 6: set overrides\.oracle\.map_channels to 6"
    ):
        build(maps_oracle(small_recipe, maps, channels=64))
    with pytest.raises(ConfigError, match="can't be taught them too: set weight to 0"):
        build(maps_oracle(small_recipe, maps, weight=7.0))
    with pytest.raises(ConfigError, match="must read something"):
        build({**recipe_of(small_recipe, "dualview-tiny"), "overrides": {"oracle": {"lidar": None}}})
    with pytest.raises(ConfigError, match="needs a bev section"):
        blind = {"oracle": {}, "bev": None, "center_head": None, "decoder.use_bev": False}
        build({**recipe_of(small_recipe, "dualview-tiny"), "overrides": blind})


def test_maps_are_drawn(
    small_recipe: dict,
    maps: Path,
    drives: Path,
    small_rig: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Cameras and label; with a run, also its prediction and the error."""
    content = recipe_of(small_recipe, "bevdepth-tiny", steps=1)
    recipe = recipe_from_dict({**content, "map_distillation": {"labels": str(maps)}})
    train(recipe, tmp_path / "run", tell=lambda line: None, progress_bar=False)
    common = [
        "draw-maps",
        str(drives / "drive1.mcap"),
        "--rig",
        str(small_rig),
        "--label-maps",
        str(maps),
        "--frames",
        "2",
    ]
    assert main([*common, "--out", str(tmp_path / "labels.png"), "--width", "96"]) == 0
    with_run = [
        *common,
        "--run",
        str(tmp_path / "run"),
        "--device",
        "cpu",
        "--out",
        str(tmp_path / "both.png"),
    ]
    assert main([*with_run, "--width", "96"]) == 0
    labels, both = (np.asarray(Image.open(tmp_path / name)) for name in ("labels.png", "both.png"))
    assert labels.shape[0] == both.shape[0] and labels.shape[1] < both.shape[1]
    shared = labels.shape[1] - 4
    below = slice(30, 180)  # of the titles
    assert np.array_equal(
        labels[below, :shared], both[below, :shared]
    )  # the same cameras and labels, the same colours
    predicted = both[below, shared + 4 :]
    assert len(np.unique(predicted.reshape(-1, 3), axis=0)) > 10
    capsys.readouterr()
    assert main([*with_run[:-1], str(tmp_path / "both.pdf")]) == 1
    assert "must end in .png or .jpg" in capsys.readouterr().err
    other = [str(drives / "drive2.mcap") if a.endswith("drive1.mcap") else a for a in with_run]
    assert main(other) == 1
    assert "holds no label map of a frame of drive2.mcap" in capsys.readouterr().err
