"""dualview: tracked 3D boxes and bird's-eye-view maps from the cameras of a vehicle."""

from __future__ import annotations

from collections.abc import Mapping
from pkgutil import extend_path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from dualview.detectors.detector import Detector

# In a development environment the generated dualview.msg lies in site-packages and everything else in this checkout: one package in
# two places. Where all is installed in one place this adds nothing.
__path__ = extend_path(__path__, __name__)
__version__ = "0.1.0"


def load(
    name_or_path: str | Path,
    device: str = "auto",
    seed: int = 0,
    overrides: Mapping[str, Any] | None = None,
    precision: str = "fp32",
) -> Detector:
    """A detector, ready for `step`: a preset's name ("dualview-tiny"), a name in models/, or a path to a .safetensors file.

    device: "auto" (the GPU if there is one), "cpu" or "cuda". A preset without a checkpoint gets random weights that only `seed`
    decides; `detector.weights_description` says so. overrides: config fields by dotted path, such as
    {"track_threshold": 0.1}. precision: "fp32", "bf16", or "auto", which takes bfloat16 where the CPU has instructions for it.

    Raises dualview.errors.WeightsError for a file that is missing or doesn't fit, ConfigError for an unknown name or field.
    """
    # Imports torch and the networks: only when asked for.
    from dualview.detectors.checkpoint import load_detector

    return load_detector(name_or_path, device, seed, overrides, precision)
