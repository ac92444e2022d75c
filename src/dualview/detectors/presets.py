"""The detectors that come by name. A preset is a configuration; weights are files (see checkpoint.py)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from dualview.detectors import bev_presets, bevformer_presets, lidar_presets
from dualview.detectors.config import ARGOVERSE2_CAMERAS, NUSCENES_CAMERAS, BackboneConfig, DetectorConfig
from dualview.detectors.detector import Settings
from dualview.detectors.greedy_tracker import GreedyTrackingConfig
from dualview.detectors.motion_filter import MotionFilterConfig
from dualview.detectors.oracle import OracleConfig
from dualview.errors import ConfigError, did_you_mean
from dualview.geometry.bev_grid import BevGrid
from dualview.networks.anchor_encoder import AnchorEncoderConfig
from dualview.networks.bev_branch import BevBranchConfig
from dualview.networks.bev_history import BevHistoryConfig
from dualview.networks.center_head import CenterHeadConfig
from dualview.networks.conditional_random_field_depth import DepthFieldConfig
from dualview.networks.decoder_config import DecoderConfig
from dualview.networks.lift_splat import DepthBins
from dualview.networks.perspective_refinement import PerspectiveRefinementConfig
from dualview.scene.class_maps import ARGOVERSE2_CLASSES


@dataclass(frozen=True)
class Preset:
    """A name, a line about it, and how to make its configuration."""

    name: str
    summary: str
    build: Callable[[], Settings]


def _tiny() -> DetectorConfig:
    return DetectorConfig(
        name="dualview-tiny",
        image_size=(224, 640),
        backbone=BackboneConfig("tf_efficientnet_lite0", (8, 16, 32)),
        neck_blocks=(1, 1),
        bev=BevBranchConfig(
            grid=BevGrid.centered(51.2, 0.8),
            depth_bins=DepthBins(1.0, 55.0, 1.0),
            image_stride=8,
            depth_channels=64,
            depth_blocks=2,
            pooled_context=False,
            deformable=False,
            ground_features=16,
            context_channels=64,
            preprocess_blocks=0,
            encoder_channels=(64, 96, 128),
            encoder_blocks=(1, 1, 1),
            history=BevHistoryConfig(frames=1, scales=2, interval=0.4, added=True, kept_per_interval=4),
        ),
        dense_depth_levels=3,
        center_head=CenterHeadConfig((tuple(range(10)),), branch_channels=32, proposals=144, evidence=True),
        decoder=DecoderConfig(
            embed_dims=128,
            num_levels=3,
            num_anchors=192,
            num_temporal=112,
            num_layers=3,
            feedforward_dims=256,
            attention_dropout=0.0,
            anchor_encoder=AnchorEncoderConfig((64, 16, 16, 32)),
            duplicate_distance=0.9,
        ),
        tracking=GreedyTrackingConfig(gate_scale=1.5, max_coast=2.1, motion=MotionFilterConfig(smoothing=0.5), persistence=4.0),
        camera_names=NUSCENES_CAMERAS,
    )


def _r50() -> DetectorConfig:
    return DetectorConfig(name="dualview-r50", camera_names=NUSCENES_CAMERAS)


def _sized(name: str, backbone: str, image_size: tuple[int, int]) -> DetectorConfig:
    return replace(_r50(), name=name, backbone=BackboneConfig(backbone), image_size=image_size)


def _perspective_only(config: DetectorConfig, name: str) -> DetectorConfig:
    without_bev = replace(config.decoder, use_bev=False)
    return replace(config, name=name, bev=None, center_head=None, decoder=without_bev)


def _bev_only(config: DetectorConfig, name: str) -> DetectorConfig:
    return replace(config, name=name, decoder=replace(config.decoder, use_perspective=False))


def _argoverse2(config: DetectorConfig, name: str, image_size: tuple[int, int]) -> DetectorConfig:
    """Argoverse 2's cameras, classes and reach: anchors to 152.4 m, of which those on the map (51.2 m) also read the map."""
    return replace(
        config,
        name=name,
        image_size=image_size,
        decoder=replace(config.decoder, class_count=len(ARGOVERSE2_CLASSES), anchor_range=152.4),
        class_names=ARGOVERSE2_CLASSES,
        camera_names=ARGOVERSE2_CAMERAS,
    )


def _argoverse2_r50() -> DetectorConfig:
    """DualViewDistill's sizes for Argoverse 2 (published configuration): the stride-16 level is lifted, 1800 anchors."""
    config = replace(
        _r50(),
        bev=BevBranchConfig(image_stride=16),
        decoder=DecoderConfig(num_anchors=1800, num_temporal=1200, class_count=len(ARGOVERSE2_CLASSES)),
        class_names=ARGOVERSE2_CLASSES,
        max_tracks=500,
    )
    return _argoverse2(config, "dualview-r50-argoverse2", (640, 960))


def _argoverse2_tiny() -> DetectorConfig:
    """The tiny detector for Argoverse 2; without the centre head, whose peaks would take anchors from far away."""
    tiny = _tiny()
    decoder = replace(tiny.decoder, num_anchors=384, num_temporal=224)
    config = replace(tiny, decoder=decoder, center_head=None)
    return _argoverse2(config, "dualview-tiny-argoverse2", (192, 288))


def _bevnext_r50() -> DetectorConfig:
    """BEVNeXt's sizes (arXiv 2312.01696) under the decoder of DualView."""
    bev = BevBranchConfig(
        deformable=False,
        context_deformable=True,
        context_channels=160,
        encoder_style="res2",
        encoder_channels=(320, 640, 1280),
        encoder_strides=(2, 2, 2),
        depth_field=DepthFieldConfig(),
        history=BevHistoryConfig(),
        refinement=PerspectiveRefinementConfig(),
    )
    return replace(_r50(), name="dualview-bevnext-r50", bev=bev)


def _bevnext_tiny() -> DetectorConfig:
    """The tiny detector with all of BEVNeXt's parts, each as light as it goes."""
    tiny = _tiny()
    assert tiny.bev is not None
    bev = replace(
        tiny.bev,
        depth_field=DepthFieldConfig(iterations=4),
        history=BevHistoryConfig(frames=5),
        refinement=PerspectiveRefinementConfig(heads=4, points=4, heights=4),
    )
    return replace(tiny, name="dualview-bevnext-tiny", bev=bev)


def _oracle(config: DetectorConfig, name: str, oracle: OracleConfig) -> DetectorConfig:
    return replace(config, name=name, oracle=oracle)


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
        Preset("bevdet-tiny", "BEVDet, EfficientNet-Lite0", bev_presets.bevdet_tiny),
        Preset("bevdet4d-tiny", "BEVDet4D: the last frame's map too, EfficientNet-Lite0", bev_presets.bevdet4d_tiny),
        Preset("bevdepth-tiny", "BEVDepth: supervised depth, EfficientNet-Lite0", bev_presets.bevdepth_tiny),
        Preset("bevdepth4d-tiny", "BEVDepth4D: both, EfficientNet-Lite0", bev_presets.bevdepth4d_tiny),
        Preset("bevdet-r50", "BEVDet, ResNet-50", bev_presets.bevdet_r50),
        Preset("bevdet4d-r50", "BEVDet4D, ResNet-50, two keyframes", bev_presets.bevdet4d_r50),
        Preset("bevdepth-r50", "BEVDepth, ResNet-50", bev_presets.bevdepth_r50),
        Preset("centerpoint-tiny", "LiDAR: CenterPoint, pillars of 0.4 m", lidar_presets.centerpoint_tiny),
        Preset("centerpoint-pillar", "LiDAR: CenterPoint, pillars of 0.2 m", lidar_presets.centerpoint_pillar),
        Preset("centerpoint-voxel", "LiDAR: CenterPoint, voxels of 0.1 m", lidar_presets.centerpoint_voxel),
        Preset("bevdepth4d-r50", "BEVDepth4D, ResNet-50, two keyframes", bev_presets.bevdepth4d_r50),
        Preset("bevformer-lite", "BEVFormer, EfficientNet-Lite0", bevformer_presets.bevformer_lite),
        Preset("bevformer-tiny", "BEVFormer-tiny as published, ResNet-50", bevformer_presets.bevformer_tiny),
        Preset(
            "dualview-r50-argoverse2",
            "BEV to 51.2 m + perspective to 150 m, ResNet-50, Argoverse 2's cameras and classes",
            _argoverse2_r50,
        ),
        Preset(
            "dualview-tiny-argoverse2",
            "the same for CPUs and small computers, EfficientNet-Lite0",
            _argoverse2_tiny,
        ),
        Preset(
            "dualview-bevnext-r50",
            "BEV + perspective, ResNet-50, BEVNeXt's branch: depth field, fused history, refinement",
            _bevnext_r50,
        ),
        Preset(
            "dualview-bevnext-tiny",
            "BEV + perspective, EfficientNet-Lite0, with BEVNeXt's parts",
            _bevnext_tiny,
        ),
        Preset(
            "dualview-tiny-oracle-lidar",
            "oracle: the tiny detector with a BEV map of LiDAR geometry",
            lambda: _oracle(_tiny(), "dualview-tiny-oracle-lidar", OracleConfig()),
        ),
        Preset(
            "dualview-tiny-oracle-maps",
            "oracle: the tiny detector with label maps of 64 channels for a BEV map",
            lambda: _oracle(_tiny(), "dualview-tiny-oracle-maps", OracleConfig(None, map_channels=64)),
        ),
    )
}


def preset_config(name: str) -> Settings:
    """The configuration of a preset. Raises ConfigError with the close or known names for a name that isn't
    one.
    """
    if name not in PRESETS:
        meant = did_you_mean(name, PRESETS, f"presets are {', '.join(PRESETS)}")
        raise ConfigError(f"there is no preset '{name}': {meant}")
    return PRESETS[name].build()
