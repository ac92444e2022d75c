"""The oracle: DualView whose BEV map is made of LiDAR or label maps of the present moment, not of images (DualViewDistill,
arXiv 2510.10287, Table XI). It trains and is scored like any detector.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from dualview.detectors.inputs import DetectorInputs
from dualview.errors import ConfigError
from dualview.scene.frame import SurroundFrame
from dualview.scene.sweeps import LidarInput


@dataclass(frozen=True)
class OracleConfig:
    """lidar: sweeps whose geometry is read, in `height_layers` of the grid's height (None: none). map_channels: of the
    label maps that are read (0: none). Both may be.
    """

    lidar: LidarInput | None = field(default_factory=lambda: LidarInput(sweeps=1))
    map_channels: int = 0
    height_layers: int = 8

    def __post_init__(self) -> None:
        if self.lidar is None and self.map_channels < 1:
            raise ValueError("an oracle must read something: give lidar, or map_channels above 0")
        if self.map_channels < 0 or self.height_layers < 1:
            raise ValueError("map_channels mustn't be negative, and height_layers must be at least 1")


def with_oracle_inputs(inputs: DetectorInputs, frame: SurroundFrame, config: OracleConfig) -> DetectorInputs:
    """The inputs of one frame with what the oracle reads. Raises ConfigError if the frame doesn't hold it."""
    if config.lidar is not None and frame.points is None:
        raise ConfigError(
            "this oracle reads LiDAR, and the frame holds no points: run it on recordings whose rig names lidar_topics "
            "(`dualview evaluate`)"
        )
    if config.map_channels and frame.label_map is None:
        raise ConfigError(
            "this oracle reads label maps, and the frame holds none: run `dualview evaluate` with --label-maps DIR"
        )
    device = inputs.images.device
    if config.lidar is not None and frame.points is not None:
        inputs = replace(inputs, points=(frame.points.to(device),))
    if config.map_channels and frame.label_map is not None:
        inputs = replace(inputs, label_map=frame.label_map[None].to(device))
    return inputs
