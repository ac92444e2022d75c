"""Depth networks of the transformers library: DPT (arXiv 2103.13413), Depth Anything and others, by hub name or local folder."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from dualview.errors import ConfigError
from dualview.scene.depth_labels.depth_map import DepthMap, Kind
from dualview.scene.depth_labels.job import DepthRequest
from dualview.scene.depth_labels.store import DepthSource
from dualview.teachers.hub import open_pipeline

# Names that people use -> the hub's.
HUB_NAMES = {
    "dpt-hybrid": "Intel/dpt-hybrid-midas",
    "dpt-large": "Intel/dpt-large",
    "depth-anything-small": "depth-anything/Depth-Anything-V2-Small-hf",
    "depth-anything-base": "depth-anything/Depth-Anything-V2-Base-hf",
    "depth-anything-large": "depth-anything/Depth-Anything-V2-Large-hf",
    "depth-anything-metric-small": "depth-anything/Depth-Anything-V2-Metric-Outdoor-Small-hf",
    "depth-anything-metric-large": "depth-anything/Depth-Anything-V2-Metric-Outdoor-Large-hf",
    "zoedepth": "Intel/zoedepth-nyu-kitti",
}
# By transformers' model_type, what its number is; Depth Anything's configuration says it itself.
_KINDS: dict[str, Kind] = {"dpt": "inverse", "zoedepth": "metric", "depth_pro": "metric", "glpn": "metric"}


class TransformersDepth:
    """A depth network. kind: what its numbers are, if its configuration doesn't say. Raises WeightsError if it can't be had, ConfigError if
    nobody knows what its numbers are."""

    def __init__(self, model: str, device: str = "cpu", kind: Kind | None = None) -> None:
        self.model = model
        self._pipeline = open_pipeline("depth-estimation", HUB_NAMES.get(model, model), device)
        config = self._pipeline.model.config
        estimation = getattr(config, "depth_estimation_type", None)
        known: Kind | None = {"relative": "inverse", "metric": "metric"}.get(estimation or "") or _KINDS.get(
            config.model_type
        )  # type: ignore[assignment]
        if kind is None and known is None:
            raise ConfigError(
                f"it isn't known what the numbers of '{model}' ({config.model_type}) are: say --kind inverse or --kind metric"
            )
        self.kind: Kind = kind or known  # type: ignore[assignment]

    def source(self, width: int) -> DepthSource:
        """See `DepthEstimator`."""
        what = "m along the optical axis" if self.kind == "metric" else "relative inverse depth"
        return DepthSource(
            self.model, self.kind, f"{what}, by the network {HUB_NAMES.get(self.model, self.model)}", width
        )

    def __call__(self, requests: Sequence[DepthRequest]) -> list[DepthMap]:
        """See `DepthEstimator`."""
        images = [Image.fromarray(request.pixels) for request in requests]
        maps = []
        for result in self._pipeline(images, batch_size=len(images)):
            values = result["predicted_depth"].squeeze().float().cpu().numpy()
            if self.kind == "metric":
                values = np.where(values > 0, values, np.nan)
            maps.append(DepthMap(np.asarray(values, np.float32), self.kind))
        return maps
