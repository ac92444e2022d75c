"""Objects as points in the images, by the trainer; and parts that begin anew in a run that starts from a checkpoint."""

from pathlib import Path

import pytest
import torch

from dualview.detectors.checkpoint import load_checkpoint, read_tensors
from dualview.errors import ConfigError, WeightsError
from dualview.training.recipe import recipe_from_dict
from dualview.training.trainer import train

HISTORY = {"bev.history": {"frames": 1, "scales": 2, "interval": 0.2, "added": True, "kept_per_interval": 2}}


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


def test_parts_that_a_checkpoint_lacks_begin_anew_only_if_named(small_recipe: dict, tmp_path: Path) -> None:
    base = {**small_recipe, "overrides": {**small_recipe["overrides"], "bev.history": None}}
    first = run(base, tmp_path / "first")
    grown = {**base, "start_from": str(first.weights), "overrides": HISTORY}
    with pytest.raises(WeightsError, match=r"missing bev_branch\.fusion"):
        run(grown, tmp_path / "strict")
    with pytest.raises(ConfigError, match=r"no part 'bev_branch\.fuison'"):
        run(grown, tmp_path / "misspelt", fresh=["bev_branch.fuison"])
    result = run(grown, tmp_path / "grown", fresh=["bev_branch.fusion"], steps=1)
    assert load_checkpoint(result.weights).bev_branch.fusion is not None
    with pytest.raises(ConfigError, match="set start_from too"):
        recipe_from_dict({**base, "fresh": ["bev_branch.fusion"]})


def test_parts_that_the_recipe_turns_off_stay_in_the_checkpoint(small_recipe: dict, tmp_path: Path) -> None:
    first = run(small_recipe, tmp_path / "first")
    off = {"bev": None, "center_head": None, "decoder.use_bev": False}
    changed = {**small_recipe, "start_from": str(first.weights), "overrides": off, "steps": 1, "dense_steps": 0}
    with pytest.raises(WeightsError, match=r"unexpected decoder\."):  # of a part that stays, nothing is passed over
        run(changed, tmp_path / "strict")
    result = run(changed, tmp_path / "perspective", fresh=["decoder"])
    learned, start = read_tensors(result.weights), read_tensors(first.weights)
    parts = {name.partition(".")[0] for name in learned}
    assert parts == {name.partition(".")[0] for name in start} - {"bev_branch", "center_head"}
