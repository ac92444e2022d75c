"""Losses of 3D boxes against rectangles in the images ("2D supervised fine-tuning", section III): L = 2 focal + 0.75 L1 + 0.25 (1 - GIoU).

For any detector that gives boxes and class logits of each decoder layer: `ImageLayer.of_refined` takes DualView's and Sparse4D's, others
build an `ImageLayer` from decoded boxes. Every layer is matched and supervised on its own.

A query may be seen by two cameras: it is then matched in each independently, and its rectangle is supervised in each. It is one object, so
its class is supervised once: the class of its cheapest match, or background if no camera matched it. Not every unmatched query is
background, because rectangles don't cover everything that a 3D detector may know of. A query is background only

- if some labelled camera sees it well enough that the labelling rule would have labelled it (`VisibilityRule`),
- and no camera has it inside an ignored rectangle,
- and then only for the classes that all labelled cameras that see it were labelled for.

`background_weight` takes the trust in the labels' completeness back further. Queries that no labelled camera sees get no loss. Heading and
velocity are not supervised at all, hence the paper's joint training with 3D labels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from dualview.geometry.box_projection import ProjectedBoxes, generalized_iou, project_boxes, surface_depth
from dualview.networks.box_state import LOG_SIZE, decode_boxes
from dualview.networks.refinement import Refined
from dualview.supervision.detection_loss import average_count
from dualview.supervision.image_box_matching import (
    ImageBoxConfig,
    ImageBoxTruth,
    ImagePairs,
    best_queries,
    image_numbers,
    in_ignored,
    match_image,
    number_weights,
)

_LARGEST = math.log(100.0)  # m; larger boxes, which only a bad start predicts, would overflow


@dataclass(frozen=True)
class ImageLayer:
    """One decoder layer: boxes [B, N, >=7] (x, y, z of the gravity centre, length, width, height m, yaw rad, and if known velocity x, y
    m/s; working frame) and class logits [B, N, classes]."""

    boxes: Tensor
    class_logits: Tensor

    @staticmethod
    def of_refined(layer: Refined) -> ImageLayer:
        """DualView's and Sparse4D's layers. Raises ValueError for a layer that computed no classes."""
        states = layer.anchors.float()
        size = states[..., LOG_SIZE].clamp(max=_LARGEST)
        states = torch.cat([states[..., :3], size, states[..., 6:]], -1)
        return ImageLayer(decode_boxes(states), layer.computed_class_logits)


@dataclass(frozen=True)
class ImageMatches:
    """What one layer's queries must become.

    pairs: by sample and camera, None where the image isn't labelled. class_target int64 [B, N]: the class of matched queries, elsewhere the
    number of classes. class_weights [B, N, classes]: factors on the class loss (see the module's text).
    """

    pairs: list[list[ImagePairs | None]]
    class_target: Tensor
    class_weights: Tensor

    @property
    def matched(self) -> Tensor:
        """bool [B, N]: queries that some camera matched."""
        return self.class_target < self.class_weights.shape[-1]


Truths = Sequence[Sequence[ImageBoxTruth | None]]


def image_box_losses(
    layers: Sequence[ImageLayer],
    image_from_working: Tensor,
    image_size: tuple[int, int],
    truths: Truths,
    config: ImageBoxConfig | None = None,
    repeats: Sequence[int] = (),
) -> tuple[dict[str, Tensor], list[ImageMatches]]:
    """Loss terms "image{i}/class|box|giou" of all layers (weighted, to be summed) and every layer's matches.

    image_from_working [B, V, 4, 4]: as `DetectorInputs` has it (augmentation included). image_size: (height, width) px. truths: by sample
    and camera; None: this image has no 2D labels (which is not the same as labels that name no object) or is masked. repeats: by layer,
    how many queries may take one label (1 where it says nothing), as the layer's 3D matching does. Raises ValueError if truths and
    matrices don't fit together.
    """
    config = config or ImageBoxConfig()
    batch, cameras = image_from_working.shape[:2]
    if len(truths) != batch or any(len(sample) != cameras for sample in truths):
        raise ValueError(
            f"image_from_working is for {batch} samples with {cameras} cameras, truths for "
            f"{len(truths)} with {sorted({len(sample) for sample in truths})}: give one entry (or None) for each image"
        )
    losses: dict[str, Tensor] = {}
    matches = []
    for index, layer in enumerate(layers):
        boxes = _at_exposure(layer.boxes.float(), truths)
        projected = project_boxes(boxes, image_from_working.float(), image_size, config.projection)  # [B, V, N]
        if config.depth_of == "surface":
            depth = surface_depth(boxes, image_from_working.float(), config.projection.near)
            projected = replace(projected, depth=depth)
        times = repeats[index] if index < len(repeats) else 1
        found = match_images(layer, projected, image_size, truths, config, times)
        for name, value in _layer_losses(layer, projected, image_size[0], truths, found, config).items():
            losses[f"image{index}/{name}"] = value
        matches.append(found)
    return losses, matches


def _at_exposure(boxes: Tensor, truths: Truths) -> Tensor:
    """Boxes [B, V, N, >=7] where each camera saw them: moved by their velocity, which no rectangle teaches."""
    delays = boxes.new_tensor([[0.0 if truth is None else truth.delay for truth in sample] for sample in truths])
    boxes = boxes.unsqueeze(1).expand(-1, delays.shape[1], -1, -1)
    if boxes.shape[-1] < 9 or not bool(delays.any()):
        return boxes
    moved = boxes[..., :2] + boxes[..., 7:9].detach() * delays[..., None, None]
    return torch.cat([moved, boxes[..., 2:]], -1)


@torch.no_grad()
def match_images(
    layer: ImageLayer,
    projected: ProjectedBoxes,
    image_size: tuple[int, int],
    truths: Truths,
    config: ImageBoxConfig,
    repeats: int = 1,
) -> ImageMatches:
    """Match one layer in all images, and say which unmatched queries are background; projected [B, V, N]; repeats: see `match_image`."""
    logits = layer.class_logits.detach()
    batch, queries, classes = logits.shape
    labelled = torch.tensor([[t is not None for t in sample] for sample in truths], device=logits.device)
    seen = (projected.valid & labelled.unsqueeze(-1)).any(1)
    candidates = best_queries(logits, seen, config.max_candidates)
    large = config.visibility.large_enough(projected, image_size[1])
    class_target = torch.full((batch, queries), classes, dtype=torch.int64, device=logits.device)
    weights = torch.zeros(batch, queries, classes, device=logits.device)
    pairs: list[list[ImagePairs | None]] = []
    for b, sample in enumerate(truths):
        pairs.append([])
        cheapest = torch.full((queries,), math.inf, device=logits.device)
        would_be_labelled = torch.zeros(queries, dtype=torch.bool, device=logits.device)
        in_doubt = torch.zeros_like(would_be_labelled)
        known_classes = torch.ones(queries, classes, dtype=torch.bool, device=logits.device)
        for v, truth in enumerate(sample):
            if truth is None:
                pairs[b].append(None)
                continue
            here = ProjectedBoxes(
                *(getattr(projected, n)[b, v] for n in ("rectangles", "unclipped", "depth", "valid"))
            )
            found = match_image(logits[b], here, candidates[b] & here.valid, truth, image_size[0], config, repeats)
            pairs[b].append(found)
            cheaper = found.cost < cheapest[found.query]
            cheapest[found.query[cheaper]] = found.cost[cheaper]
            class_target[b, found.query[cheaper]] = truth.labels[found.label[cheaper]]
            would_be_labelled |= large[b, v]
            in_doubt |= here.valid & in_ignored(here.rectangles, truth, config.ignored_share)
            if truth.labelled_classes is not None:
                known_classes &= truth.labelled_classes | ~here.valid.unsqueeze(-1)
        matched = class_target[b] < classes
        background = would_be_labelled & ~in_doubt & ~matched
        weights[b] = torch.where(background.unsqueeze(-1) & known_classes, config.background_weight, 0.0)
        weights[b][matched] = 1.0
    return ImageMatches(pairs, class_target, weights)


def _layer_losses(
    layer: ImageLayer,
    projected: ProjectedBoxes,
    image_height: int,
    truths: Truths,
    matches: ImageMatches,
    config: ImageBoxConfig,
) -> dict[str, Tensor]:
    """Class loss by the number of matched queries; L1 and GIoU by the number of pairs (a query in two cameras makes two)."""
    logits = layer.class_logits.float()
    classes = weighted_focal_loss(
        logits, matches.class_target, matches.class_weights, config.focal_alpha, config.focal_gamma
    )
    box = giou = (
        projected.rectangles.sum() * 0.0
    )  # keeps the graph of every process alike where nothing matches
    count = logits.new_zeros(())
    for b, sample in enumerate(truths):
        for v, truth in enumerate(sample):
            pairs = matches.pairs[b][v]
            if truth is None or pairs is None or len(pairs.query) == 0:
                continue
            rectangles, depth = projected.rectangles[b, v, pairs.query], projected.depth[b, v, pairs.query]
            target, target_depth = truth.rectangles[pairs.label], truth.depth[pairs.label].nan_to_num(1.0)
            ours = image_numbers(rectangles, depth, image_height, config)
            theirs = image_numbers(target, target_depth, image_height, config)
            box = box + ((ours - theirs).abs() * number_weights(truth, config)[pairs.label]).sum()
            giou = giou + (1 - generalized_iou(rectangles, target)).sum()
            count = count + len(pairs.query)
    pair_count = average_count(count)
    return {
        "class": config.class_weight * classes / average_count(matches.matched.sum()),
        "box": config.box_weight * box / pair_count,
        "giou": config.giou_weight * giou / pair_count,
    }


def weighted_focal_loss(
    logits: Tensor, labels: Tensor, weights: Tensor, alpha: float, gamma: float
) -> Tensor:
    """Sum of the sigmoid focal loss (arXiv 1708.02002) with a weight for each logit: logits, weights [..., classes]; labels int64 [...],
    the number of classes = background."""
    target = F.one_hot(labels, logits.shape[-1] + 1)[..., :-1].to(logits.dtype)
    p = logits.sigmoid()
    missed = (1 - p) * target + p * (1 - target)
    factor = (alpha * target + (1 - alpha) * (1 - target)) * missed**gamma * weights
    return (F.binary_cross_entropy_with_logits(logits, target, reduction="none") * factor).sum()
