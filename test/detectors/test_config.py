"""Configurations: JSON there and back, and messages that help."""

import json

import pytest
from detector_frames import small_config

from dualview.detectors.config import DetectorConfig
from dualview.detectors.json_config import override
from dualview.detectors.presets import PRESETS, preset_config
from dualview.detectors.systems import settings_from_json
from dualview.errors import ConfigError


@pytest.mark.parametrize("name", PRESETS)
def test_json_there_and_back(name):
    config = preset_config(name)
    assert settings_from_json(config.to_json()) == config
    assert config.name == name and "summary" not in config.to_json()


def changed(path: str, value) -> str:
    """The small config's JSON with one value set, whether the key exists or not."""
    values = json.loads(small_config().to_json())
    target = values
    *parents, last = path.split(".")
    for key in parents:
        target = target[key]
    target[last] = value
    return json.dumps(values)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("image_sise", [1, 1], r"config has no key 'image_sise': did you mean 'image_size'\?"),
        ("decoder.num_anchor", 3, r"config.decoder has no key 'num_anchor': did you mean 'num_anchors'\?"),
        ("bev.zzz", 3, r"config.bev has no key 'zzz': known keys are grid, depth_bins"),
        ("track_threshold", "high", "config.track_threshold must be float, got 'high'"),
        ("decoder.num_layers", 2.5, "config.decoder.num_layers must be int, got 2.5"),
        ("decoder.num_layers", True, "must be int, got True"),
        ("image_size", [64], r"config.image_size must have 2 entries, got 1"),
        ("image_size", 64, r"config.image_size must be a list, got 64"),
        ("bev.rounding", "up", r"config.bev.rounding must be one of 'floor', 'truncate', got 'up'"),
        ("bev.grid", 3, "config.bev.grid must be a mapping"),
        ("bev.grid.resolution", -1.0, "resolution and cell counts must be positive"),
        ("image_size", [60, 96], "multiple of the backbone's largest stride 16"),
        ("decoder.num_levels", 3, "decoder.num_levels is 3 but the backbone has 2 strides"),
        ("class_names", ["car"], "decoder.class_count is 3 for 1 class_names"),
        ("bev", None, "decoder.use_bev must be true with a bev section"),
        ("bev.image_stride", 4, "bev.image_stride 4 is none of the strides"),
        (
            "working_from_ego",
            [[2.0, 0, 0, 0], [0, 1.0, 0, 0], [0, 0, 1.0, 0], [0, 0, 0, 1.0]],
            "must be a rigid transform",
        ),
    ],
)
def test_what_is_wrong_is_named(path, value, message):
    with pytest.raises(ConfigError, match=message):
        DetectorConfig.from_json(changed(path, value))


def test_missing_keys_and_broken_json():
    with pytest.raises(ConfigError, match="config lacks the key 'name'"):
        DetectorConfig.from_json("{}")
    with pytest.raises(ConfigError, match="isn't JSON"):
        DetectorConfig.from_json("{")


def test_overrides():
    config = override(small_config(), {"decoder.id_threshold": None, "bev.grid.z_max": 4})
    assert config.decoder.id_threshold is None and config.bev.grid.z_max == 4.0
    # Each of these alone would be refused.
    assert override(config, {"decoder.num_anchors": 9, "decoder.num_temporal": 6}).decoder.num_temporal == 6
    with pytest.raises(ConfigError, match="num_temporal 12 must lie between 1 and num_anchors - 1 = 8"):
        override(config, {"decoder.num_anchors": 9})
    with pytest.raises(ConfigError, match="did you mean 'id_threshold'"):
        override(config, {"decoder.id_treshold": 0.1})
    with pytest.raises(ConfigError, match="no section 'decode'"):
        override(config, {"decode.id_threshold": 0.1})
    with pytest.raises(ConfigError, match="no key True"):
        override(config, {True: 0.1})  # what YAML makes of the key "on"


def test_unknown_presets_get_a_suggestion():
    with pytest.raises(ConfigError, match="did you mean 'dualview-tiny'"):
        preset_config("dualview-tinny")
