"""The decoder may rest at first, so that what it reads is worth reading when it begins."""

import csv
from pathlib import Path

import pytest
from safetensors.torch import load_file

from dualview.errors import ConfigError
from dualview.training.recipe import recipe_from_dict
from dualview.training.trainer import train


def weights(content: dict, folder: Path) -> dict:
    train(recipe_from_dict(content), folder, progress_bar=False)
    return load_file(folder / "weights.safetensors")


def test_the_decoder_rests_and_then_learns(small_recipe: dict, tmp_path: Path) -> None:
    resting = {
        **small_recipe,
        "dense_steps": 3,
        "steps": 5,
        "checkpoint_every": 1,
        "keep_every": 1,
        "picture_every": 1,
    }
    resting["optimizer"] = {**small_recipe["optimizer"], "ema": 0.0, "weight_decay": 0.0}
    last = weights(resting, tmp_path / "run")
    first, third = (load_file(tmp_path / "run" / f"weights-{step}.safetensors") for step in (1, 3))

    decoder = [name for name in first if name.startswith("decoder.") and first[name].is_floating_point()]
    assert decoder and all(third[name].equal(first[name]) for name in decoder)
    assert not third["bev_branch.depth_net.reduce.0.weight"].equal(
        first["bev_branch.depth_net.reduce.0.weight"]
    )
    assert any(not last[name].equal(third[name]) for name in decoder)

    with (tmp_path / "run" / "losses.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [bool(row["layer0/class"]) for row in rows] == [False] * 3 + [True] * 2
    assert all(row["center0/heatmap"] for row in rows)
    assert sorted(p.stem for p in (tmp_path / "run" / "pictures").glob("*.jpg")) == ["0000004", "0000005"]


def test_without_a_centre_head_nothing_would_learn_boxes(small_recipe: dict) -> None:
    content = {
        **small_recipe,
        "dense_steps": 3,
        "overrides": {**small_recipe["overrides"], "center_head": None},
    }
    with pytest.raises(ConfigError, match=r"add one or leave dense_steps out"):
        recipe_from_dict(content)
