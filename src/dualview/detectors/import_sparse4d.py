"""Published Sparse4Dv3 checkpoints into ours: which of its 819 names is which of our parameters."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from dualview.detectors.checkpoint import build_detector
from dualview.detectors.config import DetectorConfig
from dualview.detectors.dual_view import DualView
from dualview.detectors.presets import preset_config
from dualview.detectors.settings_base import Matrix4
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
    """Our name of a parameter of the backbone, the neck or the depth branch; None if it belongs to something
    else."""
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
    "kps_generator.learnable_fc": "keypoints.learned_offsets", "weights_fc": "weights",
    "output_proj": "output_projection",
}  # fmt: skip
ATTENTION_NAMES = {"attn": "attention"}
FEED_FORWARD_NAMES = {
    "pre_norm": "norm",
    "layers.0.0": "expand",
    "layers.1": "contract",
    "identity_fc": "identity",
}
REFINEMENT_NAMES = {"layers": "box", "cls_layers": "classes", "quality_layers": "quality"}

# Operation -> (our module in a decoder layer, names inside). The place of a "norm" depends on what it
# follows.
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
    "fc_before.weight": "shared_projections.before.weight",
    "fc_after.weight": "shared_projections.after.weight",
}  # fmt: skip
HEAD_NAMES_WITHOUT_USE = {
    "instance_bank.anchor_handler.fix_scale": "the bank only projects anchors and has no keypoints of its own",
}


def rename_start(name: str, starts: dict[str, str]) -> str | None:
    """`name` with the dotted start that `starts` knows replaced; None if it knows none."""
    for published, ours in starts.items():
        if name == published or name.startswith(published + "."):
            return ours + name[len(published) :]
    return None


def map_head_keys(
    published: Iterable[str], operation_order: Sequence[str], prefix: str = "head."
) -> dict[str, str]:
    """Published name -> name in our `Decoder`, for every key under `prefix` that has a use.

    operation_order: the parts of all layers, as in the published config or `DecoderConfig.operation_order`.
    Keys of `HEAD_NAMES_WITHOUT_USE` are left out. Raises WeightsError with the names that fit nowhere.
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
            f"{len(unknown)} published head parameters have no place in this decoder: "
            f"{', '.join(unknown[:8])}"
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
        fixed_keypoints=tuple(
            (float(x), float(y), float(z)) for x, y, z in views["kps_generator"]["fix_scale"]
        ),
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
        raise ConfigError(
            f"this head's order of operations is not one of ours: {order}; expected {config.operation_order}"
        )
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


# nuScenes' LIDAR_TOP (x right, y forward, z up, 1.84 m above the ground) from its ego frame: the frame that
# published weights think in. The calibrated tilt of the individual vehicle (below one degree) is left out.
LIDAR_TOP_FROM_EGO: Matrix4 = (
    (0.0, -1.0, 0.0, 0.0),
    (1.0, 0.0, 0.0, -0.943713),
    (0.0, 0.0, 1.0, -1.84023),
    (0.0, 0.0, 0.0, 1.0),
)


@dataclass(frozen=True)
class ImportReport:
    """used: published name -> our name; dropped: published name -> why it has no use."""

    used: dict[str, str]
    dropped: dict[str, str]


def published_config() -> DetectorConfig:
    """The detector that the published ResNet-50 checkpoint is, with the behaviour that its weights were
    trained with."""
    config = preset_config("sparse4d-r50")
    assert isinstance(config, DetectorConfig)
    decoder = replace(config.decoder, quirks=ReferenceQuirks.reference_compatible())
    return replace(config, decoder=decoder, working_from_ego=LIDAR_TOP_FROM_EGO)


def map_keys(published: Iterable[str], config: DetectorConfig) -> ImportReport:
    """Where every published key goes. Raises WeightsError naming all keys that are neither used nor known to
    be useless."""
    published = list(published)
    head = [key for key in published if key.startswith("head.")]
    used = {
        key: f"decoder.{ours}" for key, ours in map_head_keys(head, config.decoder.operation_order).items()
    }
    dropped = {
        f"head.{name}": why for name, why in HEAD_NAMES_WITHOUT_USE.items() if f"head.{name}" in published
    }
    unknown = []
    for key in published:
        if key in used or key in dropped:
            continue
        ours = image_encoder_name(key)
        if ours is None:
            unknown.append(key)
        else:
            used[key] = ours
    if unknown:
        raise WeightsError(
            f"{len(unknown)} keys of the checkpoint are unknown: {_listed(unknown)}; "
            "is it a Sparse4Dv3 checkpoint?"
        )
    return ImportReport(used, dropped)


def import_sparse4dv3(
    published: Mapping[str, Tensor], config: DetectorConfig | None = None
) -> tuple[DualView, ImportReport]:
    """A detector with the weights of a published Sparse4Dv3 state_dict, and what became of every key.

    config: of the detector; the published ResNet-50 one if None. A prefix `module.` on all keys is taken off.

    Raises WeightsError naming all keys that are unknown, missing, or of another shape than the network's.
    """
    if published and all(key.startswith("module.") for key in published):
        published = {key.removeprefix("module."): value for key, value in published.items()}
    config = published_config() if config is None else config
    report = map_keys(published, config)
    detector = build_detector(config)
    assert isinstance(detector, DualView)
    wanted = detector.state_dict()
    misshapen = [
        f"{key} is {list(published[key].shape)}, should be {list(wanted[ours].shape)}"
        for key, ours in report.used.items()
        if ours in wanted and published[key].shape != wanted[ours].shape
    ]
    if misshapen:
        raise WeightsError(f"{len(misshapen)} weights don't fit {config.name}: {_listed(misshapen, '; ')}")
    homeless = [key for key, ours in report.used.items() if ours not in wanted]
    if homeless:
        raise WeightsError(f"{len(homeless)} keys have no place in {config.name}: {_listed(homeless)}")
    missing = [name for name in wanted if name not in set(report.used.values())]
    if missing:
        raise WeightsError(f"the checkpoint lacks {len(missing)} weights (by our names): {_listed(missing)}")
    detector.load_state_dict({ours: published[key] for key, ours in report.used.items()}, strict=True)
    return detector, report


def _listed(names: Sequence[str], separator: str = ", ") -> str:
    shown = separator.join(names[:12])
    return f"{shown} and {len(names) - 12} more" if len(names) > 12 else shown
