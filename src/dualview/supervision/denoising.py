"""Denoising: noisy copies of the ground truth train the decoder to correct boxes, also across frames.

Sparse4Dv3 (arXiv 2311.11722), section 3.1, after DN-DETR (arXiv 2203.01305): several groups of noisy anchors,
each with a mildly and a strongly disturbed copy of every box. Some groups of a frame are remembered and
replace fresh ones after the next frame's single-frame layers, where they must find the same objects again.
All state is in values: targets, and a memory that the caller passes on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from dualview.networks.box_state import STATE_SIZE
from dualview.networks.decoder import DenoisingOutput
from dualview.networks.denoising_queries import DenoisingQueries, merge_remembered_groups
from dualview.supervision.ground_truth import TARGET_SIZE, GroundTruth
from dualview.supervision.matching import MatchingConfig, assign, box_cost

BACKGROUND = -3  # class target of a noisy anchor that no box took
PADDING = -1  # of one that took the place of a missing box, or whose object has vanished


@dataclass(frozen=True)
class DenoisingConfig:
    """groups: G; temporal_groups: H, how many of them are remembered. noise_scale: of the ten target numbers
    (m, ln m, 1, m/s); mild noise is uniform in +-1 of it, strong noise in +-(1..2). max_boxes: boxes of a
    sample that are used, the first ones."""

    groups: int = 5
    temporal_groups: int = 3
    noise_scale: tuple[float, ...] = (2.0, 2.0, 2.0, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5)
    max_boxes: int = 32
    with_negatives: bool = True


@dataclass(frozen=True)
class DenoisingDraws:
    """The random numbers of one frame, all uniform in [0, 1), [G, B, m, 10]: mild noise, strong noise, sign
    of strong noise."""

    mild: Tensor
    strong: Tensor
    sign: Tensor

    @staticmethod
    def sample(
        shape: tuple[int, ...], device: torch.device, generator: torch.Generator | None = None
    ) -> DenoisingDraws:
        """Fresh numbers."""
        return DenoisingDraws(*(torch.rand(shape, device=device, generator=generator) for _ in range(3)))


@dataclass(frozen=True)
class DenoisingTargets:
    """What D = G S noisy anchors of a sample must become.

    class_target [B, D] int64 (negative = background); box_target [B, D, 10]; track_ids [B, D] int64 (-1 =
    none) or None; valid bool [B, D]: takes part in the loss.
    """

    class_target: Tensor
    box_target: Tensor
    track_ids: Tensor | None
    valid: Tensor
    group_count: int


@dataclass(frozen=True)
class DenoisingMemory:
    """The H remembered groups of a frame, detached: features [B, H, S, C], anchors [B, H, S, 11] (its working
    frame), and class_target, track_ids, valid [B, H, S]. Belongs to the same frame as the decoder's instance
    memory."""

    features: Tensor
    anchors: Tensor
    class_target: Tensor
    track_ids: Tensor
    valid: Tensor


def make_denoising(
    truths: Sequence[GroundTruth],
    config: DenoisingConfig,
    matching: MatchingConfig,
    memory: DenoisingMemory | None = None,
    draws: DenoisingDraws | None = None,
) -> tuple[DenoisingQueries, DenoisingTargets] | None:
    """Noisy anchors of a batch and their targets; None if there is no box at all (or no group is asked for).

    memory: of the frame that the decoder's instance memory remembers; ignored if its batch is another one.
    draws: to fix the noise.
    """
    truths = [truth[: config.max_boxes] for truth in truths]
    most = max((len(truth.labels) for truth in truths), default=0)
    if most == 0 or config.groups == 0:
        return None
    labels = torch.stack([_padded(truth.labels, most, PADDING) for truth in truths])  # [B, m]
    states = torch.stack([_padded(truth.states(), most, 0.0) for truth in truths])  # [B, m, 10]
    known = [truth.track_ids for truth in truths if truth.track_ids is not None]
    followed = config.temporal_groups > 0 and len(known) == len(truths)
    ids = torch.stack([_padded(own, most, -1) for own in known]) if followed else None
    shape = (config.groups, len(truths), most, TARGET_SIZE)
    draws = draws or DenoisingDraws.sample(shape, states.device)

    clean = states.nan_to_num(0.0)
    scale = clean.new_tensor(config.noise_scale)
    anchors = clean + (draws.mild * 2 - 1) * scale  # [G, B, m, 10]
    sources = labels
    if config.with_negatives:
        sign = torch.where(draws.sign > 0.5, 1.0, -1.0)
        anchors = torch.cat([anchors, clean + (draws.strong + 1) * sign * scale], 2)  # [G, B, S = 2 m, 10]
        sources = torch.cat([labels, labels], 1)
    anchors = anchors.transpose(0, 1)  # [B, G, S, 10]

    # A strongly disturbed copy may happen to lie nearer than the mild one, so who takes which box is matched
    # afresh. The empty places of samples with fewer boxes take part, as in the published code.
    class_target = torch.full(anchors.shape[:3], BACKGROUND, dtype=torch.int64, device=anchors.device)
    box_target = torch.zeros_like(anchors)
    taken_ids = torch.full_like(class_target, -1)
    for b in range(anchors.shape[0]):
        for g in range(config.groups):
            cost = box_cost(anchors[b, g], clean[b], torch.ones_like(clean[b]), matching)
            anchor, box = assign(cost)
            class_target[b, g, anchor] = labels[b, box]
            box_target[b, g, anchor] = states[b, box]
            if ids is not None:
                taken_ids[b, g, anchor] = ids[b, box]
    is_copy = (sources >= 0).unsqueeze(1) & (class_target == BACKGROUND) & config.with_negatives
    targets = DenoisingTargets(
        class_target=class_target.flatten(1, 2),
        box_target=box_target.flatten(1, 2),
        track_ids=taken_ids.flatten(1, 2) if followed else None,
        valid=((class_target >= 0) | is_copy).flatten(1, 2),
        group_count=config.groups,
    )
    queries = DenoisingQueries(F.pad(anchors.flatten(1, 2), (0, STATE_SIZE - TARGET_SIZE)), config.groups)
    if memory is not None and followed and len(memory.features) == len(truths):
        queries = replace(queries, history_features=memory.features, history_anchors=memory.anchors)
    return queries, targets


def temporal_targets(
    targets: DenoisingTargets, memory: DenoisingMemory | None, history_valid: Tensor
) -> DenoisingTargets:
    """The targets after remembered groups have joined (in samples where `history_valid` [B]): each follows
    its track id.

    A remembered item whose object is not in the frame any more turns into background. `memory` must be the
    one that `make_denoising` was given.
    """
    if memory is None or targets.track_ids is None or len(memory.features) != len(targets.valid):
        return targets
    groups, remembered = targets.group_count, memory.track_ids.shape[1]
    ids = targets.track_ids.unflatten(1, (groups, -1))[:, :remembered]  # [B, H, S]
    boxes = targets.box_target.unflatten(1, (groups, -1))[:, :remembered]
    same = memory.track_ids.unsqueeze(-1) == ids.unsqueeze(-2)  # [B, H, S', S]
    present = same.any(-1)
    found = same.to(torch.uint8).argmax(-1, keepdim=True).expand(-1, -1, -1, TARGET_SIZE)
    box_target = torch.where(present.unsqueeze(-1), boxes.gather(2, found), 0.0)
    class_target = torch.where(present, memory.class_target, PADDING)

    def merged(current: Tensor, joining: Tensor) -> Tensor:
        return merge_remembered_groups(current, joining, history_valid, groups)

    return DenoisingTargets(
        class_target=merged(targets.class_target, class_target),
        box_target=merged(targets.box_target, box_target),
        track_ids=merged(targets.track_ids, memory.track_ids),
        valid=merged(targets.valid, memory.valid),
        group_count=groups,
    )


def remember_denoising(
    output: DenoisingOutput, targets: DenoisingTargets, config: DenoisingConfig, order: Tensor | None = None
) -> DenoisingMemory | None:
    """The memory for the next frame: H random groups with their targets (those of the last layer,
    `temporal_targets`' result).

    order: a permutation [G]; the groups with a number below H are kept (drawn if not given). None if nothing
    can be followed.
    """
    if targets.track_ids is None or config.temporal_groups == 0:
        return None
    order = torch.randperm(targets.group_count) if order is None else order
    kept = (order < config.temporal_groups).to(output.anchors.device)

    def groups(values: Tensor) -> Tensor:
        return values.detach().unflatten(1, (targets.group_count, -1))[:, kept]

    return DenoisingMemory(
        features=groups(output.features),
        anchors=groups(output.anchors),
        class_target=groups(targets.class_target),
        track_ids=groups(targets.track_ids),
        valid=groups(targets.valid),
    )


def _padded(values: Tensor, count: int, filling: float) -> Tensor:
    """values [n, ...] with rows of `filling` up to `count`."""
    padding = values.new_full((count - len(values), *values.shape[1:]), filling)
    return torch.cat([values, padding])
