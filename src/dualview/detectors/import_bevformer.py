"""Published BEVFormer-tiny checkpoints into ours: which of their names is which of our parameters."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from dualview.detectors.bevformer import BevFormer
from dualview.detectors.bevformer_config import BevFormerDetectorConfig
from dualview.detectors.bevformer_presets import bevformer_tiny
from dualview.detectors.import_sparse4d import LIDAR_TOP_FROM_EGO, ImportReport, image_encoder_name
from dualview.errors import WeightsError
from dualview.geometry.bev_grid import BevGrid
from dualview.networks.bevformer_config import BevFormerQuirks

_ATTENTION = {
    "sampling_offsets": "offsets", "attention_weights": "weights", "value_proj": "value", "output_proj": "output",
}  # fmt: skip
_ENCODER_NORMS = {"0": "temporal_norm", "1": "camera_norm", "2": "output_norm"}
_DECODER_NORMS = {"0": "self_norm", "1": "bev_norm", "2": "output_norm"}
_FEED_FORWARD = {"0.0": "expand", "1": "contract"}
_MOTION = {"0": "first", "2": "second", "norm": "norm"}

_HEAD = {
    "bev_embedding.weight": "encoder.queries",
    "positional_encoding.row_embed.weight": "encoder.position.row",
    "positional_encoding.col_embed.weight": "encoder.position.column",
    "query_embedding.weight": "decoder.queries",
    "transformer.cams_embeds": "encoder.camera_embedding",
    "transformer.level_embeds": "encoder.level_embedding",
    "transformer.reference_points.weight": "decoder.reference.weight",
    "transformer.reference_points.bias": "decoder.reference.bias",
}
_WITHOUT_USE = {
    "pts_bbox_head.code_weights": "weights of the ten box numbers in the training loss; ours are the loss's settings",
}
_LEVELS = "pts_bbox_head.transformer.level_embeds"

# The published box branch gives (cx, cy, log width, log length, cz, log height, sin, cos, vx, vy) with the heading
# -yaw - 90 degrees, so sin yaw = -its cosine and cos yaw = -its sine. Ours gives box states (networks/box_state.py):
# row i of ours is this row of theirs, with this sign.
_BOX_ROWS = (0, 1, 4, 3, 2, 5, 7, 6, 8, 9)
_BOX_SIGNS = (1, 1, 1, 1, 1, 1, -1, -1, 1, 1)
_BOX_OUTPUT = re.compile(r"decoder\.box_branches\.\d+\.4\.(weight|bias)")


def our_name(published: str) -> str | None:
    """Our name of a published parameter; None if there is none."""
    if not published.startswith("pts_bbox_head."):
        return image_encoder_name(published)
    name = published.removeprefix("pts_bbox_head.")
    if name in _HEAD:
        return _HEAD[name]
    if match := re.fullmatch(r"(cls|reg)_branches\.(.+)", name):
        return f"decoder.{'class' if match[1] == 'cls' else 'box'}_branches.{match[2]}"
    if match := re.fullmatch(r"transformer\.can_bus_mlp\.(0|2|norm)\.(weight|bias)", name):
        return f"encoder.motion.{_MOTION[match[1]]}.{match[2]}"
    if match := re.fullmatch(r"transformer\.encoder\.layers\.(\d+)\.(.+)", name):
        inner = _encoder_name(match[2])
        return inner and f"encoder.layers.{match[1]}.{inner}"
    if match := re.fullmatch(r"transformer\.decoder\.layers\.(\d+)\.(.+)", name):
        inner = _decoder_name(match[2])
        return inner and f"decoder.layers.{match[1]}.{inner}"
    return None


def _encoder_name(name: str) -> str | None:
    if match := re.fullmatch(r"attentions\.0\.(\w+)\.(weight|bias)", name):
        return _inside("temporal_attention", _ATTENTION, match)
    if match := re.fullmatch(r"attentions\.1\.deformable_attention\.(\w+)\.(weight|bias)", name):
        return None if match[1] == "output_proj" else _inside("camera_attention", _ATTENTION, match)
    if match := re.fullmatch(r"attentions\.1\.(output_proj)\.(weight|bias)", name):
        return _inside("camera_attention", _ATTENTION, match)
    return _layer_rest(name, _ENCODER_NORMS)


def _decoder_name(name: str) -> str | None:
    if match := re.fullmatch(
        r"attentions\.0\.attn\.(in_proj_weight|in_proj_bias|out_proj\.weight|out_proj\.bias)", name
    ):
        return f"self_attention.{match[1]}"
    if match := re.fullmatch(r"attentions\.1\.(\w+)\.(weight|bias)", name):
        return _inside("bev_attention", _ATTENTION, match)
    return _layer_rest(name, _DECODER_NORMS)


def _layer_rest(name: str, norms: Mapping[str, str]) -> str | None:
    if match := re.fullmatch(r"norms\.(\d)\.(weight|bias)", name):
        place = norms.get(match[1])
        return place and f"{place}.{match[2]}"
    if match := re.fullmatch(r"ffns\.0\.layers\.(0\.0|1)\.(weight|bias)", name):
        return _inside("feed_forward", _FEED_FORWARD, match)
    return None


def _inside(module: str, names: Mapping[str, str], match: re.Match[str]) -> str | None:
    return f"{module}.{names[match[1]]}.{match[2]}" if match[1] in names else None


def map_keys(published: Iterable[str]) -> ImportReport:
    """Where every published key goes. Raises WeightsError naming all keys that are neither used nor known to be
    useless.
    """
    used, dropped, unknown = {}, {}, []
    for key in published:
        name = our_name(key)
        if key in _WITHOUT_USE:
            dropped[key] = _WITHOUT_USE[key]
        elif name is None:
            unknown.append(key)
        else:
            used[key] = name
    if unknown:
        raise WeightsError(
            f"{len(unknown)} keys of the checkpoint are unknown: {_listed(unknown)}; is it a BEVFormer-tiny checkpoint?"
        )
    return ImportReport(used, dropped)


def network_weights(published: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Published weights under our names, their box branches speaking our box states."""
    weights = {}
    for key, name in map_keys(published).used.items():
        value = published[key]
        if _BOX_OUTPUT.fullmatch(name):
            signs = torch.tensor(_BOX_SIGNS, dtype=value.dtype).view(-1, *[1] * (value.dim() - 1))
            value = value[list(_BOX_ROWS)] * signs
        weights[name] = value
    return weights


def published_config() -> BevFormerDetectorConfig:
    """The detector that the published checkpoint is, with the behaviour that its weights were trained with."""
    config = bevformer_tiny()
    grid = BevGrid.centered(51.2, 2.048)  # in the LiDAR's frame
    network = replace(config.network, grid=grid, quirks=BevFormerQuirks.reference_compatible())
    return replace(config, network=network, working_from_ego=LIDAR_TOP_FROM_EGO)


def import_bevformer(
    published: Mapping[str, Tensor], config: BevFormerDetectorConfig | None = None
) -> tuple[BevFormer, ImportReport]:
    """A detector with the weights of a published BEVFormer-tiny state_dict, and what became of every key.

    config: of the detector; the published one if None. A prefix `module.` on all keys is taken off. Embeddings
    of feature levels that the network doesn't have are cut off, and reported as dropped.

    Raises WeightsError naming all keys that are unknown, missing, or of another shape than the network's.
    """
    if published and all(key.startswith("module.") for key in published):
        published = {key.removeprefix("module."): value for key, value in published.items()}
    config = published_config() if config is None else config
    report = map_keys(published)
    dropped = dict(report.dropped)
    levels = config.network.num_levels
    if _LEVELS in published and published[_LEVELS].dim() == 2 and len(published[_LEVELS]) > levels:
        extra = len(published[_LEVELS]) - levels
        dropped[f"{_LEVELS}[{levels}:]"] = f"embeddings of {extra} levels that this network doesn't have"
        published = {**published, _LEVELS: published[_LEVELS][:levels]}
    detector = BevFormer(config)
    wanted = detector.state_dict()
    faults = [
        f"{key} is {list(published[key].shape)}, should be {list(wanted[ours].shape)}"
        for key, ours in report.used.items()
        if ours in wanted and published[key].shape != wanted[ours].shape
    ]
    if faults:
        raise WeightsError(f"{len(faults)} weights don't fit {config.name}: {_listed(faults, '; ')}")
    homeless = [key for key, ours in report.used.items() if ours not in wanted]
    if homeless:
        raise WeightsError(f"{len(homeless)} keys have no place in {config.name}: {_listed(homeless)}")
    missing = sorted(set(wanted) - set(report.used.values()))
    if missing:
        raise WeightsError(f"the checkpoint lacks {len(missing)} weights (by our names): {_listed(missing)}")
    detector.load_state_dict(network_weights(published), strict=True)
    return detector, ImportReport(report.used, dropped)


def _listed(names: Sequence[str], separator: str = ", ") -> str:
    shown = separator.join(names[:12])
    return f"{shown} and {len(names) - 12} more" if len(names) > 12 else shown
