"""The study of map distillation compares what DualViewDistill's tables compare, at one budget."""

from dataclasses import replace

import pytest

from dualview.training.frozen import freeze_detector
from dualview.training.study import load_study
from dualview.training.trainer import initial_detector

STUDY = load_study("maps")


def test_rows_differ_in_labels_weight_and_oracle_alone() -> None:
    recipes = {row: STUDY.recipe_of(row, 1, ["a.mcap"]) for row in STUDY.rows}
    configs = {row: recipe.detector_config() for row, recipe in recipes.items()}
    assert STUDY.baseline == "both"
    for row, recipe in recipes.items():
        same = replace(recipe, map_distillation=None, overrides={**recipe.overrides, "oracle": None})
        assert same == replace(recipes["both"], overrides={**recipes["both"].overrides, "oracle": None}), row
    distilled = {row: recipe.map_distillation for row, recipe in recipes.items()}
    assert distilled["both"] is distilled["oracle_lidar"] is None
    found = {row: (s.labels, s.weight) for row, s in distilled.items() if s is not None}
    assert found == {
        "maps_static": ("$LABEL_MAPS/static", 7.0),
        "maps": ("$LABEL_MAPS/full", 7.0),
        "maps_fine": ("$LABEL_MAPS/fine", 7.0),
        "lambda_3": ("$LABEL_MAPS/full", 3.0),
        "lambda_14": ("$LABEL_MAPS/full", 14.0),
        "oracle_maps": ("$LABEL_MAPS/current", 0.0),
        "oracle_both": ("$LABEL_MAPS/current", 0.0),
    }
    # At test time nobody knows the frames to come: what is gathered over the drive may teach, but not be read.
    assert STUDY.evaluate == ("--label-maps", "$LABEL_MAPS/current")
    taught = [row for row in found if not row.startswith("oracle")]
    assert all(configs[row] == configs["both"] for row in taught)
    lidar, maps = configs["oracle_lidar"].oracle, configs["oracle_maps"].oracle
    assert lidar.lidar is not None and lidar.map_channels == 0
    assert maps.lidar is None and maps.map_channels == 64
    both = configs["oracle_both"].oracle
    assert both.lidar == lidar.lidar and both.map_channels == 64
    assert configs["oracle_lidar"].bev == configs["oracle_maps"].bev == configs["both"].bev
    size = configs["both"].image_size
    assert size == (224, 640)  # of the embedded default, whose stored features serve again
    assert configs["both"].center_head.evidence and configs["both"].center_head.proposals


@pytest.mark.parametrize("row", ["maps", "oracle_lidar", "oracle_maps", "oracle_both"])
def test_rows_build_and_distillation_has_something_to_teach(row: str) -> None:
    recipe = replace(STUDY.recipe_of(row, 0, ["a.mcap"]), anchors="preset")
    detector = initial_detector(recipe, recipe.detector_config(), [], lambda line: None)
    freeze_detector(detector, recipe)
    learning = {name.partition(".")[0] for name, p in detector.named_parameters() if p.requires_grad}
    assert learning == {"bev_branch", "center_head", "decoder", "dense_depth"}
    still = {name.partition(".")[0] for name, p in detector.named_parameters() if not p.requires_grad}
    assert still == {"image_backbone", "feature_pyramid"}
