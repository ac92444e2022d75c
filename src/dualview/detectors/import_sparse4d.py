"""Published Sparse4Dv3 checkpoints into ours: which of its 819 names is which of our parameters."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dualview.errors import ConfigError, WeightsError
from dualview.networks.anchor_encoder import AnchorEncoderConfig
from dualview.networks.decoder_config import DecoderConfig
from dualview.networks.reference_quirks import ReferenceQuirks

# (pattern of the published name, our name); the first that matches the whole name counts.
_IMAGE_ENCODER = (
    (r"img_backbone\.(.+)", r"image_backbone.body.\1"),
    (r"img_neck\.lateral_convs\.(\d+)\.conv\.(.+)", r"feature_pyramid.lateral.\1.\2"),
    (r"img_neck\.fpn_convs\.(\d+)\.conv\.(.+)", r"feature_pyramid.output.\1.\2"),
    (r"depth_branch\.depth_layers\.(\d+)\.(.+)", r"dense_depth.layers.\1.\2"),
)


def image_encoder_name(published: str) -> str | None:
    """Our name of a parameter of the backbone, the neck or the depth branch; None if it belongs to something else."""
    for pattern, ours in _IMAGE_ENCODER:
        if match := re.fullmatch(pattern, published):
            return match.expand(ours)
    return None


# Inside one module of the head: (start of the published name, start of ours).
ENCODER_NAMES = {
    "pos_fc": "position", "size_fc": "size", "yaw_fc": "heading", "vel_fc": "velocity", "output_fc": "output",
}  # fmt: skip
KEYPOINT_NAMES = {"fix_scale": "fixed_offsets", "learnable_fc": "learned_offsets"}
AGGREGATION_NAMES = {
    "camera_encoder": "camera_encoder", "kps_generator.fix_scale": "keypoints.fixed_offsets",
    "kps_generator.learnable_fc": "keypoints.learned_offsets", "weights_fc": "weights", "output_proj": "output_projection",
}  # fmt: skip
ATTENTION_NAMES = {"attn": "attention"}
FEED_FORWARD_NAMES = {"pre_norm": "norm", "layers.0.0": "expand", "layers.1": "contract", "identity_fc": "identity"}
REFINEMENT_NAMES = {"layers": "box", "cls_layers": "classes", "quality_layers": "quality"}

# Operation -> (our module in a decoder layer, names inside). The place of a "norm" depends on what it follows.
_OPERATIONS = {
    "temp_gnn": ("temporal_attention", ATTENTION_NAMES),
    "gnn": ("self_attention", ATTENTION_NAMES),
    "deformable_bev": ("bev_aggregation", AGGREGATION_NAMES),
    "deformable": ("perspective_aggregation", AGGREGATION_NAMES),
    "ffn": ("feed_forward", FEED_FORWARD_NAMES),
    "refine": ("refinement", REFINEMENT_NAMES),
}
_NORM_AFTER = {"gnn": "attention_norm", "deformable_bev": "bev_norm", "ffn": "output_norm"}

_HEAD_NAMES = {
    "instance_bank.anchor": "initial_anchors", "instance_bank.instance_feature": "initial_features",
    "fc_before.weight": "shared_projections.before.weight", "fc_after.weight": "shared_projections.after.weight",
}  # fmt: skip
HEAD_NAMES_WITHOUT_USE = {
    "instance_bank.anchor_handler.fix_scale": "the instance bank only projects anchors and has no keypoints of its own",
}


def rename_start(name: str, starts: dict[str, str]) -> str | None:
    """`name` with the dotted start that `starts` knows replaced; None if it knows none."""
    for published, ours in starts.items():
        if name == published or name.startswith(published + "."):
            return ours + name[len(published) :]
    return None


def map_head_keys(published: Iterable[str], operation_order: Sequence[str], prefix: str = "head.") -> dict[str, str]:
    """Published name -> name in our `Decoder`, for every key under `prefix` that has a use.

    operation_order: the parts of all layers, as in the published config or `DecoderConfig.operation_order`. Keys of
    `HEAD_NAMES_WITHOUT_USE` are left out. Raises WeightsError with the names that fit nowhere.
    """
    places = _layer_places(operation_order)
    mapping: dict[str, str] = {}
    unknown: list[str] = []
    for key in published:
        if not key.startswith(prefix):
            continue
        name = key[len(prefix) :]
        if name in HEAD_NAMES_WITHOUT_USE:
            continue
        ours = _HEAD_NAMES.get(name) or _layer_name(name, places)
        if name.startswith("anchor_encoder."):
            inner = rename_start(name.removeprefix("anchor_encoder."), ENCODER_NAMES)
            ours = inner and f"anchor_encoder.{inner}"
        if ours:
            mapping[key] = ours
        else:
            unknown.append(key)
    if unknown:
        raise WeightsError(
            f"{len(unknown)} published head parameters have no place in this decoder: {', '.join(unknown[:8])}"
            f"{' …' if len(unknown) > 8 else ''}; check that the operation order is the checkpoint's own"
        )
    return mapping


def _layer_places(operation_order: Sequence[str]) -> list[tuple[str, dict[str, str] | None]]:
    """For every published layer index: our module's name, and the names inside (None = unchanged)."""
    places: list[tuple[str, dict[str, str] | None]] = []
    layer, previous = 0, ""
    for operation in operation_order:
        if operation == "norm":
            places.append((f"layers.{layer}.{_NORM_AFTER.get(previous, 'output_norm')}", None))
        else:
            module, names = _OPERATIONS[operation]
            places.append((f"layers.{layer}.{module}", names))
        previous = operation
        layer += operation == "refine"
    return places


def _layer_name(name: str, places: list[tuple[str, dict[str, str] | None]]) -> str | None:
    match = re.fullmatch(r"layers\.(\d+)\.(.+)", name)
    if match is None or int(match[1]) >= len(places):
        return None
    module, names = places[int(match[1])]
    inner = match[2] if names is None else rename_start(match[2], names)
    return inner and f"{module}.{inner}"


def decoder_config(head: Mapping[str, Any], quirks: ReferenceQuirks) -> DecoderConfig:
    """Our configuration of a published head, from its config (`Sparse4DHead`'s constructor arguments).

    Raises ConfigError if its operation order is not one that our decoder has.
    """
    bank, encoder, refine = head["instance_bank"], head["anchor_encoder"], head["refine_layer"]
    views, order = head["deformable_model"], tuple(head["operation_order"])
    layers = order.count("refine")
    config = DecoderConfig(
        class_count=refine.get("num_cls", 10),
        embed_dims=views["embed_dims"],
        num_groups=views["num_groups"],
        num_levels=views["num_levels"],
        num_anchors=bank["num_anchor"],
        num_temporal=bank["num_temp_instances"],
        num_layers=layers,
        num_single_frame_layers=head["num_single_frame_decoder"],
        feedforward_dims=head["ffn"]["feedforward_channels"],
        attention_heads=head["graph_model"]["num_heads"],
        decouple_attention=head["decouple_attn"],
        anchor_encoder=encoder_config(encoder),
        fixed_keypoints=tuple(tuple(map(float, p)) for p in views["kps_generator"]["fix_scale"]),
        learned_keypoints=views["kps_generator"]["num_learnable_pts"],
        use_bev="deformable_bev" in order,
        perspective_residual=views["residual_mode"],
        camera_embedding=views["use_camera_embed"],
        camera_count=views["num_cams"],
        refine_yaw=refine.get("refine_yaw", False),
        normalize_yaw=refine.get("normalize_yaw", False),
        with_quality=refine.get("with_quality_estimation", False),
        attention_dropout=head["graph_model"]["dropout"],
        feedforward_dropout=head["ffn"]["ffn_drop"],
        point_dropout=views["attn_drop"],
        default_interval=bank.get("default_time_interval", 0.5),
        max_interval=bank.get("max_time_interval", 2.0),
        confidence_decay=bank["confidence_decay"],
        id_threshold=head["decoder"].get("score_threshold"),
        quirks=quirks,
    )
    if config.operation_order != order:
        raise ConfigError(f"this head's order of operations is not one of ours: {order}; expected {config.operation_order}")
    return config


def encoder_config(encoder: Mapping[str, Any]) -> AnchorEncoderConfig:
    """Our configuration of a published `SparseBox3DEncoder`."""
    dims = encoder["embed_dims"]
    return AnchorEncoderConfig(
        dims=tuple(dims) if isinstance(dims, list | tuple) else (dims,) * 4,
        mode=encoder["mode"],
        velocity_components=encoder["vel_dims"],
        output_layer=encoder["output_fc"],
        in_loops=encoder["in_loops"],
        out_loops=encoder["out_loops"],
    )
