"""Which network belongs to which configuration: the one list of the systems that can be built, saved and loaded."""

from __future__ import annotations

import json
from typing import Any, cast

from torch import Tensor

from dualview.detectors.bevdet import BevDet
from dualview.detectors.bevdet_config import BevDetConfig
from dualview.detectors.bevformer import BevFormer
from dualview.detectors.bevformer_config import BevFormerDetectorConfig
from dualview.detectors.centerpoint import CenterPoint
from dualview.detectors.centerpoint_config import CenterPointConfig
from dualview.detectors.config import DetectorConfig
from dualview.detectors.detector import Detector, Settings
from dualview.detectors.dual_view import DualView
from dualview.detectors.json_config import from_dict
from dualview.errors import ConfigError

# Configuration class -> network. The configuration's `format` says in its JSON which class it is.
SYSTEMS: dict[type, type[Detector]] = {
    DetectorConfig: DualView,
    BevDetConfig: BevDet,
    BevFormerDetectorConfig: BevFormer,
    CenterPointConfig: CenterPoint,
}
_DEFAULT_FORMAT = "dualview-detector-1"


def make_detector(config: Settings, anchors: Tensor | None = None) -> Detector:
    """The network of a configuration, with random weights. anchors [N, 11]: for detectors with a decoder."""
    network = cast(Any, SYSTEMS[type(config)])
    return network(config, anchors) if anchors is not None else network(config)


def settings_from_json(text: str) -> Settings:
    """The configuration that `Settings.to_json` wrote. Raises ConfigError, naming the wrong key and the one that was
    likely meant, or the format that isn't known.
    """
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        raise ConfigError(f"a detector's config isn't JSON: {error}") from error
    kind = values.get("format", _DEFAULT_FORMAT) if isinstance(values, dict) else _DEFAULT_FORMAT
    known = {cast(Any, system).__dataclass_fields__["format"].default: system for system in SYSTEMS}
    if kind not in known:
        raise ConfigError(f"a detector of the format '{kind}' isn't known here: known are {', '.join(known)}")
    return cast(Settings, from_dict(known[kind], values))


def bev_channels(config: Settings) -> int | None:
    """Channels of the BEV map in a detector's prediction; None if it has no map."""
    if isinstance(config, DetectorConfig):
        return None if config.bev is None else config.decoder.embed_dims
    if isinstance(config, BevDetConfig):
        return config.bev.out_channels
    if isinstance(config, BevFormerDetectorConfig):
        return config.network.embed_dims
    assert isinstance(config, CenterPointConfig)
    return sum(config.branch.pyramid_channels)
