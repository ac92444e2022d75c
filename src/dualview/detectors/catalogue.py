"""What there is to load by name, without loading any of it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from safetensors import safe_open

from dualview.detectors.checkpoint import CONFIG_KEY, read_metadata, sha256_of, shipped_checkpoints
from dualview.detectors.detector import Settings
from dualview.detectors.presets import PRESETS
from dualview.detectors.systems import make_detector, settings_from_json
from dualview.errors import ConfigError, WeightsError


@dataclass(frozen=True)
class CatalogueEntry:
    """name: for `dualview.load`; parameters: how many numbers; image_size: (height, width) px; weights: file
    and hash, or none.
    """

    name: str
    parameters: int
    image_size: tuple[int, int]
    weights: str
    summary: str


def catalogue() -> list[CatalogueEntry]:
    """Every preset, in order, then every checkpoint in the models folders that isn't a preset's."""
    shipped = shipped_checkpoints()
    entries = []
    for preset in PRESETS.values():
        config = preset.build()
        weights = "no weights yet: loads untrained"
        if preset.name in shipped:
            path = shipped.pop(preset.name)
            weights = f"{path.name} sha256 {sha256_of(path)[:16]}"
        entries.append(
            CatalogueEntry(preset.name, count_parameters(config), config.image_size, weights, preset.summary)
        )
    for name, path in shipped.items():
        weights = f"{path.name} sha256 {sha256_of(path)[:16]}"
        try:
            config = settings_from_json(read_metadata(path).get(CONFIG_KEY, "{}"))
            with safe_open(str(path), "pt") as file:
                count = sum(torch.Size(file.get_slice(key).get_shape()).numel() for key in file.keys())
            entries.append(
                CatalogueEntry(name, count, config.image_size, weights, f"checkpoint of {config.name}")
            )
        except (ConfigError, WeightsError) as error:
            entries.append(CatalogueEntry(name, 0, (0, 0), weights, f"can't be loaded: {error}"))
    return entries


def count_parameters(config: Settings) -> int:
    """Learnable numbers of a detector; its weights are never made."""
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in make_detector(config).parameters())
