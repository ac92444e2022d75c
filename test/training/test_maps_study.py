"""The study of map distillation compares what DualViewDistill's tables compare, at one budget."""

from dualview.training.study import load_study


def test_rows_differ_in_views_labels_weight_and_oracle_alone() -> None:
    study = load_study("maps")
    recipes = {row: study.recipe_of(row, 1, ["a.mcap"]) for row in study.rows}
    configs = {row: recipe.detector_config() for row, recipe in recipes.items()}
    budgets = {
        (r.steps, r.batch_size, r.seed, r.data, r.clips, r.optimizer, r.dense_steps) for r in recipes.values()
    }
    assert len(budgets) == 1 and study.baseline == "both"
    assert configs["perspective"].bev is None and not configs["bev"].decoder.use_perspective
    distilled = {row: recipe.map_distillation for row, recipe in recipes.items()}
    plain = ("perspective", "bev", "both", "oracle_lidar")
    assert all(distilled[row] is None for row in plain)
    weights = {row: section.weight for row, section in distilled.items() if section is not None}
    assert weights == {
        "maps_static": 7.0,
        "maps": 7.0,
        "lambda_3": 3.0,
        "lambda_14": 14.0,
        "oracle_maps": 0.0,
    }
    folders = {row: section.labels for row, section in distilled.items() if section is not None}
    assert folders.pop("maps_static") == "$LABEL_MAPS/static" and set(folders.values()) == {
        "$LABEL_MAPS/full"
    }
    taught = [row for row in weights if row != "oracle_maps"]
    assert all(configs[row] == configs["both"] for row in taught)
    lidar, maps = configs["oracle_lidar"].oracle, configs["oracle_maps"].oracle
    assert lidar.lidar is not None and lidar.map_channels == 0
    assert maps.lidar is None and maps.map_channels == 64
    assert configs["oracle_lidar"].bev == configs["oracle_maps"].bev == configs["both"].bev
