"""Runs that start from a checkpoint: parts that begin anew, that are turned off, and that stay as they are."""

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
    changed = {
        **small_recipe,
        "start_from": str(first.weights),
        "overrides": off,
        "steps": 1,
        "dense_steps": 0,
    }
    with pytest.raises(
        WeightsError, match=r"unexpected decoder\."
    ):  # of a part that stays, nothing is passed over
        run(changed, tmp_path / "strict")
    result = run(changed, tmp_path / "perspective", fresh=["decoder"])
    learned, start = read_tensors(result.weights), read_tensors(first.weights)
    parts = {name.partition(".")[0] for name in learned}
    assert parts == {name.partition(".")[0] for name in start} - {"bev_branch", "center_head"}


def started(recipe: dict, folder: Path) -> tuple[Path, dict]:
    """The weights of a first run, and a recipe that goes on from them for two steps, without averaged weights."""
    weights = run(recipe, folder / "first").weights
    return weights, {**recipe, "start_from": str(weights), "overrides": {}, "steps": 2, "optimizer": {"ema": 0.0}}


def test_frozen_parts_stay_as_they_were(small_recipe: dict, tmp_path: Path) -> None:
    first, start = started(small_recipe, tmp_path)
    with pytest.raises(ConfigError, match=r"no part 'neck'; its parts are .*feature_pyramid"):
        run(start, tmp_path / "misspelt", frozen=["neck"])
    with pytest.raises(ConfigError, match="don't name them in fresh too"):
        recipe_from_dict({**start, "frozen": ["decoder"], "fresh": ["decoder"]})
    names = ("image_backbone", "feature_pyramid", "bev_branch")
    result = run(start, tmp_path / "frozen", frozen=list(names))
    before, after = read_tensors(first), read_tensors(result.weights)
    changed = {name.partition(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert "decoder" in changed and not changed & set(names)


def test_statistics_of_a_frozen_backbone_stay_through_the_trainer(small_recipe: dict, tmp_path: Path) -> None:
    first, start = started(small_recipe, tmp_path)
    result = run(start, tmp_path / "kept", freeze_batch_norm=True, freeze_stages=2)
    before, after = read_tensors(first), read_tensors(result.weights)
    body = [name for name in before if name.startswith("image_backbone.")]
    changed = [name for name in body if not torch.equal(before[name], after[name])]
    assert changed and all("layer1" not in name and "layer2" not in name for name in changed)
    assert not [name for name in changed if "running" in name]
