"""From a golden Sparse4D case to our modules and inputs, driven by its config.json."""

from __future__ import annotations

import re

import torch
from golden import GoldenCase
from torch import Tensor, nn

from dualview.detectors.import_sparse4d import decoder_config, map_head_keys, rename_start
from dualview.networks.decoder import Decoder
from dualview.networks.instance_memory import MemorySettings
from dualview.networks.perspective_aggregation import CameraViews
from dualview.networks.reference_quirks import ReferenceQuirks


def load_part(module: nn.Module, case: GoldenCase, prefix: str, names: dict[str, str] | None) -> nn.Module:
    """`module` with the case's weights under `prefix`, strictly: nothing left over on either side."""
    published = {
        k.removeprefix(prefix + "."): v for k, v in case.weights.items() if k.startswith(prefix + ".")
    }
    ours = {k if names is None else rename_start(k, names): v for k, v in published.items()}
    assert None not in ours, f"names without a place under {prefix}: {sorted(published)}"
    module.load_state_dict(ours, strict=True)
    return module


def build_decoder(
    case: GoldenCase, quirks: ReferenceQuirks, weights: dict[str, Tensor] | None = None
) -> Decoder:
    """The decoder of a case's `head` config with its weights, strictly loaded."""
    weights = case.weights if weights is None else weights
    head = case.config["head"]
    decoder = Decoder(decoder_config(head, quirks))
    mapping = map_head_keys(weights, head["operation_order"])
    decoder.load_state_dict(
        {mapping[key]: value for key, value in weights.items() if key in mapping}, strict=True
    )
    return decoder


def memory_settings(bank: dict, threshold: float | None, quirks: ReferenceQuirks) -> MemorySettings:
    return MemorySettings(
        num_temporal=bank["num_temp_instances"],
        default_interval=bank["default_time_interval"],
        max_interval=bank["max_time_interval"],
        confidence_decay=bank["confidence_decay"],
        id_threshold=threshold,
        swapped_yaw=quirks.swapped_yaw,
        stale_history=quirks.stale_history,
    )


def of_frame(tensors: dict[str, Tensor], frame: int) -> dict[str, Tensor]:
    """The tensors of one frame, without their `frame{t}.`."""
    prefix = f"frame{frame}."
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def feature_maps(inputs: dict[str, Tensor], config: dict) -> list[Tensor]:
    """Feature maps by level, [B, V, C, h, w]."""
    levels = sorted(int(match[1]) for key in inputs if (match := re.fullmatch(r"feat_q\.(\d+)", key)))
    return [inputs[f"feat_q.{level}"].float() / config["feature_scale"] for level in levels]


def views_of(inputs: dict[str, Tensor], config: dict, features: list[Tensor] | None = None) -> CameraViews:
    height, width = config["image_hw"]
    assert torch.equal(
        inputs["image_wh"], torch.tensor([width, height]).expand_as(inputs["image_wh"]).float()
    )
    return CameraViews(
        feature_maps(inputs, config) if features is None else features,
        inputs["projection_mat"],
        (height, width),
    )
