"""All losses of one training step: instances, denoising, quality, depth of both kinds, centre head."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from dualview.detectors.bevformer_config import BevFormerDetectorConfig
from dualview.detectors.detector import Settings
from dualview.detectors.prediction import Prediction
from dualview.geometry.bev_grid import BevGrid
from dualview.networks.reference_quirks import ReferenceQuirks
from dualview.supervision.center_targets import CenterLossConfig, center_losses, center_targets
from dualview.supervision.denoising import DenoisingTargets
from dualview.supervision.depth_loss import dense_depth_loss, depth_distribution_loss, depth_target
from dualview.supervision.detection_loss import (
    DetectionLossConfig,
    average_count,
    denoising_losses,
    layer_losses,
)
from dualview.supervision.ground_truth import GroundTruth
from dualview.supervision.matching import Matches, MatchingConfig, match
from dualview.supervision.query_loss import query_loss
from dualview.training.recipe_settings import LossSettings
from dualview.training.stream_state import map_tensors

# Sparse4Dv3's weights of a cone's ten numbers: turned about its axis it is the same cone, and only its place
# matters much.
_WITHOUT_HEADING = (2.0, 2.0, 2.0, 1.0, 1.0, 1.0, 0.0, 0.0, 1.0, 1.0)

# nuScenes' barriers; of Argoverse 2, the classes for which the published configuration allows reversed headings
_WITHOUT_FRONT = ("barrier", "BOLLARD", "CONSTRUCTION_CONE", "CONSTRUCTION_BARREL")


@dataclass(frozen=True)
class LossPlan:
    """The losses that a detector gets, worked out once. reach: the grid beside which no instance can be (None: anywhere)."""

    detector: Settings
    settings: LossSettings
    detection: DetectionLossConfig
    center: CenterLossConfig
    reach: BevGrid | None = None

    @staticmethod
    def of(detector: Settings, settings: LossSettings) -> LossPlan:
        """By class name: cones have no heading, barriers no front."""
        names = detector.class_names
        cones = {names.index("traffic_cone"): _WITHOUT_HEADING} if "traffic_cone" in names else {}
        barriers = tuple(names.index(name) for name in _WITHOUT_FRONT if name in names)
        quirks = ReferenceQuirks() if detector.decoder is None else detector.decoder.quirks
        matching = MatchingConfig(
            class_dimension_weights=cones if settings.cones_without_heading else {},
            unmatchable_nan_boxes=quirks.unmatchable_nan_boxes,
        )
        detection = DetectionLossConfig(
            matching=matching,
            attached_centerness_target=quirks.attached_centerness_target,
            class_threshold=settings.box_threshold,
            reversible_classes=barriers if settings.reversible_barriers else (),
        )
        reach = None
        if isinstance(detector, BevFormerDetectorConfig):  # whose queries can't leave the map
            detection, reach = query_loss(detection), detector.bev_grid
        return LossPlan(
            detector,
            settings,
            detection,
            CenterLossConfig(
                heatmap_weight=settings.heatmap,
                box_weight=settings.center_box,
                dimension_weights=(*(1.0,) * 8, settings.center_velocity, settings.center_velocity),
            ),
            reach,
        )

    def losses(
        self,
        prediction: Prediction,
        truths: Sequence[GroundTruth],
        depth: Tensor,
        denoising: tuple[DenoisingTargets, DenoisingTargets] | None = None,
        boxed: Sequence[bool] = (),
    ) -> dict[str, Tensor]:
        """Loss terms by name, weighted, to be summed.

        depth [B, N, H, W] m, 0 = unknown. denoising: targets of the single-frame layers and of the later
        ones. boxed: the samples whose boxes are known (empty: all); in the others, whose truths are empty, nothing is
        called background.
        """
        judged, known, factor = _only_boxed(prediction, truths, boxed)
        losses = _scaled(self._instances(judged, known), factor)
        losses |= self._denoising(prediction, denoising)  # no target of an unknown box is valid
        losses |= _scaled(self._center(judged, known), factor)
        return losses | self._depth(prediction, depth)

    def _denoising(
        self, prediction: Prediction, denoising: tuple[DenoisingTargets, DenoisingTargets] | None
    ) -> dict[str, Tensor]:
        single = self._single_frame_layers
        noisy = None if prediction.decoder is None else prediction.decoder.denoising
        if denoising is not None and noisy is not None:
            return denoising_losses(noisy.layers, *denoising, single, self.detection)
        if self.settings.denoising is not None and prediction.decoder is not None:
            for layer in prediction.decoder.layers:  # no box in this process: the others wait for its counts
                average_count(layer.anchors.new_zeros(()))
        return {}

    def _center(self, prediction: Prediction, truths: Sequence[GroundTruth]) -> dict[str, Tensor]:
        grid, head = self.detector.bev_grid, self.detector.center_head
        if not prediction.center or head is None or grid is None:
            return {}
        return center_losses(
            prediction.center, center_targets(truths, head.tasks, grid, self.center), self.center
        )

    def _instances(self, prediction: Prediction, truths: Sequence[GroundTruth]) -> dict[str, Tensor]:
        losses: dict[str, Tensor] = {}
        single = self._single_frame_layers
        layers = () if prediction.decoder is None else prediction.decoder.layers
        if self.reach is not None:
            truths = [truth.within(self.reach) for truth in truths]
        for index, layer in enumerate(layers):
            repeats = self.settings.one_to_many if index < single else 1
            assert layer.class_logits is not None  # every layer has them in training
            found = match_many(layer.class_logits, layer.anchors, truths, self.detection.matching, repeats)
            for name, value in layer_losses(layer, found, self.detection).items():
                losses[f"layer{index}/{name}"] = value
        return losses

    @property
    def _single_frame_layers(self) -> int:
        decoder = self.detector.decoder
        return 0 if decoder is None else decoder.num_single_frame_layers

    def _depth(self, prediction: Prediction, depth: Tensor) -> dict[str, Tensor]:
        losses = {}
        lift = self.detector.lift
        logits = None if prediction.bev is None else prediction.bev.depth_logits
        if logits is not None and lift is not None and self.settings.lift_depth > 0:
            target = depth_target(depth, lift.image_stride, lift.depth_bins)
            probability = logits.float().softmax(2)
            loss = depth_distribution_loss(probability, target, self.settings.lift_depth)
            losses["depth/lift"] = loss * _share(target.count)
        if prediction.dense_depth and self.settings.dense_depth > 0:
            limit, levels = self.settings.max_depth, len(prediction.dense_depth)
            total = depth.new_zeros(())
            for level, stride in zip(prediction.dense_depth, self.detector.pyramid_strides, strict=False):
                known = nearest_depth(depth.clamp(max=limit), stride)
                loss = dense_depth_loss([level], [known], limit, self.settings.dense_depth / levels)
                total = total + loss * _share((known > 0).sum())
            losses["depth/dense"] = total
        return losses


def _only_boxed(
    prediction: Prediction, truths: Sequence[GroundTruth], boxed: Sequence[bool]
) -> tuple[Prediction, Sequence[GroundTruth], float]:
    """What judges boxes, cut down to the samples whose boxes are known, and 1.

    Terms count over all processes, so a process without any such sample must count as well: it judges its first sample, whose truth is
    empty, and the factor is 0.
    """
    if not boxed or all(boxed):
        return prediction, truths, 1.0
    kept = [i for i, known in enumerate(boxed) if known]
    chosen = kept or [0]

    def samples(value: Any) -> Any:
        return map_tensors(value, lambda tensor: tensor[torch.tensor(chosen, device=tensor.device)])

    decoder = prediction.decoder
    if decoder is not None:
        decoder = replace(decoder, layers=samples(decoder.layers))
    judged = replace(prediction, decoder=decoder, center=samples(prediction.center))
    return judged, [truths[i] for i in chosen], 1.0 if kept else 0.0


def _scaled(losses: dict[str, Tensor], factor: float) -> dict[str, Tensor]:
    return losses if factor == 1.0 else {name: value * factor for name, value in losses.items()}


def _share(count: Tensor) -> Tensor:
    """Factor on a mean over `count` items of this process, so that the average over processes is the mean
    over all their items.
    """
    return count / average_count(count)


def match_many(
    class_logits: Tensor, states: Tensor, truths: Sequence[GroundTruth], config: MatchingConfig, repeats: int
) -> Matches:
    """Like `match`, but every box may be taken by up to `repeats` instances (one-to-many matching, H-DETR,
    arXiv 2207.13080).

    With fewer instances than copies, each box is still offered as often as there is room for all.
    """
    most = max((len(truth.labels) for truth in truths), default=0)
    repeats = max(1, min(repeats, class_logits.shape[1] // max(most, 1)))
    if repeats == 1:
        return match(class_logits, states, truths, config)
    copies = [
        GroundTruth(truth.boxes.repeat(repeats, 1), truth.labels.repeat(repeats), None) for truth in truths
    ]
    found = match(class_logits, states, copies, config)
    pairs = [
        (prediction, box % max(len(truth.labels), 1))
        for (prediction, box), truth in zip(found.pairs, truths, strict=True)
    ]
    return replace(found, pairs=pairs)


def nearest_depth(depth: Tensor, stride: int) -> Tensor:
    """The nearest return [..., H / stride, W / stride] in each patch of a depth map [..., H, W]; 0 = none."""
    *leading, height, width = depth.shape
    patches = depth.reshape(-1, height // stride, stride, width // stride, stride)
    nearest = torch.where(patches > 0, patches, torch.inf).amin((2, 4))
    return torch.where(nearest.isinf(), 0.0, nearest).view(*leading, height // stride, width // stride)
