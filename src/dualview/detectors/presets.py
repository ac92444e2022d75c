"""The detectors that come by name. A preset is a configuration; weights are files (see checkpoint.py)."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass, replace

from dualview.detectors.config import NUSCENES_CAMERAS, BackboneConfig, DetectorConfig
from dualview.errors import ConfigError
from dualview.geometry.bev_grid import BevGrid
from dualview.networks.anchor_encoder import AnchorEncoderConfig
from dualview.networks.bev_branch import BevBranchConfig
from dualview.networks.decoder_config import DecoderConfig
from dualview.networks.lift_splat import DepthBins


@dataclass(frozen=True)
class Preset:
    """A name, a line about it, and how to make its configuration."""

    name: str
    summary: str
    build: Callable[[], DetectorConfig]


def _tiny() -> DetectorConfig:
    return DetectorConfig(
        name="dualview-tiny",
        image_size=(128, 352),
        backbone=BackboneConfig("efficientnet_lite0", (8, 16, 32)),
        bev=BevBranchConfig(
            grid=BevGrid.centered(51.2, 1.6),
            depth_bins=DepthBins(1.0, 55.0, 1.0),
            image_stride=16,
            depth_channels=64,
            depth_blocks=1,
            pooled_context=False,
            deformable=False,
            context_channels=64,
            preprocess_blocks=0,
            encoder_channels=(64, 96, 128),
            encoder_blocks=(1, 1, 1),
        ),
        dense_depth_levels=3,
        decoder=DecoderConfig(
            embed_dims=128,
            num_levels=3,
            num_anchors=256,
            num_temporal=160,
            num_layers=4,
            feedforward_dims=256,
            anchor_encoder=AnchorEncoderConfig((64, 16, 16, 32)),
        ),
        camera_names=NUSCENES_CAMERAS,
    )


def _r50() -> DetectorConfig:
    return DetectorConfig(name="dualview-r50", camera_names=NUSCENES_CAMERAS)


def _sized(name: str, backbone: str, image_size: tuple[int, int]) -> DetectorConfig:
    return replace(_r50(), name=name, backbone=BackboneConfig(backbone), image_size=image_size)


def _perspective_only(config: DetectorConfig, name: str) -> DetectorConfig:
    return replace(config, name=name, bev=None, decoder=replace(config.decoder, use_bev=False))


def _bev_only(config: DetectorConfig, name: str) -> DetectorConfig:
    return replace(config, name=name, decoder=replace(config.decoder, use_perspective=False))


PRESETS: dict[str, Preset] = {
    preset.name: preset
    for preset in (
        Preset("dualview-tiny", "BEV + perspective, EfficientNet-Lite0, for CPUs and small computers", _tiny),
        Preset("dualview-r50", "BEV + perspective, ResNet-50 (DualViewDistill)", _r50),
        Preset(
            "dualview-r101",
            "BEV + perspective, ResNet-101",
            lambda: _sized("dualview-r101", "resnet101", (512, 1408)),
        ),
        Preset(
            "dualview-v2-99",
            "BEV + perspective, VoVNet-99",
            lambda: _sized("dualview-v2-99", "ese_vovnet99b", (640, 1600)),
        ),
        Preset(
            "sparse4d-r50",
            "perspective only, ResNet-50: Sparse4Dv3 as published",
            lambda: _perspective_only(_r50(), "sparse4d-r50"),
        ),
        Preset(
            "sparse4d-tiny",
            "perspective only, EfficientNet-Lite0",
            lambda: _perspective_only(_tiny(), "sparse4d-tiny"),
        ),
        Preset("dualview-r50-bev", "BEV only, ResNet-50", lambda: _bev_only(_r50(), "dualview-r50-bev")),
        Preset(
            "dualview-tiny-bev",
            "BEV only, EfficientNet-Lite0",
            lambda: _bev_only(_tiny(), "dualview-tiny-bev"),
        ),
    )
}


def preset_config(name: str) -> DetectorConfig:
    """The configuration of a preset. Raises ConfigError with the close or known names for a name that isn't
    one.
    """
    if name not in PRESETS:
        close = difflib.get_close_matches(name, PRESETS, n=1)
        meant = f"did you mean '{close[0]}'?" if close else f"presets are {', '.join(PRESETS)}"
        raise ConfigError(f"there is no preset '{name}': {meant}")
    return PRESETS[name].build()
