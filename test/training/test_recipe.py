"""Recipes are checked before anything slow starts, and say which key is wrong."""

from pathlib import Path

import pytest

from dualview.cli import main
from dualview.errors import ConfigError
from dualview.training.recipe import (
    known_recipes,
    load_recipe,
    parse_changes,
    recipe_from_dict,
    recipe_to_dict,
)


@pytest.mark.parametrize("name", sorted(known_recipes()))
def test_shipped_recipes_are_valid_and_short(name: str) -> None:
    needs_weights = name == "finetune_2d"  # it freezes a part of what the user's checkpoint brings
    recipe = load_recipe(name, {"start_from": "dualview-tiny"} if needs_weights else None)
    assert recipe.detector_config().class_names
    lines = [
        li for li in known_recipes()[name].read_text().splitlines() if li.strip() and not li.startswith("#")
    ]
    assert 5 <= len(lines) <= 20


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"model": "dualview-tiny", "optimiser": {}}, "no key 'optimiser': did you mean 'optimizer'"),
        ({"model": "dualview-tiny", "optimizer": {"learning_rat": 1.0}}, "did you mean 'learning_rate'"),
        ({"model": "dualview-tini"}, "no preset 'dualview-tini': did you mean 'dualview-tiny'"),
        ({"model": "dualview-tiny", "overrides": {"decoder.num_ancors": 3}}, "num_anchors"),
        ({"model": "dualview-tiny", "steps": "many"}, "steps must be int"),
        ({"model": "dualview-tiny", "precision": "fp8"}, "'fp32', 'bf16'"),
        ({"model": "dualview-tiny", "batch_size": 0}, "batch_size must be positive"),
        ({"model": "dualview-tiny", "augmentation": {"bev": {"scale": [1.1, 0.9]}}}, "scale"),
        ({"model": "dualview-tiny", "clips": {"skip_probability": 2.0}}, "skip_probability must lie in 0..1"),
        ({"model": "dualview-tiny", "freeze_stages": 2}, "freeze_stages would keep random weights"),
        ({"steps": 3}, "lacks the key 'model'"),
        ([1, 2], "must be a mapping"),
    ],
)  # fmt: skip
def test_a_wrong_recipe_names_the_key_and_the_likely_one(content: object, message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        recipe_from_dict(content)
    assert message in str(raised.value)


def test_an_unknown_recipe_names_the_likely_one() -> None:
    with pytest.raises(ConfigError, match="did you mean 'dualview_tiny'"):
        load_recipe("dualview_tyni")


def test_changes_by_dotted_path_and_short_numbers() -> None:
    changes = parse_changes(
        ["optimizer.learning_rate=1e-5", "augmentation.bev=null", "overrides.decoder.num_layers=2", "steps=7"]
    )
    recipe = load_recipe("dualview_tiny", changes)
    assert recipe.optimizer.learning_rate == 1e-5 and recipe.augmentation.bev is None and recipe.steps == 7
    assert recipe.detector_config().decoder.num_layers == 2
    assert recipe.optimizer.warmup_steps == load_recipe("dualview_tiny").optimizer.warmup_steps
    with pytest.raises(ConfigError, match="KEY=VALUE"):
        parse_changes(["steps"])


def test_a_written_recipe_is_the_same_recipe() -> None:
    recipe = load_recipe("dualview_tiny")
    assert recipe_from_dict(recipe_to_dict(recipe)) == recipe


def test_the_command_checks_and_prints(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("model: dualview-tiny\noptimizer: {learning_rate: 1e-4}\n")
    assert main(["train", str(file), "--check"]) == 0
    assert "learning_rate: 0.0001" in capsys.readouterr().out
    file.write_text("model: dualview-tiny\nstep: 4\n")
    assert main(["train", str(file), "--check"]) == 1
    assert "did you mean 'steps'" in capsys.readouterr().err
    assert main(["train", "dualview_tiny", "--out", str(tmp_path / "run")]) == 1
    assert "names no recordings" in capsys.readouterr().err
