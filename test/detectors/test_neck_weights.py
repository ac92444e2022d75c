"""A neck is taken level by level, by stride, and what doesn't fit is refused."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dualview.detectors.checkpoint import build_detector, load_checkpoint
from dualview.detectors.detector import Detector
from dualview.detectors.neck_weights import load_neck_weights
from dualview.detectors.presets import preset_config
from dualview.errors import ConfigError, WeightsError


def student(neck_channels: int = 128, neck_blocks: int = 1) -> Detector:
    return build_detector(replace(preset_config("bevdet-tiny"), neck_channels=neck_channels, neck_blocks=neck_blocks), seed=1)


def test_the_default_s_neck_says_the_same_in_bevdet() -> None:
    default, detector = load_checkpoint(Path("models/dualview-tiny.safetensors")), student()
    before = {name: value.clone() for name, value in detector.bev_branch.state_dict().items()}
    assert "neck: " in load_neck_weights(detector, "dualview-tiny")
    maps = [torch.randn(2, c, 32 // s * 2, 64 // s * 2) for c, s in zip(default.image_backbone.channels, (8, 16, 32), strict=True)]
    with torch.no_grad():
        theirs = default.feature_pyramid.eval()(list(maps))[1]
        (ours,) = detector.feature_pyramid.eval()(maps[1:])
    assert torch.equal(ours, theirs)
    assert all(torch.equal(value, before[name]) for name, value in detector.bev_branch.state_dict().items())


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    for wrong in (student(neck_channels=64), student(neck_blocks=2), student(neck_blocks=0)):
        with pytest.raises(WeightsError, match="neck_channels and neck_blocks"):
            load_neck_weights(wrong, "dualview-tiny")
    with pytest.raises(WeightsError, match="dualview models"):
        load_neck_weights(student(), "nonsense")
    with pytest.raises(WeightsError, match="has no feature pyramid"):
        load_neck_weights(student(), "centerpoint-coarse")
    with pytest.raises(ConfigError, match="leave neck_weights out"):
        load_neck_weights(build_detector(preset_config("centerpoint-tiny")), "dualview-tiny")
