"""Objects as points in the images, by the trainer."""

from pathlib import Path

import pytest
import torch

from dualview.detectors.checkpoint import read_tensors
from dualview.errors import ConfigError
from dualview.training.recipe import recipe_from_dict
from dualview.training.trainer import train


def run(recipe: dict, folder: Path, **changes):
    return train(recipe_from_dict({**recipe, **changes}), folder, tell=lambda line: None, progress_bar=False)


def test_the_head_learns_beside_the_detector_and_isnt_part_of_it(small_recipe: dict, tmp_path: Path) -> None:
    plain = run(small_recipe, tmp_path / "plain")
    taught = run(small_recipe, tmp_path / "taught", image_centers={"weight": 2.0, "hidden_channels": 8})
    terms = {name for name in taught.losses if name.startswith("image_centers/")}
    assert terms == {"image_centers/heatmap", "image_centers/box"}
    assert not set(plain.losses) & terms
    ours, theirs = read_tensors(taught.weights), read_tensors(plain.weights)
    assert ours.keys() == theirs.keys()  # the detector is the same network ...
    learned = [n for n in ours if n.startswith("feature_pyramid.") and not torch.equal(ours[n], theirs[n])]
    assert learned  # ... that was taught something else


def test_detectors_that_show_no_image_features_are_refused(small_recipe: dict, tmp_path: Path) -> None:
    model = {**small_recipe, "model": "centerpoint-tiny", "overrides": {}, "image_centers": {}}
    with pytest.raises(ConfigError, match="image_centers: centerpoint-tiny"):
        run(model, tmp_path / "run")
